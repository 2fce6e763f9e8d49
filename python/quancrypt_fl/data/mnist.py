"""MNIST and Fashion-MNIST: 28x28 grey images in four IDX files, full or shortened."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from quancrypt_fl.data.dataset import ImageDataset, Samples
from quancrypt_fl.data.idx import read_idx
from quancrypt_fl.errors import DataError

__all__ = ["load_fashion_mnist", "load_mnist"]

_MNIST_MEAN_STD = (0.1307, 0.3081)
_FASHION_MEAN_STD = (0.2860, 0.3530)


def load_mnist(data_dir: Path | None, seed: int) -> ImageDataset:
    """Load MNIST from ``data_dir`` or ``data_dir/mnist``; nothing in it depends on ``seed``."""
    del seed
    return _load("mnist", _folder("mnist", data_dir), _MNIST_MEAN_STD)


def load_fashion_mnist(data_dir: Path | None, seed: int) -> ImageDataset:
    """Load Fashion-MNIST from ``data_dir`` or ``data_dir/fashion-mnist``, as :func:`load_mnist`."""
    del seed
    return _load("fashion-mnist", _folder("fashion-mnist", data_dir), _FASHION_MEAN_STD)


def _folder(name: str, data_dir: Path | None) -> Path:
    if data_dir is None:
        raise DataError(f"dataset {name!r} needs --data-dir: the folder with its IDX files")
    if not data_dir.is_dir():
        raise DataError(f"{data_dir}: no such folder")
    inner = data_dir / name
    return inner if inner.is_dir() else data_dir


def _load(name: str, folder: Path, mean_std: tuple[float, float]) -> ImageDataset:
    train = _samples(folder, "train", mean_std)
    test = _samples(folder, "t10k", mean_std)
    if train.images.shape[1:] != test.images.shape[1:]:
        raise DataError(f"{folder}: training and test images differ in size")
    return ImageDataset(name, train, test, classes=10)


def _samples(folder: Path, prefix: str, mean_std: tuple[float, float]) -> Samples:
    image_file = _file(folder, f"{prefix}-images-idx3-ubyte")
    label_file = _file(folder, f"{prefix}-labels-idx1-ubyte")
    pixels = read_idx(image_file, dimensions=3)
    labels = read_idx(label_file, dimensions=1)
    if len(pixels) != len(labels):
        raise DataError(f"{label_file}: {len(labels)} labels for {len(pixels)} images")
    mean, std = (np.float32(value) for value in mean_std)
    images = (pixels[:, np.newaxis].astype(np.float32) / np.float32(255) - mean) / std
    return Samples(images, labels.astype(np.int64))


def _file(folder: Path, stem: str) -> Path:
    """The file called ``stem``, as published: with or without ``.gz``, ``-idx`` or ``.idx``."""
    names = [stem, stem.replace("-idx", ".idx")]
    for name in (variant + ending for ending in (".gz", "") for variant in names):
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{folder}: has no {stem}.gz and no {stem}")
