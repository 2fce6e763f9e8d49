"""MNIST and Fashion-MNIST: 28x28 grey images in four IDX files, full or shortened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.data.dataset import ImageDataset, Samples, normalised
from quancrypt_fl.data.idx import LABEL_OFFSET, read_idx
from quancrypt_fl.data.places import download_hint, find_place, required_folder
from quancrypt_fl.errors import DataError

__all__ = ["DEBIAN_FASHION_MNIST", "load_fashion_mnist", "load_mnist"]

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package ``dataset-fashion-mnist`` puts its four files."""

_CLASSES = 10
_MNIST_MEAN_STD = (0.1307, 0.3081)
_FASHION_MEAN_STD = (0.2860, 0.3530)
_FASHION_CLASSES = (
    "T-shirt", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip


def load_mnist(data_dir: Path | None, seed: int) -> ImageDataset:
    """Load MNIST from ``data_dir``, ``data_dir/mnist`` or torchvision's ``data_dir/MNIST/raw``.

    Nothing in it depends on ``seed``.
    """
    del seed
    hint = download_hint("mnist", data_dir)
    folder = required_folder("mnist", data_dir, "its IDX files", hint)
    return _load("mnist", folder, ("mnist", "MNIST/raw"), _MNIST_MEAN_STD, (), hint)


def load_fashion_mnist(data_dir: Path | None, seed: int) -> ImageDataset:
    """Load Fashion-MNIST as :func:`load_mnist`; without ``data_dir``, from Debian's package."""
    del seed
    name = "fashion-mnist"
    hint = f"{download_hint(name, data_dir)}; or install Debian's package dataset-fashion-mnist"
    if data_dir is None and DEBIAN_FASHION_MNIST.is_dir():
        data_dir = DEBIAN_FASHION_MNIST
    folder = required_folder(name, data_dir, "its IDX files", hint)
    inner = (name, "FashionMNIST/raw")
    return _load(name, folder, inner, _FASHION_MEAN_STD, _FASHION_CLASSES, hint)


def _load(
    name: str,
    data_dir: Path,
    inner: tuple[str, ...],
    mean_std: tuple[float, float],
    class_names: tuple[str, ...],
    hint: str,
) -> ImageDataset:
    folder = find_place(data_dir, inner, _holds_some) or data_dir
    train = _samples(folder, "train", mean_std, hint)
    test = _samples(folder, "t10k", mean_std, hint)
    if train.images.shape[1:] != test.images.shape[1:]:
        raise DataError(
            f"{folder}: training images are of shape {train.images.shape[1:]}, "
            f"test images of shape {test.images.shape[1:]}"
        )
    mean, std = mean_std
    return ImageDataset(name, train, test, _CLASSES, class_names, mean=(mean,), std=(std,))


def _samples(folder: Path, prefix: str, mean_std: tuple[float, float], hint: str) -> Samples:
    image_file = _file(folder, f"{prefix}-images-idx3-ubyte", hint)
    label_file = _file(folder, f"{prefix}-labels-idx1-ubyte", hint)
    pixels = read_idx(image_file, dimensions=3)
    labels = read_idx(label_file, dimensions=1)
    if len(pixels) != len(labels):
        raise DataError(
            f"{label_file}: {len(labels)} labels for {len(pixels)} images in {image_file.name}"
        )
    _check_labels(label_file, labels)
    mean, std = mean_std
    return Samples(normalised(pixels[:, np.newaxis], (mean,), (std,)), labels.astype(np.int64))


def _check_labels(path: Path, labels: NDArray[np.uint8]) -> None:
    wrong = np.flatnonzero(labels >= _CLASSES)
    if len(wrong):
        first = int(wrong[0])
        raise DataError(
            f"{path}: at byte {LABEL_OFFSET + first}: label {labels[first]} is not in "
            f"0..{_CLASSES - 1}"
        )


def _names(stem: str) -> list[str]:
    """How a file called ``stem`` may be named: with or without ``.gz``, ``-idx`` or ``.idx``."""
    variants = (stem, stem.replace("-idx", ".idx"))
    return [variant + ending for ending in (".gz", "") for variant in variants]


def _holds_some(folder: Path) -> bool:
    stems = [f"{p}-{k}-ubyte" for p in ("train", "t10k") for k in ("images-idx3", "labels-idx1")]
    return any((folder / name).is_file() for stem in stems for name in _names(stem))


def _file(folder: Path, stem: str, hint: str) -> Path:
    for name in _names(stem):
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{folder}: has no {stem}.gz and no {stem}; {hint}")
