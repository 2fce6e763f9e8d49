"""Pictures with captions: rows of both, or of captions alone where a client has no pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.data.jpeg import read_images
from quancrypt_fl.errors import DataError
from quancrypt_fl.lm.config import FinetuneConfig
from quancrypt_fl.lm.pictures import Pictures, in_words, read_labelled
from quancrypt_fl.lm.splits import limited
from quancrypt_fl.lm.texts import TEST_SHARE, read_file

__all__ = ["CAPTIONS", "CaptionData", "Captions", "read_captions"]

CAPTIONS = "captions.tsv"
_FORMATS = ("JPEG", "PNG")
_FEWEST_FILES = 3


@dataclass(frozen=True)
class Captions:
    """Rows of captions, with a picture each or with none.

    Attributes
    ----------
    tokens
        Of each caption, shape (rows, length), filled up at the end.
    lengths
        Tokens of each, shape (rows,).
    pixels
        Pictures, shape (pictures, channels, height, width), in [0, 255]; None: there are none.
    shown
        The picture of each row, shape (rows,).
    by_label
        The class of each row; None where captions are not made from classes.
    groups
        Rows of one number show the same thing and must not be divided; None: all differ.
    """

    tokens: NDArray[np.int64]
    lengths: NDArray[np.int64]
    pixels: NDArray[np.uint8] | None
    shown: NDArray[np.int64]
    by_label: NDArray[np.int64] | None = None
    groups: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, indices: NDArray[np.int64]) -> Captions:
        """Some of the rows; their pictures are not copied."""
        return replace(
            self,
            tokens=self.tokens[indices],
            lengths=self.lengths[indices],
            shown=self.shown[indices],
            by_label=None if self.by_label is None else self.by_label[indices],
            groups=None if self.groups is None else self.groups[indices],
        )

    def without_pictures(self) -> Captions:
        """The captions alone."""
        return replace(self, pixels=None)

    def pictures(self, rows: NDArray[np.int64]) -> NDArray[np.uint8] | None:
        """The pictures of some rows, shape (rows, channels, height, width)."""
        return None if self.pixels is None else self.pixels[self.shown[rows]]


@dataclass(frozen=True)
class CaptionData:
    """Captions for training and testing."""

    train: Captions
    test: Captions

    def arrays(self) -> Iterator[NDArray[Any]]:
        """All that decides what is learned."""
        for part in (self.train, self.test):
            yield from (part.tokens, part.lengths, part.shown)
            if part.pixels is not None:
                yield part.pixels


Encode = Callable[[Sequence[str]], list[list[int]]]
"""From captions to the tokens of each."""


def read_captions(path: Path, encode: Encode, size: int, config: FinetuneConfig) -> CaptionData:
    """A folder with ``captions.tsv``, or a vision data set whose classes make captions.

    A line of ``captions.tsv`` is the name of a JPEG or PNG file in the folder, a tab and a caption.
    The last tenth of the files, in the order in which they are named first, is for testing.

    Parameters
    ----------
    path
        See :func:`.read_labelled` for vision data sets.
    encode
        The model's tokenizer.
    size
        Pixels of a side that files are scaled to, the middle of their longer side kept.
    config
        Prompt, seed and limits.

    Raises
    ------
    DataError
        If it is neither, or a line or a file is broken.
    """
    if (path / CAPTIONS).is_file():
        return _listed(path, encode, size, config)
    data = read_labelled(path, config.seed, config.max_train_samples, config.max_test_samples)
    tokens, lengths = _padded(encode(in_words(config.prompt, data.classes)))
    train, test = (_of_classes(part, tokens, lengths) for part in (data.train, data.test))
    return CaptionData(train, test)


def _of_classes(
    pictures: Pictures, tokens: NDArray[np.int64], lengths: NDArray[np.int64]
) -> Captions:
    labels = pictures.labels
    shown = np.arange(len(pictures), dtype=np.int64)
    return Captions(
        tokens[labels], lengths[labels], pictures.pixels, shown, labels, pictures.groups
    )


def _listed(path: Path, encode: Encode, size: int, config: FinetuneConfig) -> CaptionData:
    lines = _lines(path / CAPTIONS)
    files = list(dict.fromkeys(file for file, _ in lines))
    if len(files) < _FEWEST_FILES:
        raise DataError(
            f"{path / CAPTIONS}: names {len(files)} files; needed: {_FEWEST_FILES}, to train, to "
            "validate and to test"
        )
    numbers = {file: number for number, file in enumerate(files)}
    shown = np.array([numbers[file] for file, _ in lines], np.int64)
    tokens, lengths = _padded(encode([caption for _, caption in lines]))
    several = len(files) < len(lines)
    whole = Captions(tokens, lengths, None, shown, None, shown if several else None)
    cut = len(files) - max(1, round(TEST_SHARE * len(files)))
    parts = []
    for chosen, most, use in (
        (shown < cut, config.max_train_samples, "train-limit"),
        (shown >= cut, config.max_test_samples, "test-limit"),
    ):
        part = limited(whole.take(np.flatnonzero(chosen)), most, config.seed, use)
        needed, place = np.unique(part.shown, return_inverse=True)
        pixels = read_images(
            [path / files[number] for number in needed], size, formats=_FORMATS, crop=True
        )
        parts.append(replace(part, pixels=pixels, shown=place.astype(np.int64)))
    return CaptionData(*parts)


def _lines(path: Path) -> list[tuple[str, str]]:
    """File and caption of each line; no file lies outside of the folder."""
    found = []
    for number, line in enumerate(read_file(path).splitlines(), start=1):
        if not line.strip():
            continue
        file, tab, caption = line.partition("\t")
        if not tab or not file.strip() or not caption.strip():
            raise DataError(f"{path}, line {number}: is not a file, a tab and a caption")
        name = PurePosixPath(file.strip())
        if name.is_absolute() or ".." in name.parts:
            raise DataError(f"{path}, line {number}: {file!r:.80} is not in the folder")
        found.append((str(name), caption.strip()))
    return found


def _padded(encoded: Sequence[Sequence[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Tokens of shape (captions, longest), filled up with zeros, and lengths."""
    lengths = np.array([len(tokens) for tokens in encoded], np.int64)
    filled = np.zeros((len(encoded), int(lengths.max())), np.int64)
    for row, tokens in zip(filled, encoded, strict=True):
        row[: len(tokens)] = tokens
    return filled, lengths
