"""Structured pruning: whole channels and neurons are taken out, and dense layers get smaller.

The channels of smallest norm leave a layer, and with them their share of the next layer's inputs.
What is left is an ordinary model with fewer channels, faster on any machine.

- ``mlp``, ``cnn``, ``alexnet``: every convolution and linear layer but the last loses outputs.
  Where a convolution meets a linear layer, a channel takes a column for each of its pixels along.
- ``resnet18``: the channels between the two convolutions of a block. Those that blocks add to each
  other stay, as all blocks of a stage would have to lose the same ones.
"""

from __future__ import annotations

import copy
import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from quancrypt_fl.errors import MethodError
from quancrypt_fl.models.resnet18 import BasicBlock, ResNet18

__all__ = ["prune_channels", "resize"]

Layer = nn.Conv2d | nn.Linear


def prune_channels(model: nn.Module, rate: float) -> nn.Module:
    """A smaller copy of a model, without ``floor(rate * channels)`` channels of each layer.

    Parameters
    ----------
    model
        One of :data:`quancrypt_fl.models.MODELS`; it is not changed.
    rate
        In [0, 1). Where two layers in a row lose channels, about ``1 - (1 - rate)**2`` of the
        weights between them go.
    """
    model = copy.deepcopy(model)
    if isinstance(model, ResNet18):
        for block in model.blocks:
            assert isinstance(block, BasicBlock)
            kept = _kept(block.conv1, rate, block.bn1)
            _keep_outputs(block.conv1, kept)
            _keep_statistics(block.bn1, kept)
            _keep_inputs(block.conv2, kept, pixels=1)
        return model
    if not isinstance(model, nn.Sequential):
        raise MethodError(f"structured pruning does not know {type(model).__name__}")
    layers = [layer for layer in model if isinstance(layer, Layer)]
    for layer, following in pairwise(layers):
        kept = _kept(layer, rate)
        outputs = _outputs(layer)
        _keep_outputs(layer, kept)
        _keep_inputs(following, kept, pixels=_inputs(following) // outputs)
    return model


def resize(model: nn.Module, shapes: dict[str, tuple[int, ...]]) -> None:
    """Give layers the sizes that weights of these shapes have; values are to be filled in.

    Raises
    ------
    MethodError
        If a shape has another number of dimensions than the layer's, or is larger.
    """
    for name, module in model.named_modules():
        if not isinstance(module, Layer | nn.BatchNorm2d):
            continue
        old = tuple(module.weight.shape)
        new = shapes.get(f"{name}.weight", old)
        if len(new) != len(old) or any(not 0 < a <= b for a, b in zip(new, old, strict=True)):
            raise MethodError(f"weights of {name} are {new}; the model's are {old} or smaller")
        if new == old:
            continue
        kept = torch.arange(new[0])
        if isinstance(module, nn.BatchNorm2d):
            _keep_statistics(module, kept)
        else:
            _keep_outputs(module, kept)
            _keep_inputs(module, torch.arange(new[1]), pixels=1)


def _kept(layer: Layer, rate: float, norm: nn.BatchNorm2d | None = None) -> Tensor:
    """Sorted indices of the outputs that stay: those of the largest L2 norm, at least one."""
    size: Tensor = layer.weight.detach().flatten(1).norm(dim=1)
    if norm is not None:  # the filter that the convolution and its batch norm are together
        assert norm.running_var is not None
        size = size * norm.weight.detach().abs() / (norm.running_var + norm.eps).sqrt()
    removed = min(math.floor(rate * len(size) + 1e-9), len(size) - 1)
    kept, _ = size.argsort(stable=True)[removed:].sort()
    return kept


def _outputs(layer: Layer) -> int:
    return layer.weight.shape[0]


def _inputs(layer: Layer) -> int:
    return layer.weight.shape[1]


def _keep_outputs(layer: Layer, kept: Tensor) -> None:
    layer.weight = nn.Parameter(layer.weight.detach()[kept].clone())
    if layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias.detach()[kept].clone())
    if isinstance(layer, nn.Conv2d):
        layer.out_channels = len(kept)
    else:
        layer.out_features = len(kept)


def _keep_inputs(layer: Layer, kept: Tensor, pixels: int) -> None:
    """Each input channel is ``pixels`` columns in a row."""
    columns = (kept[:, None] * pixels + torch.arange(pixels)).flatten()
    layer.weight = nn.Parameter(layer.weight.detach()[:, columns].clone())
    if isinstance(layer, nn.Conv2d):
        layer.in_channels = len(columns)
    else:
        layer.in_features = len(columns)


def _keep_statistics(norm: nn.BatchNorm2d, kept: Tensor) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.weight = nn.Parameter(norm.weight.detach()[kept].clone())
    norm.bias = nn.Parameter(norm.bias.detach()[kept].clone())
    norm.running_mean = norm.running_mean[kept].clone()
    norm.running_var = norm.running_var[kept].clone()
    norm.num_features = len(kept)
