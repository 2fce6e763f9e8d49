"""Pictures with classes, from the vision data sets, and what classes are called in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.data import ImageDataset, Samples, load_dataset
from quancrypt_fl.errors import DataError
from quancrypt_fl.lm.splits import limited

__all__ = ["Labelled", "Pictures", "in_words", "read_labelled"]

_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_CIFAR10_NAMES = "batches.meta.txt"
_BUNDLED = "digits"  # comes with scikit-learn: a name, no folder
_FILES: Mapping[str, Sequence[str]] = {
    "cifar10": ("data_batch_*.bin", "cifar-10-binary.tar.gz"),
    "cifar100": ("train.bin", "cifar-100-binary.tar.gz"),
    "ham10000": ("HAM10000_metadata*",),
    "mnist": ("train-images*idx3-ubyte*",),
}


@dataclass(frozen=True)
class Pictures:
    """Rows of pictures.

    Attributes
    ----------
    pixels
        Shape (rows, channels, height, width), in [0, 255].
    labels
        The class of each, shape (rows,).
    groups
        See :attr:`quancrypt_fl.data.dataset.Samples.groups`.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64] | None = None

    @property
    def lengths(self) -> NDArray[np.int64]:
        """All cost the same."""
        return np.ones(len(self), np.int64)

    @property
    def by_label(self) -> NDArray[np.int64]:
        """The class of each."""
        return self.labels

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.int64]) -> Pictures:
        """Some of the rows."""
        groups = None if self.groups is None else self.groups[indices]
        return Pictures(self.pixels[indices], self.labels[indices], groups)


@dataclass(frozen=True)
class Labelled:
    """A vision data set: pictures for training and testing, and the names of their classes."""

    train: Pictures
    test: Pictures
    classes: tuple[str, ...]


def read_labelled(
    path: Path, seed: int, max_train: int | None = None, max_test: int | None = None
) -> Labelled:
    """A vision data set by its folder, or ``digits``.

    Parameters
    ----------
    path
        Folder of the files, or the one above it; which data set it is, its files tell.
    seed
        Draws the test set where there is no official one, and the rows of a limit.
    max_train, max_test
        Only so many rows, drawn at random; None: all.

    Raises
    ------
    DataError
        If there is none, files are broken, or all are of one class.
    """
    dataset = load_dataset(*_which(path), seed)
    train = limited(dataset.train, max_train, seed, "train-limit")
    test = limited(dataset.test, max_test, seed, "test-limit")
    if len(present := np.unique(train.labels)) < 2:
        raise DataError(
            f"{path}: all pictures are of class {int(present[0])}; needed: 2 classes or more"
        )
    return Labelled(_pictures(dataset, train), _pictures(dataset, test), _names(path, dataset))


def in_words(prompt: str, names: Sequence[str]) -> list[str]:
    """A sentence for each class, such as "a photo of a cat"."""
    return [prompt.replace("{name}", name.replace("_", " ")) for name in names]


def _which(path: Path) -> tuple[str, Path | None]:
    """Name and folder of a data set."""
    if path.is_dir():
        for name, patterns in _FILES.items():
            if any(next(path.glob(f"{up}{p}"), None) for up in ("", "*/") for p in patterns):
                fashion = name == "mnist" and "fashion" in path.resolve().name.lower()
                return "fashion-mnist" if fashion else name, path
    elif str(path) == _BUNDLED:
        return _BUNDLED, None
    raise DataError(
        f"{path}: {'has no pictures with classes' if path.is_dir() else 'no such folder'}; "
        f"allowed: a folder with the files of {', '.join(_FILES)} or fashion-mnist "
        "(docs/data.md), or digits"
    )


def _pictures(dataset: ImageDataset, samples: Samples) -> Pictures:
    return Pictures(dataset.pixels(samples), samples.labels, samples.groups)


def _names(path: Path, dataset: ImageDataset) -> tuple[str, ...]:
    """The classes' names: CIFAR-10's own list where it lies there; words for digits."""
    listed = next((f for up in ("", "*/") for f in path.glob(f"{up}{_CIFAR10_NAMES}")), None)
    if dataset.name == "cifar10" and listed is not None:
        lines = listed.read_text(encoding="utf-8", errors="replace").splitlines()
        names = tuple(line.strip() for line in lines if line.strip())
        if len(names) != dataset.classes:
            raise DataError(f"{listed}: has {len(names)} names; needed: {dataset.classes}")
        return names
    return dataset.class_names or _DIGITS
