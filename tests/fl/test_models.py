"""Models: parameter counts, image sizes, and layers in another order than the papers'."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from quancrypt_fl.config import CHOICES
from quancrypt_fl.errors import MethodError
from quancrypt_fl.models import MODELS, build_model

SHAPES = {
    "digits": (1, 8, 8),
    "mnist": (1, 28, 28),
    "cifar10": (3, 32, 32),
    "ham10000": (3, 64, 64),
}
SMALL = "at least {0}x{0} pixels, got {1}"


@pytest.mark.parametrize(
    ("name", "shape", "classes", "parameters"),
    [
        ("cnn", (1, 28, 28), 10, 421_642),
        ("cnn", (1, 8, 8), 10, 53_002),
        ("mlp", (1, 8, 8), 10, 9_610),
        ("mlp", (1, 28, 28), 10, 101_770),
        ("alexnet", (3, 32, 32), 10, 1_250_858),
        ("alexnet", (3, 32, 32), 100, 1_250_858 + 90 * 513),
        ("resnet18", (3, 32, 32), 10, 11_173_962),
        ("resnet18", (3, 32, 32), 100, 11_220_132),
    ],
)
def test_parameter_counts(
    name: str, shape: tuple[int, int, int], classes: int, parameters: int
) -> None:
    model = build_model(name, shape, classes)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_tensors_of_resnet18() -> None:
    model = build_model("resnet18", (3, 32, 32), 10)
    assert len(list(model.parameters())) == 62
    buffers = dict(model.named_buffers())
    assert len(buffers) == 60
    assert sum(buffer.is_floating_point() for buffer in buffers.values()) == 40


@pytest.mark.parametrize("dataset", SHAPES)
@pytest.mark.parametrize("name", MODELS)
def test_every_model_fits_every_data_set(name: str, dataset: str) -> None:
    model = build_model(name, SHAPES[dataset], 7).eval()
    assert model(torch.zeros(2, *SHAPES[dataset])).shape == (2, 7)


def test_stages_of_resnet18() -> None:
    model = build_model("resnet18", (3, 32, 32), 10).eval()
    shapes = []
    for block in model.blocks:
        block.register_forward_hook(lambda _, __, y: shapes.append(tuple(y.shape[1:])))
    model(torch.zeros(1, 3, 32, 32))
    sides = {64: 32, 128: 16, 256: 8, 512: 4}
    assert shapes == [(c, side, side) for c, side in sides.items() for _ in range(2)]


@pytest.mark.parametrize(("name", "shape"), [("cnn", (1, 12, 9)), ("alexnet", (3, 12, 12))])
def test_pooling_before_relu_changes_nothing(name: str, shape: tuple[int, int, int]) -> None:
    """Outputs and gradients are those of conv, ReLU, max-pool, as in the paper."""
    model = build_model(name, shape, 10).eval()
    layers = list(model)
    pools = [i for i, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    assert len(pools) == 2
    for i in pools:
        assert isinstance(layers[i + 1], nn.ReLU)
        layers[i], layers[i + 1] = layers[i + 1], layers[i]
    published = nn.Sequential(*layers)
    images = torch.randn(5, *shape)
    expected = torch.autograd.grad(published(images).square().sum(), list(published.parameters()))
    got = torch.autograd.grad(model(images).square().sum(), list(model.parameters()))
    assert torch.equal(model(images), published(images))
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_the_configuration_offers_what_there_is() -> None:
    assert CHOICES["model"] == tuple(MODELS)


def test_unknown_and_unfitting_models_are_refused() -> None:
    with pytest.raises(MethodError, match="'vgg' is not available; available: mlp, cnn, alexnet"):
        build_model("vgg", (1, 8, 8), 10)
    with pytest.raises(MethodError, match=SMALL.format(4, "3x9")):
        build_model("cnn", (1, 3, 9), 10)
    with pytest.raises(MethodError, match=SMALL.format(8, "8x7")):
        build_model("alexnet", (3, 8, 7), 10)
