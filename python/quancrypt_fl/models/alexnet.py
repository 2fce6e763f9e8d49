"""The AlexNet of the paper for CIFAR (arXiv 2411.05260): 1,250,858 parameters for CIFAR-10."""

from __future__ import annotations

from torch import nn

from quancrypt_fl.errors import MethodError

__all__ = ["alexnet"]

_SMALLEST_SIDE = 8


def alexnet(image_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Four 3x3 convolutions (the second and fourth without padding), two fully connected layers.

    Dropout is 0.25 after each max-pool and 0.5 before the last layer. The first fully connected
    layer fits the image: 2,304 inputs for 32x32, 64 for 8x8, whose last feature map has one pixel
    and is not pooled.

    A max-pool stands before its ReLU: the result and the gradient are those of the other order, and
    the ReLU has a quarter of the values to go over.
    """
    channels, height, width = image_shape
    if min(height, width) < _SMALLEST_SIDE:
        raise MethodError(
            f"model 'alexnet' needs images of at least 8x8 pixels, got {height}x{width}"
        )
    rows, columns = _last_side(height), _last_side(width)
    pool: nn.Module = nn.Identity()
    if min(rows, columns) > 1:
        pool = nn.MaxPool2d(2)
        rows, columns = rows // 2, columns // 2
    return nn.Sequential(
        nn.Conv2d(channels, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Dropout(0.25),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3),
        pool,
        nn.ReLU(),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(64 * rows * columns, 512),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(512, classes),
    )


def _last_side(side: int) -> int:
    """Side of the last feature map before it is pooled: at least 1 for a side of 8 or more."""
    return (side - 2) // 2 - 2
