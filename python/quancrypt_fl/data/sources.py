"""The official addresses of the data sets' files, with their published checksums.

MD5 is what the publishers give. It protects against damage and against a wrong file; somebody who
could forge a file with a given MD5 (a second preimage) is not known to exist. MNIST's own site no
longer serves the files; the two mirrors are those that torchvision and TensorFlow's tutorials use,
with the checksums of torchvision. Sizes are in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SOURCES", "RemoteFile"]


@dataclass(frozen=True)
class RemoteFile:
    """A file to download.

    Attributes
    ----------
    name
        Of the file in the data folder.
    urls
        Where it is to be had; the next is tried if one fails.
    size
        Its exact length in bytes.
    digest
        Its checksum, in hexadecimal digits.
    algorithm
        Of the checksum: a name that ``hashlib`` knows.
    """

    name: str
    urls: tuple[str, ...]
    size: int
    digest: str
    algorithm: str = "md5"


def _files(folders: tuple[str, ...], *files: tuple[str, int, str]) -> tuple[RemoteFile, ...]:
    return tuple(
        RemoteFile(name, tuple(folder + name for folder in folders), size, digest)
        for name, size, digest in files
    )


_MNIST = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
_FASHION_MNIST = ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",)
_CIFAR = ("https://www.cs.toronto.edu/~kriz/",)

SOURCES: dict[str, tuple[RemoteFile, ...]] = {
    "mnist": _files(
        _MNIST,
        ("train-images-idx3-ubyte.gz", 9_912_422, "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
        ("train-labels-idx1-ubyte.gz", 28_881, "d53e105ee54ea40749a09fcbcd1e9432"),
        ("t10k-images-idx3-ubyte.gz", 1_648_877, "9fb629c4189551a2d022fa330f9573f3"),
        ("t10k-labels-idx1-ubyte.gz", 4_542, "ec29112dd5afa0611ce80d1b7f02629c"),
    ),
    "fashion-mnist": _files(
        _FASHION_MNIST,
        ("train-images-idx3-ubyte.gz", 26_421_880, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        ("train-labels-idx1-ubyte.gz", 29_515, "25c81989df183df01b3e8a0aad5dffbe"),
        ("t10k-images-idx3-ubyte.gz", 4_422_102, "bef4ecab320f06d8554ea6380940ec79"),
        ("t10k-labels-idx1-ubyte.gz", 5_148, "bb300cfdad3c16e7a12a480ee83cd310"),
    ),
    "cifar10": _files(
        _CIFAR, ("cifar-10-binary.tar.gz", 170_052_171, "c32a1d4ab5d03f1284b67883e8d87530")
    ),
    "cifar100": _files(
        _CIFAR, ("cifar-100-binary.tar.gz", 168_513_733, "03b5dce01913d631647c71ecec9e9cb8")
    ),
}
"""The files of each data set that can be downloaded."""
