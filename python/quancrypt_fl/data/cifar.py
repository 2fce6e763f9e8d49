"""CIFAR-10 and CIFAR-100, binary version: 32x32 colour images in records of fixed length.

A record of CIFAR-10 is a label byte and 3,072 pixel bytes: 1,024 red, green, blue, each row by row.
CIFAR-100 has two label bytes, coarse (0..19) and fine (0..99), of which the fine one is used. The
files may hold fewer records than the official ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.data.archive import read_members
from quancrypt_fl.data.cifar_names import CIFAR10, CIFAR100
from quancrypt_fl.data.dataset import ImageDataset, Samples, normalised
from quancrypt_fl.data.places import download_hint, find_place, required_folder
from quancrypt_fl.errors import DataError

__all__ = ["load_cifar10", "load_cifar100"]

_SHAPE = (3, 32, 32)
_PIXELS = 3072


@dataclass(frozen=True)
class _Variant:
    """What tells CIFAR-10 from CIFAR-100."""

    name: str
    folder: str  # in the archive
    archive: str
    train: re.Pattern[str]
    train_said: str  # the same for people
    test: str
    label_limits: tuple[int, ...]  # one per label byte; the last is the label that is used
    class_names: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def record(self) -> int:
        return len(self.label_limits) + _PIXELS


_CIFAR10 = _Variant(
    name="cifar10",
    folder="cifar-10-batches-bin",
    archive="cifar-10-binary.tar.gz",
    train=re.compile(r"data_batch_[0-9]+\.bin"),
    train_said="data_batch_*.bin",
    test="test_batch.bin",
    label_limits=(10,),
    class_names=CIFAR10,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2023, 0.1994, 0.2010),
)
_CIFAR100 = _Variant(
    name="cifar100",
    folder="cifar-100-binary",
    archive="cifar-100-binary.tar.gz",
    train=re.compile(r"train\.bin"),
    train_said="train.bin",
    test="test.bin",
    label_limits=(20, 100),
    class_names=CIFAR100,
    mean=(0.5071, 0.4867, 0.4408),
    std=(0.2675, 0.2565, 0.2761),
)


def load_cifar10(data_dir: Path | None, seed: int) -> ImageDataset:
    """Load CIFAR-10: every ``data_batch_*.bin`` that is there, and ``test_batch.bin``.

    They are looked for in ``data_dir`` and its subfolders ``cifar-10-batches-bin`` and ``cifar10``,
    then in ``cifar-10-binary.tar.gz`` there. Nothing depends on ``seed``.
    """
    del seed
    return _load(_CIFAR10, data_dir)


def load_cifar100(data_dir: Path | None, seed: int) -> ImageDataset:
    """Load CIFAR-100, ``train.bin`` and ``test.bin``, with fine labels; as :func:`load_cifar10`."""
    del seed
    return _load(_CIFAR100, data_dir)


def _load(variant: _Variant, data_dir: Path | None) -> ImageDataset:
    hint = download_hint(variant.name, data_dir)
    data_dir = required_folder(variant.name, data_dir, "its binary files or its archive", hint)
    inner = (variant.folder, variant.name, f"{variant.name}/{variant.folder}")

    def wanted(name: str) -> bool:
        return name == variant.test or variant.train.fullmatch(name) is not None

    def holds_files(folder: Path) -> bool:
        return any(wanted(path.name) for path in folder.iterdir())

    def holds_archive(folder: Path) -> bool:
        return (folder / variant.archive).is_file()

    if folder := find_place(data_dir, inner, holds_files):
        place = folder
        paths = {path.name: path for path in folder.iterdir() if wanted(path.name)}
        read: dict[str, Callable[[], NDArray[np.uint8]]]
        read = {name: _reader(path) for name, path in paths.items()}
    elif folder := find_place(data_dir, inner, holds_archive):
        place = folder / variant.archive
        members = read_members(place, wanted)
        read = {name: _viewer(members, name) for name in members}
    else:
        raise DataError(
            f"{data_dir}: has neither {variant.train_said} nor {variant.archive}, here or in "
            f"{', '.join(inner)}; {_other_version(data_dir, variant)}{hint}"
        )
    train = sorted((name for name in read if name != variant.test), key=_number)
    if not train:
        raise DataError(f"{place}: has no {variant.train_said}; {hint}")
    if variant.test not in read:
        raise DataError(f"{place}: has no {variant.test}; {hint}")
    return ImageDataset(
        variant.name,
        _samples(variant, place, {name: read[name] for name in train}),
        _samples(variant, place, {variant.test: read[variant.test]}),
        variant.label_limits[-1],
        variant.class_names,
        mean=variant.mean,
        std=variant.std,
    )


def _number(name: str) -> tuple[int, str]:
    """Sorts ``data_batch_10.bin`` after ``data_batch_2.bin``."""
    digits = re.search(r"\d+", name)
    return int(digits[0]) if digits else 0, name


def _reader(path: Path) -> Callable[[], NDArray[np.uint8]]:
    def read() -> NDArray[np.uint8]:
        try:
            return np.fromfile(path, np.uint8)
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error

    return read


def _viewer(members: dict[str, bytes], name: str) -> Callable[[], NDArray[np.uint8]]:
    return lambda: np.frombuffer(members[name], np.uint8)


def _samples(
    variant: _Variant, place: Path, read: dict[str, Callable[[], NDArray[np.uint8]]]
) -> Samples:
    """Images of several files, converted file by file into one float32 array."""
    records = [_records(variant, place / name, content()) for name, content in read.items()]
    total = sum(len(part) for part in records)
    images = np.empty((total, *_SHAPE), np.float32)
    labels = np.empty(total, np.int64)
    label_bytes = len(variant.label_limits)
    start = 0
    while records:
        part = records.pop(0)  # each file's bytes are given back once they are converted
        end = start + len(part)
        labels[start:end] = part[:, label_bytes - 1]
        pixels = part[:, label_bytes:].reshape(len(part), *_SHAPE)
        normalised(pixels, variant.mean, variant.std, out=images[start:end])
        start = end
    return Samples(images, labels)


def _records(variant: _Variant, path: Path, content: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Shape (records, bytes of a record), checked."""
    count, rest = divmod(len(content), variant.record)
    if len(content) == 0:
        raise DataError(f"{path}: at byte 0: the file is empty")
    if rest:
        raise DataError(
            f"{path}: at byte {count * variant.record}: truncated record: {rest} bytes of "
            f"{variant.record}; the length {len(content)} is no multiple of {variant.record}"
        )
    records = content.reshape(count, variant.record)
    for column, limit in enumerate(variant.label_limits):
        wrong = np.flatnonzero(records[:, column] >= limit)
        if len(wrong):
            first = int(wrong[0])
            raise DataError(
                f"{path}: at byte {first * variant.record + column}: label "
                f"{records[first, column]} is not in 0..{limit - 1}"
            )
    return records


def _other_version(data_dir: Path, variant: _Variant) -> str:
    """A word about the Python version of the files, which is a pickle and is never opened."""
    stem = variant.archive.removesuffix("-binary.tar.gz")
    names = (f"{stem}-python.tar.gz", f"{stem}-batches-py", f"{stem}-python")
    found = [name for name in names if (data_dir / name).exists()]
    return f"{found[0]} is the Python version, this needs the binary one; " if found else ""
