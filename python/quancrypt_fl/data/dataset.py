"""A data set in memory: normalised images and labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.errors import DataError

__all__ = ["ImageDataset", "Samples"]


@dataclass(frozen=True)
class Samples:
    """Images with their labels.

    Attributes
    ----------
    images
        float32, shape (samples, channels, height, width), normalised.
    labels
        int64, shape (samples,), in ``[0, classes)``.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.int64]) -> Samples:
        """The samples at ``indices``, copied."""
        return Samples(self.images[indices], self.labels[indices])

    def head(self, limit: int | None) -> Samples:
        """The first ``limit`` samples; all of them if ``limit`` is None or larger."""
        if limit is None or limit >= len(self):
            return self
        return Samples(self.images[:limit], self.labels[:limit])


@dataclass(frozen=True)
class ImageDataset:
    """A named data set; ``train`` is still to be split into training and validation."""

    name: str
    train: Samples
    test: Samples
    classes: int

    def __post_init__(self) -> None:
        for part, samples in (("training", self.train), ("test", self.test)):
            if len(samples) == 0:
                raise DataError(f"{self.name}: the {part} set is empty")
            low, high = int(samples.labels.min()), int(samples.labels.max())
            if low < 0 or high >= self.classes:
                bad = low if low < 0 else high
                raise DataError(
                    f"{self.name}: label {bad} in the {part} set is not in 0..{self.classes - 1}"
                )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of an image."""
        _, channels, height, width = self.train.images.shape
        return channels, height, width

    def limited(self, train: int | None, test: int | None) -> ImageDataset:
        """The same data set with at most so many training and test samples."""
        return ImageDataset(self.name, self.train.head(train), self.test.head(test), self.classes)
