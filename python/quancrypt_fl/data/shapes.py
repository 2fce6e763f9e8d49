"""Shapes of the data sets' images, for what is made without the data."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["IMAGES"]

IMAGES: Mapping[str, tuple[tuple[int, int, int], int]] = {
    "digits": ((1, 8, 8), 10),
    "mnist": ((1, 28, 28), 10),
    "fashion-mnist": ((1, 28, 28), 10),
    "cifar10": ((3, 32, 32), 10),
    "cifar100": ((3, 32, 32), 100),
    "ham10000": ((3, 64, 64), 7),
}
"""Image shape (channels, height, width) and number of classes of each data set."""
