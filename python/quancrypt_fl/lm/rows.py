"""What rows of every kind have in common: blocks of text, sentences, pictures, captions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["DataSet", "Rows", "digest_of"]


class Rows(Protocol):
    """Samples that a model learns from, in order."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """What a row costs, shape (rows,): rows of a batch are of similar lengths."""

    @property
    def by_label(self) -> NDArray[np.int64] | None:
        """The class of each row, shape (rows,); None where rows have none."""

    @property
    def groups(self) -> NDArray[np.int64] | None:
        """Shape (rows,), or None: see :attr:`quancrypt_fl.data.dataset.Samples.groups`."""

    def __len__(self) -> int: ...

    def take(self, indices: NDArray[np.int64], /) -> Self:
        """Some of the rows."""


class DataSet(Protocol):
    """Training and test rows."""

    @property
    def train(self) -> Any:
        """:class:`Rows` that clients and validation share."""

    @property
    def test(self) -> Any:
        """:class:`Rows` of the same kind that no client has."""


def digest_of(arrays: Iterable[NDArray[Any]]) -> bytes:
    """SHA-256 of arrays: their shapes and values."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(repr(array.shape).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()
