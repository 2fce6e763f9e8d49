"""The networks that are attacked: LeNet as in the attack papers, and the models of training."""

from __future__ import annotations

import torch
from torch import nn

from quancrypt_fl.models import MODELS, build_model
from quancrypt_fl.seeds import derive_seed

__all__ = ["BATCH_STATISTICS", "NETWORKS", "attacked_network", "first_linear", "last_linear"]

BATCH_STATISTICS = "resnet18-batch"
"""ResNet18 whose batch norms take the statistics of the batch, and give them away."""

NETWORKS = ("lenet", *MODELS, BATCH_STATISTICS)

_CHANNELS, _KERNEL = 12, 5
_SPREAD = 0.5


def attacked_network(name: str, shape: tuple[int, int, int], classes: int, seed: int) -> nn.Module:
    """A network with fresh weights and dropout off.

    Dropout off is to the attacker's advantage: a mask that it does not know would hinder it. Batch
    norms take the running statistics, as in training where a client has one image; those of
    :data:`BATCH_STATISTICS` take the statistics of the batch, as with more images.

    Parameters
    ----------
    name
        One of :data:`NETWORKS`.
    shape, classes
        (channels, height, width) of an image; number of outputs.
    seed
        Decides the weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, "attacked-network"))
        model = "resnet18" if name == BATCH_STATISTICS else name
        built = lenet(shape, classes) if name == "lenet" else build_model(model, shape, classes)
    built.train()
    for module in built.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, nn.BatchNorm2d):
            module.train(name == BATCH_STATISTICS)
            module.momentum = 0.0  # nothing that is tried changes the running statistics
        if isinstance(module, nn.ReLU):
            module.inplace = False  # gradients of gradients need what it would write over
    return built


def lenet(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """LeNet of "Deep leakage from gradients" (Zhu et al., NeurIPS 2019).

    Three 5x5 convolutions of 12 channels with sigmoids, strides 2, 2, 1; one linear layer; weights
    and biases uniform in [-0.5, 0.5]. Twice differentiable everywhere, as L-BFGS needs it.
    """
    channels, height, width = shape
    layers: list[nn.Module] = []
    for stride in (2, 2, 1):
        layers += [nn.Conv2d(channels, _CHANNELS, _KERNEL, stride, padding=2), nn.Sigmoid()]
        channels = _CHANNELS
    pixels = -(-height // 4) * -(-width // 4)
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(_CHANNELS * pixels, classes))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.uniform_(-_SPREAD, _SPREAD)
    return network


def _linears(network: nn.Module) -> list[tuple[str, nn.Linear]]:
    return [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Linear)]


def first_linear(network: nn.Module) -> tuple[str, nn.Linear]:
    """Name and module of the first fully connected layer."""
    return _linears(network)[0]


def last_linear(network: nn.Module) -> tuple[str, nn.Linear]:
    """Name and module of the last fully connected layer, whose outputs are the classes."""
    return _linears(network)[-1]
