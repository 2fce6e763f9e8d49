"""Structured pruning: the smaller model computes what the original does without those channels."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from quancrypt_fl.errors import MethodError
from quancrypt_fl.export.structured import prune_channels, resize
from quancrypt_fl.models import MODELS, build_model
from quancrypt_fl.models.resnet18 import BasicBlock

SHAPE = (2, 12, 11)
RATE = 0.4


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = build_model(request.param, SHAPE, 5).eval()
        for layer in net.modules():  # as after training
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.uniform_(layer.weight, -1, 1)
                nn.init.uniform_(layer.bias, -1, 1)
                nn.init.uniform_(layer.running_mean, -1, 1)
                nn.init.uniform_(layer.running_var, 0.5, 2)
    return net


def pruned_pairs(net: nn.Module) -> list[tuple[nn.Module, nn.Module | None]]:
    """Layers that lose outputs, each with its batch norm."""
    if isinstance(net, nn.Sequential):
        return [(m, None) for m in net if isinstance(m, nn.Conv2d | nn.Linear)][:-1]
    return [(m.conv1, m.bn1) for m in net.modules() if isinstance(m, BasicBlock)]


def norms(layer: nn.Module, norm: nn.Module | None) -> torch.Tensor:
    weight = layer.weight.detach()
    size = weight.reshape(len(weight), -1).square().sum(1).sqrt()
    return size if norm is None else size * (norm.weight / (norm.running_var + 1e-5).sqrt()).abs()


def test_it_computes_what_the_original_does_without_those_channels(model: nn.Module) -> None:
    before = copy.deepcopy(model.state_dict())
    small = prune_channels(model, RATE)
    assert all(
        torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True)
    )
    without = copy.deepcopy(model)
    pairs = pruned_pairs(without)
    for index, (layer, norm) in enumerate(pairs):
        removed = norms(layer, norm).argsort()[: int(RATE * len(layer.weight))]
        with torch.no_grad():
            for owner in (layer, norm):
                if owner is not None:
                    owner.weight[removed] = 0
                    if owner.bias is not None:
                        owner.bias[removed] = 0
            if norm is None and index + 1 < len(pairs):  # what a layer no longer gets has no norm
                following = pairs[index + 1][0].weight
                following.view(len(following), len(layer.weight), -1)[:, removed] = 0
    images = torch.randn(6, *SHAPE)
    with torch.inference_mode():
        torch.testing.assert_close(small(images), without(images), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(small(images), model(images), rtol=1e-2)


def test_channels_are_gone(model: nn.Module) -> None:
    small = prune_channels(model, RATE)
    for (old, _), (new, norm) in zip(pruned_pairs(model), pruned_pairs(small), strict=True):
        count = len(old.weight) - int(RATE * len(old.weight))
        assert len(new.weight) == count
        assert norm is None or len(norm.running_var) == count
    assert sum(p.numel() for p in small.parameters()) < 0.7 * sum(
        p.numel() for p in model.parameters()
    )
    # It trains on.
    small.train()
    small(torch.randn(4, *SHAPE)).sum().backward()
    assert all(parameter.grad is not None for parameter in small.parameters())


def test_a_fresh_model_takes_the_sizes_of_a_smaller_one(model: nn.Module) -> None:
    small = prune_channels(model, RATE)
    name = next(name for name, builder in MODELS.items() if model_is(model, name))
    fresh = build_model(name, SHAPE, 5).eval()
    resize(fresh, {key: tuple(tensor.shape) for key, tensor in small.state_dict().items()})
    fresh.load_state_dict(small.state_dict())
    images = torch.randn(2, *SHAPE)
    assert torch.equal(fresh(images), small(images))


def model_is(model: nn.Module, name: str) -> bool:
    return list(build_model(name, SHAPE, 5).state_dict()) == list(model.state_dict())


def test_rate_zero_changes_nothing_and_one_channel_stays(model: nn.Module) -> None:
    images = torch.randn(2, *SHAPE)
    assert torch.equal(prune_channels(model, 0.0)(images), model(images))
    least = prune_channels(model, 0.999)
    assert {len(layer.weight) for layer, _ in pruned_pairs(least)} == {1}
    assert least(images).shape == (2, 5)


def test_unknown_models_and_sizes_are_refused() -> None:
    with pytest.raises(MethodError, match="does not know Identity"):
        prune_channels(nn.Identity(), 0.5)
    with pytest.raises(MethodError, match=r"weights of 1 are \(129, 64\)"):
        resize(build_model("mlp", (1, 8, 8), 10), {"1.weight": (129, 64)})
