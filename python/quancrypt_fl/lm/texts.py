"""Texts as rows of tokens, and how they are read: blocks of one text, or labelled sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.errors import DataError
from quancrypt_fl.lm.rows import digest_of

__all__ = [
    "IGNORED",
    "Encoder",
    "LanguageData",
    "Texts",
    "read_file",
    "read_sentences",
    "read_text",
    "rows_digest",
]

IGNORED = -100
"""The label of what is no token: torch's cross-entropy leaves it out."""

TEST_SHARE = 0.1
"""The last part of a text, which no client sees."""

_FEWEST_BLOCKS = 2


class Encoder(Protocol):
    """From text to tokens."""

    @property
    def pad(self) -> int:
        """The token that fills a row up."""

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without special ones."""

    def encode_sentences(self, sentences: Sequence[str], length: int) -> list[list[int]]:
        """Tokens of each sentence as its model expects them, cut to ``length``."""


@dataclass(frozen=True)
class Texts:
    """Rows of tokens, and what a model shall say of them.

    Attributes
    ----------
    inputs
        Tokens, shape (rows, length), filled up at the end of a row.
    lengths
        Tokens in each row, shape (rows,), at least 1.
    labels
        Shape (rows, length): the token that follows each; or shape (rows,): the class of each row.
        :data:`IGNORED` where there is nothing to say.
    """

    inputs: NDArray[np.int64]
    lengths: NDArray[np.int64]
    labels: NDArray[np.int64]

    groups: ClassVar[None] = None

    @property
    def by_label(self) -> NDArray[np.int64] | None:
        """The class of each row, where rows have one."""
        return self.labels if self.labels.ndim == 1 else None

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, rows: NDArray[np.int64]) -> Texts:
        """Some of the rows, by index."""
        return Texts(self.inputs[rows], self.lengths[rows], self.labels[rows])


@dataclass(frozen=True)
class LanguageData:
    """A data set.

    Attributes
    ----------
    train, test
        Training rows in their order, and test rows.
    pad
        The token that fills rows up.
    classes
        The classes' names; none where tokens are predicted.
    """

    train: Texts
    test: Texts
    pad: int
    classes: tuple[str, ...] = ()


def rows_digest(data: LanguageData) -> bytes:
    """SHA-256 of all rows."""
    return digest_of(
        array
        for texts in (data.train, data.test)
        for array in (texts.inputs, texts.lengths, texts.labels)
    )


def read_file(path: Path) -> str:
    """A text file in UTF-8.

    Raises
    ------
    DataError
        If it is none.
    """
    try:
        return path.read_text(encoding="utf-8")
    except IsADirectoryError:
        raise DataError(f"{path}: is a folder; task causal needs a text file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text: {_reason(error)}") from None


def read_text(path: Path, encoder: Encoder, length: int) -> LanguageData:
    """Blocks of a text file in UTF-8; its last tenth, from a line's beginning on, is for testing.

    Raises
    ------
    DataError
        If it is no such file, or too short.
    """
    text = read_file(path)
    cut = round(len(text) * (1 - TEST_SHARE))
    cut = text.find("\n", cut) + 1 or cut
    train, test = (_blocks(encoder.encode(part), length) for part in (text[:cut], text[cut:]))
    if min(len(train), len(test)) < _FEWEST_BLOCKS:
        raise DataError(
            f"{path}: {len(train)} blocks of {length} tokens for training and {len(test)} for "
            f"testing; needed: {_FEWEST_BLOCKS} of each. Use more text or shorter blocks"
        )
    return LanguageData(train, test, encoder.pad)


def _blocks(tokens: Sequence[int], length: int) -> Texts:
    """Every token but the first is predicted once, from those before it in its block."""
    rows = -(-(len(tokens) - 1) // length) if len(tokens) > 1 else 0
    inputs = np.zeros(rows * length, np.int64)
    labels = np.full(rows * length, IGNORED, np.int64)
    predicted = max(0, len(tokens) - 1)
    inputs[:predicted], labels[:predicted] = tokens[:-1], tokens[1:]
    lengths = np.full(rows, length, np.int64)
    if rows:
        lengths[-1] = predicted - (rows - 1) * length
    return Texts(inputs.reshape(rows, length), lengths, labels.reshape(rows, length))


def read_sentences(
    folder: Path, encoder: Encoder, length: int, labels: Sequence[str] = ()
) -> LanguageData:
    """Labelled sentences: ``train.tsv`` for training, ``dev.tsv`` for testing.

    A line is a sentence, a tab and its label; a first line ``sentence<TAB>label`` is a heading.
    Classes are ``labels``, or the labels of ``train.tsv`` in sorted order, numbers by their value.

    Raises
    ------
    DataError
        If a file or a line is not so, or has a label that is none of these.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder}: is not a folder; task classify needs one with train.tsv and dev.tsv"
        )
    train, test = (_labelled(folder / name) for name in ("train.tsv", "dev.tsv"))
    classes = list(labels) or sorted({label for _, label in train}, key=_by_value)
    if len(classes) < 2:
        raise DataError(f"{folder / 'train.tsv'}: all labels are {classes[0]!r}; needed: 2 or more")
    numbers = {label: number for number, label in enumerate(classes)}
    for name, lines in (("train.tsv", train), ("dev.tsv", test)):
        if unknown := sorted({label for _, label in lines} - numbers.keys()):
            known = f"the run's: {', '.join(classes[:10])}" if labels else "those of train.tsv"
            raise DataError(f"{folder / name}: the label {unknown[0]!r:.80} is not among {known}")
    rows = [_rows(lines, numbers, encoder, length) for lines in (train, test)]
    return LanguageData(rows[0], rows[1], encoder.pad, tuple(classes))


def _labelled(path: Path) -> list[tuple[str, str]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text: {_reason(error)}") from None
    found = []
    for number, line in enumerate(lines, start=1):
        sentence, tab, label = line.rpartition("\t")
        if not line.strip() or (number == 1 and line == "sentence\tlabel"):
            continue
        if not tab or not sentence.strip() or not label.strip():
            raise DataError(f"{path}, line {number}: is not a sentence, a tab and a label")
        found.append((sentence, label.strip()))
    if not found:
        raise DataError(f"{path}: has no sentence")
    return found


def _by_value(label: str) -> tuple[bool, int, str]:
    number = label.isascii() and label.isdigit()
    return not number, int(label) if number else 0, label


def _rows(
    lines: Sequence[tuple[str, str]], numbers: dict[str, int], encoder: Encoder, length: int
) -> Texts:
    encoded = encoder.encode_sentences([sentence for sentence, _ in lines], length)
    lengths = np.array([len(tokens) for tokens in encoded], np.int64)
    inputs = np.full((len(encoded), int(lengths.max())), encoder.pad, np.int64)
    for row, tokens in zip(inputs, encoded, strict=True):
        row[: len(tokens)] = tokens
    labels = np.array([numbers[label] for _, label in lines], np.int64)
    return Texts(inputs, lengths, labels)


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else error.reason
