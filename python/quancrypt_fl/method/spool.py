"""Updates that wait, on disk where memory would not hold them all.

Before the first round clients agree on clip bounds between training and upload. In a deployment
each client keeps its own update; a simulation of many clients has to keep all of them. Uploads wait
where a sum that cannot be opened is made once more.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedRandom

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.method.roles import Tensors, Update
from quancrypt_fl.method.weighting import Share

__all__ = ["MEMORY_LIMIT", "KeptUploads", "spooled"]

MEMORY_LIMIT = 1 << 30
"""Bytes of updates from which they go to a temporary file."""


class KeptUploads:
    """Serialized uploads in the order in which they came; beyond ``limit`` bytes on disk."""

    def __init__(self, limit: int = MEMORY_LIMIT) -> None:
        self._file = tempfile.SpooledTemporaryFile(  # noqa: SIM115 (close() closes it)
            max_size=limit, prefix="quancrypt-"
        )
        self._places: list[tuple[int, int]] = []  # offset and length of each

    def append(self, data: bytes) -> None:
        """Keep one more."""
        self._places.append((self._file.seek(0, 2), len(data)))
        self._file.write(data)

    def __getitem__(self, place: int) -> bytes:
        """The one that came after ``place`` others."""
        offset, length = self._places[place]
        self._file.seek(offset)
        return self._file.read(length)

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[bytes]:
        """All of them, one in memory at a time."""
        return (self[place] for place in range(len(self)))

    def close(self) -> None:
        """Forget them."""
        self._file.close()


@contextmanager
def spooled(updates: Iterable[Update], limit: int = MEMORY_LIMIT) -> Iterator[Iterable[Update]]:
    """Hold updates, so that they can be gone through several times, in order.

    Parameters
    ----------
    updates
        Consumed one by one.
    limit
        Bytes to hold in memory; the rest lies in an unnamed temporary file until the block ends.
    """
    with tempfile.TemporaryFile(prefix="quancrypt-") as file:
        spool = _Spool(file, limit)
        for update in updates:
            spool.append(update)
        yield spool


@dataclass(frozen=True)
class _Place:
    """Where a tensor lies in the file."""

    offset: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _Stored:
    tensors: dict[str, _Place]
    share: Share
    whole: dict[str, _Place] | None


class _Spool:
    def __init__(self, file: BufferedRandom, limit: int) -> None:
        self._file = file
        self._left = limit
        self._items: list[Update | _Stored] = []

    def append(self, update: Update) -> None:
        whole = update.whole or {}
        size = sum(t.nbytes for part in (update.tensors, whole) for t in part.values())
        if size <= self._left:
            self._left -= size
            self._items.append(update)
            return
        self._left = 0  # what follows goes to the file too: they come back in order
        stored = _Stored(
            self._write(update.tensors),
            update.share,
            None if update.whole is None else self._write(update.whole),
        )
        self._items.append(stored)

    def __iter__(self) -> Iterator[Update]:
        for item in self._items:
            yield item if isinstance(item, Update) else self._load(item)

    def _write(self, tensors: Tensors) -> dict[str, _Place]:
        places = {}
        for name, tensor in tensors.items():
            places[name] = _Place(self._file.seek(0, 2), tensor.shape)
            flat = np.ascontiguousarray(tensor, dtype=np.float32).reshape(-1)
            self._file.write(flat.view(np.uint8).data)
        return places

    def _load(self, stored: _Stored) -> Update:
        whole = None if stored.whole is None else self._read(stored.whole)
        return Update(self._read(stored.tensors), stored.share, whole)

    def _read(self, places: dict[str, _Place]) -> dict[str, NDArray[np.float32]]:
        tensors = {}
        for name, place in places.items():
            tensor = np.empty(place.shape, dtype=np.float32)
            self._file.seek(place.offset)
            if self._file.readinto(tensor.reshape(-1).view(np.uint8).data) != tensor.nbytes:
                raise OSError("a temporary file of updates has become shorter")
            tensors[name] = tensor
        return tensors
