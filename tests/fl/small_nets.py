"""Networks that train in milliseconds, to stand in for a model's name."""

from __future__ import annotations

from torch import nn


def batch_norm_net(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """One convolution with batch norm, for 8x8 images: two buffers and one counter."""
    return nn.Sequential(
        nn.Conv2d(shape[0], 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * (shape[1] - 2) * (shape[2] - 2), classes),
    )
