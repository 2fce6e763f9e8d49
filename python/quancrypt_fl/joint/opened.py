"""A sum together with what opens it: the sealed partial decryptions of its participants.

Whoever holds the group key reads the mean; a server, which only passes the bytes on, does not.

::

    offset  size
    0       4     "QCOS"
    4       1     version, 1
    5       1     number of parts n, 2 to 128
    6       8     length of the serialized sum, little-endian
    14      9 n   for each part, in order of its party: the party's index (1 byte), its length (8)
    ...           the sum, then the parts
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from quancrypt_fl.errors import MethodError
from quancrypt_fl.method.participation import MOST_PARTIES

__all__ = ["OpenedSum"]

_MAGIC, _VERSION = b"QCOS", 1
_PREFIX = struct.Struct("<4sBBQ")
_PART = struct.Struct("<BQ")
_FEWEST = 2


@dataclass(frozen=True)
class OpenedSum:
    """A serialized sum, and the sealed part of each participant by the index of its party."""

    total: bytes
    parts: Mapping[int, bytes]

    def to_bytes(self) -> bytes:
        """Serialize."""
        _check_number(len(self.parts))
        prefix = _PREFIX.pack(_MAGIC, _VERSION, len(self.parts), len(self.total))
        parts = sorted(self.parts.items())
        table = b"".join(_PART.pack(index, len(part)) for index, part in parts)
        return b"".join((prefix, table, self.total, *(part for _, part in parts)))

    @classmethod
    def from_bytes(cls, data: bytes) -> OpenedSum:
        """Read :meth:`to_bytes`'s output; sum and parts are still a stranger's.

        Raises
        ------
        MethodError
            If the bytes are not one, whole, with nothing after it.
        """
        if len(data) < _PREFIX.size:
            raise MethodError(f"an opened sum of {len(data)} bytes: too few")
        magic, version, count, length = _PREFIX.unpack_from(data)
        if magic != _MAGIC:
            raise MethodError("not an opened sum: it begins with other bytes")
        if version != _VERSION:
            raise MethodError(f"an opened sum of version {version}; allowed: {_VERSION}")
        _check_number(count)
        at = _PREFIX.size + count * _PART.size
        if len(data) < at:
            raise MethodError(f"an opened sum of {len(data)} bytes: too few for {count} parts")
        table = [
            _PART.unpack_from(data, _PREFIX.size + place * _PART.size) for place in range(count)
        ]
        indices = [index for index, _ in table]
        if any(low >= high for low, high in pairwise(indices)):
            raise MethodError(f"the parties of an opened sum are {indices}; allowed: ascending")
        expected = at + length + sum(size for _, size in table)
        if len(data) != expected:
            raise MethodError(f"an opened sum of {len(data)} bytes; it says {expected}")
        total, at = data[at : at + length], at + length
        parts = {}
        for index, size in table:
            parts[index], at = data[at : at + size], at + size
        return cls(total, parts)


def _check_number(count: int) -> None:
    if not _FEWEST <= count <= MOST_PARTIES:
        raise MethodError(f"an opened sum with {count} parts; allowed: {_FEWEST} to {MOST_PARTIES}")
