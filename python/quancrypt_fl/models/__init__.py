"""Models by name. Each builder takes the image shape and the number of classes."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from quancrypt_fl.errors import MethodError
from quancrypt_fl.models.alexnet import alexnet
from quancrypt_fl.models.cnn import cnn
from quancrypt_fl.models.mlp import mlp
from quancrypt_fl.models.resnet18 import resnet18

__all__ = ["MODELS", "build_model"]

ImageShape = tuple[int, int, int]

MODELS: dict[str, Callable[[ImageShape, int], nn.Module]] = {
    "mlp": mlp,
    "cnn": cnn,
    "alexnet": alexnet,
    "resnet18": resnet18,
}


def build_model(name: str, image_shape: ImageShape, classes: int) -> nn.Module:
    """Build a model with fresh weights from torch's current random state.

    Parameters
    ----------
    name
        One of :data:`MODELS`.
    image_shape
        (channels, height, width).
    classes
        Number of outputs.

    Raises
    ------
    MethodError
        If there is no such model, or the images are too small for it.
    """
    if name not in MODELS:
        raise MethodError(f"model {name!r} is not available; available: {', '.join(MODELS)}")
    return MODELS[name](image_shape, classes)
