"""Image data sets by name, read with NumPy (and Pillow for JPEGs), and their splits over clients.

Nothing here reaches for the network but :mod:`quancrypt_fl.data.download`, and no loader calls it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from quancrypt_fl.data.cifar import load_cifar10, load_cifar100
from quancrypt_fl.data.dataset import ImageDataset, Samples
from quancrypt_fl.data.digits import load_digits
from quancrypt_fl.data.ham10000 import load_ham10000
from quancrypt_fl.data.mnist import load_fashion_mnist, load_mnist
from quancrypt_fl.data.partition import Split, split, split_as
from quancrypt_fl.errors import DataError

__all__ = ["DATASETS", "ImageDataset", "Samples", "Split", "load_dataset", "split", "split_as"]

DATASETS: dict[str, Callable[[Path | None, int], ImageDataset]] = {
    "digits": load_digits,
    "mnist": load_mnist,
    "fashion-mnist": load_fashion_mnist,
    "cifar10": load_cifar10,
    "cifar100": load_cifar100,
    "ham10000": load_ham10000,
}
"""Loader of each data set: (data folder or None, seed) -> data set."""


def load_dataset(name: str, data_dir: Path | None, seed: int) -> ImageDataset:
    """Load a data set.

    Parameters
    ----------
    name
        One of :data:`DATASETS`.
    data_dir
        Folder of the files, for data sets that do not come with a package.
    seed
        Decides the test set of data sets that have no official one.

    Raises
    ------
    DataError
        If the name is unknown, or files are absent or broken: the message says which and where.
    """
    if name not in DATASETS:
        raise DataError(f"dataset {name!r} is not available; available: {', '.join(DATASETS)}")
    return DATASETS[name](data_dir, seed)
