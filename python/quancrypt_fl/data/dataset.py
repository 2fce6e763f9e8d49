"""A data set in memory: normalised images and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.errors import DataError

__all__ = ["ImageDataset", "Samples", "normalised"]

_BLOCK = 1024  # images at a time, so that temporaries stay below a few MB


@dataclass(frozen=True)
class Samples:
    """Images with their labels.

    Attributes
    ----------
    images
        float32, shape (samples, channels, height, width), normalised.
    labels
        int64, shape (samples,), in ``[0, classes)``.
    groups
        int64, shape (samples,), or None. Samples with the same number show the same thing (one
        skin lesion of HAM10000) and must not be divided between training and validation.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.int64]) -> Samples:
        """The samples at ``indices``, copied."""
        groups = None if self.groups is None else self.groups[indices]
        return Samples(self.images[indices], self.labels[indices], groups)

    def head(self, limit: int | None) -> Samples:
        """The first ``limit`` samples; all of them if ``limit`` is None or larger."""
        if limit is None or limit >= len(self):
            return self
        groups = None if self.groups is None else self.groups[:limit]
        return Samples(self.images[:limit], self.labels[:limit], groups)


@dataclass(frozen=True)
class ImageDataset:
    """A named data set; ``train`` is still to be split into training and validation.

    Attributes
    ----------
    class_names
        What each label stands for, or empty: the labels are the names.
    notes
        What a user should know about the files that were read, a sentence each.
    mean, std
        What the images are normalised with, for pixels scaled to [0, 1]: one of each per channel,
        or of all channels.
    """

    name: str
    train: Samples
    test: Samples
    classes: int
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        for part, samples in (("training", self.train), ("test", self.test)):
            if len(samples) == 0:
                raise DataError(f"{self.name}: the {part} set is empty")
            if samples.images.size == 0:
                raise DataError(
                    f"{self.name}: the images of the {part} set have no pixels: "
                    f"shape {samples.images.shape}"
                )
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

    def class_name(self, label: int) -> str:
        """What ``label`` stands for."""
        return self.class_names[label] if self.class_names else str(label)

    def pixels(self, samples: Samples) -> NDArray[np.uint8]:
        """The images of some samples of the set before they were normalised, same shape."""
        found = np.empty(samples.images.shape, np.uint8)
        mean, std = (
            np.array(values, np.float32).reshape(-1, 1, 1) for values in (self.mean, self.std)
        )
        for start in range(0, len(samples), _BLOCK):
            block = slice(start, start + _BLOCK)
            scaled = (samples.images[block] * std + mean) * np.float32(255)
            found[block] = np.clip(np.rint(scaled), 0, 255)
        return found

    def limited(self, train: int | None, test: int | None) -> ImageDataset:
        """The same data set with at most so many training and test samples."""
        return replace(self, train=self.train.head(train), test=self.test.head(test))


def normalised(
    pixels: NDArray[np.uint8],
    mean: Sequence[float],
    std: Sequence[float],
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """``(pixels / 255 - mean) / std`` in float32, without a second copy of the images.

    Parameters
    ----------
    pixels
        Shape (samples, channels, height, width).
    mean, std
        One of each per channel, for pixels scaled to [0, 1].
    out
        Where to write, of the same shape; a new array by default.
    """
    images = np.empty(pixels.shape, np.float32) if out is None else out
    scaled = np.arange(256, dtype=np.float32) / np.float32(255)
    for channel, (centre, width) in enumerate(zip(mean, std, strict=True)):
        values = (scaled - np.float32(centre)) / np.float32(width)
        for start in range(0, len(pixels), _BLOCK):
            block = slice(start, start + _BLOCK)
            images[block, channel] = values[pixels[block, channel]]
    return images
