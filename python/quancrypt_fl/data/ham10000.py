"""HAM10000: dermatoscopic images of skin lesions, seven diagnoses (Tschandl et al., 2018).

A folder of JPEG files, possibly in subfolders, and ``HAM10000_metadata.csv`` with a row per image.
Several images can show one lesion. There is no official test set within the 10,015 images: a fifth
of the lesions of every diagnosis is drawn with the seed, and all images of a lesion stay on one
side. Each side is in a random order of its lesions, as the metadata is sorted by diagnosis: the
first samples of a set are a fair sample of it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.data.dataset import ImageDataset, Samples, normalised
from quancrypt_fl.data.jpeg import read_images
from quancrypt_fl.data.places import find_place, required_folder
from quancrypt_fl.errors import DataError
from quancrypt_fl.seeds import generator

__all__ = ["WHERE_TO_GET_HAM10000", "load_ham10000"]

WHERE_TO_GET_HAM10000 = (
    "HAM10000 has no direct download: get HAM10000_metadata and the two archives of images from "
    "Harvard Dataverse (doi:10.7910/DVN/DBW86T), whose licence you accept there, "
    "and unpack them into one folder"
)

_CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
_SIZE = 64
_HALF = (0.5, 0.5, 0.5)  # mean and std: pixels become [-1, 1]
_TEST_SHARE = 0.2
_METADATA = ("HAM10000_metadata.csv", "HAM10000_metadata", "HAM10000_metadata.tab")
_COLUMNS = ("lesion_id", "image_id", "dx")
_MAX_METADATA_BYTES = 64 << 20  # the official file has half a megabyte


@dataclass(frozen=True)
class _Row:
    lesion: str
    image: str
    label: int


def load_ham10000(data_dir: Path | None, seed: int) -> ImageDataset:
    """Load HAM10000 from ``data_dir`` or its subfolder ``ham10000`` or ``HAM10000``.

    Images are scaled to 64x64. Rows of the metadata without an image, and images without a row, are
    passed over and counted in the data set's notes. ``seed`` decides the test set and the order.
    """
    folder = required_folder(
        "ham10000", data_dir, "its JPEG files and HAM10000_metadata.csv", WHERE_TO_GET_HAM10000
    )
    place = find_place(
        folder, ("ham10000", "HAM10000"), lambda f: any((f / n).is_file() for n in _METADATA)
    )
    if place is None:
        raise DataError(f"{folder}: has no {_METADATA[0]}; {WHERE_TO_GET_HAM10000}")
    metadata = next(place / name for name in _METADATA if (place / name).is_file())
    rows = _rows(metadata)
    files = _images(place)
    present = _shuffled([row for row in rows if row.image in files], seed)
    if not present:
        raise DataError(
            f"{place}: has no image of the {len(rows)} rows of {metadata.name}: files are called "
            f"{rows[0].image}.jpg and so on, here or in subfolders; {WHERE_TO_GET_HAM10000}"
        )
    labels = np.array([row.label for row in present], np.int64)
    lesions = np.unique([row.lesion for row in present], return_inverse=True)[1].astype(np.int64)
    pixels = read_images([files[row.image] for row in present], _SIZE)
    everything = Samples(normalised(pixels, _HALF, _HALF), labels, lesions)
    in_test = _test_set(labels, lesions, seed)
    return ImageDataset(
        "ham10000",
        everything.take(np.flatnonzero(~in_test)),
        everything.take(np.flatnonzero(in_test)),
        len(_CLASSES),
        _CLASSES,
        _notes(len(rows), len(present), len(files), metadata.name),
        mean=_HALF,
        std=_HALF,
    )


def _rows(path: Path) -> list[_Row]:
    try:
        if path.stat().st_size > _MAX_METADATA_BYTES:
            raise DataError(f"{path}: more than {_MAX_METADATA_BYTES >> 20} MiB: not this file")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: at byte {error.start}: not UTF-8 text") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    rows: list[_Row] = []
    first_line: dict[str, int] = {}
    for line, lesion, image, diagnosis in _fields(path, text):
        if not lesion or not image:
            raise DataError(f"{path}: line {line}: lesion_id or image_id is empty")
        if diagnosis not in _CLASSES:
            raise DataError(
                f"{path}: line {line}: dx {diagnosis!r} is not one of {', '.join(_CLASSES)}"
            )
        if image in first_line:
            raise DataError(f"{path}: line {line}: {image} was in line {first_line[image]} already")
        first_line[image] = line
        rows.append(_Row(lesion, image, _CLASSES.index(diagnosis)))
    if not rows:
        raise DataError(f"{path}: line 2: no row after the header")
    return rows


def _fields(path: Path, text: str) -> Iterator[tuple[int, str, str, str]]:
    """Line number, lesion_id, image_id and dx of each row, divided by commas or tabs."""
    delimiter = "\t" if "\t" in text.partition("\n")[0] else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        absent = [name for name in _COLUMNS if name not in header]
        if absent:
            raise DataError(f"{path}: line 1: no column {', '.join(absent)}")
        columns = [header.index(name) for name in _COLUMNS]
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise DataError(
                    f"{path}: line {reader.line_num}: {len(row)} fields, the header has "
                    f"{len(header)}"
                )
            lesion, image, diagnosis = (row[column].strip() for column in columns)
            yield reader.line_num, lesion, image, diagnosis
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: {error}") from error


def _images(folder: Path) -> dict[str, Path]:
    """JPEG files by name without ending. Copies in several subfolders count once."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in (".jpg", ".jpeg") or path.name.startswith("."):
            continue
        if not path.is_file():
            continue
        other = found.setdefault(path.stem, path)
        if other.stat().st_size != path.stat().st_size:
            raise DataError(f"{path}: differs from {other}, which has the same name")
    return found


def _shuffled(rows: list[_Row], seed: int) -> list[_Row]:
    """The lesions in random order, the images of each side by side."""
    lesions: dict[str, list[_Row]] = {}
    for row in rows:
        lesions.setdefault(row.lesion, []).append(row)
    groups = list(lesions.values())
    order = generator(seed, "ham10000-order").permutation(len(groups))
    return [row for place in order for row in groups[place]]


def _test_set(
    labels: NDArray[np.int64], lesions: NDArray[np.int64], seed: int
) -> NDArray[np.bool_]:
    """Which images are in the test set: those of a fifth of the lesions of each class.

    A class with two lesions or more has at least one on each side.
    """
    rng = generator(seed, "ham10000-test-set")
    first = np.unique(lesions, return_index=True)[1]  # lesions are numbered from 0
    chosen: list[NDArray[np.int64]] = []
    for label in np.unique(labels[first]):
        members = rng.permutation(np.flatnonzero(labels[first] == label))
        count = round(_TEST_SHARE * len(members))
        chosen.append(members[: max(count, 1) if len(members) > 1 else 0])
    return np.isin(lesions, np.concatenate(chosen))


def _notes(rows: int, present: int, files: int, metadata: str) -> tuple[str, ...]:
    notes = []
    if rows > present:
        notes.append(f"{rows - present:,} of {rows:,} rows of {metadata} have no image here")
    if files > present:
        notes.append(f"{files - present:,} of {files:,} images have no row in {metadata}")
    return tuple(notes)
