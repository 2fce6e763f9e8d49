"""The bytes of a finished round: the sum of updates and, where it set clip bounds, that of reports.

::

    offset  size
    0       8     length r of the serialized sum of reports, little-endian; 0 if there is none
    8       8     its total weight
    16      r     the sum of reports
    16 + r  ...   the serialized sum of updates
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from quancrypt_fl.flower.protocol import ProtocolError

__all__ = ["Sums"]

_PREFIX = struct.Struct("<QQ")


@dataclass(frozen=True)
class Sums:
    """The serialized sums of a round; ``reports`` is empty where bounds were there before."""

    updates: bytes
    reports: bytes = b""
    reports_weight: int = 0

    def to_bytes(self) -> bytes:
        """Serialize."""
        prefix = _PREFIX.pack(len(self.reports), self.reports_weight)
        return b"".join((prefix, self.reports, self.updates))

    @classmethod
    def from_bytes(cls, data: bytes) -> Sums:
        """Read :meth:`to_bytes`'s output; the parts are still a stranger's."""
        if len(data) < _PREFIX.size:
            raise ProtocolError(f"the sums of a round: {len(data)} bytes are too few")
        length, weight = _PREFIX.unpack_from(data)
        if length > len(data) - _PREFIX.size:
            raise ProtocolError(f"the sums of a round: {length} bytes of reports are not there")
        end = _PREFIX.size + length
        return cls(data[end:], data[_PREFIX.size : end], weight)
