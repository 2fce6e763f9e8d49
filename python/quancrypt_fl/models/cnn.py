"""The CNN that the paper uses for MNIST (arXiv 2411.05260): 421,642 parameters there."""

from __future__ import annotations

from torch import nn

from quancrypt_fl.errors import MethodError

__all__ = ["cnn"]

_SMALLEST_SIDE = 4  # two max-pools halve the image twice


def cnn(image_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Two 3x3 convolutions with max-pooling and two fully connected layers, dropout 0.5.

    The first fully connected layer fits the image: 3,136 inputs for 28x28, 256 for 8x8.

    A max-pool stands before its ReLU: the result and the gradient are those of the other order, and
    the ReLU has a quarter of the values to go over.
    """
    channels, height, width = image_shape
    if min(height, width) < _SMALLEST_SIDE:
        raise MethodError(f"model 'cnn' needs images of at least 4x4 pixels, got {height}x{width}")
    return nn.Sequential(
        nn.Conv2d(channels, 32, 3, padding=1),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * (height // 4) * (width // 4), 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, classes),
    )
