"""Signed integers side by side in one large integer, so that one addition adds all of them.

A party's value is at most :attr:`Lanes.limit` in magnitude, its part of ``q_max``, and stands in
two's complement in the low ``sum_bits`` bits of its lane. Each negative value of a sum adds
``2^sum_bits`` too much: these carries gather in the ``ceil(log2 N)`` bits above and never reach the
next lane. The decoder drops them and extends the sign of the low ``sum_bits`` bits::

      lane 1                       |  lane 0
      carries        | two's compl.|  carries        | two's compl.
      ceil(log2 N)   | sum_bits    |  ceil(log2 N)   | sum_bits

``sum_bits`` is ``b + 1``: a sum of values, each rounded up, may exceed ``q_max`` a little. (With
more than ``2^(b-1) + 1`` parties it may exceed ``b`` bits as well; lanes are then wider.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.baselines.batchcrypt.daciq import MAX_BITS, MIN_BITS
from quancrypt_fl.errors import MethodError

__all__ = ["MAX_PARTIES", "Lanes"]

MAX_PARTIES = 1 << 20
_CHUNK_BITS = 1 << 24  # bits spread to bytes at a time: 16 MiB


@dataclass(frozen=True)
class Lanes:
    """How values stand in an integer.

    Attributes
    ----------
    bits
        ``b``, 2 to 16: ``q_max = 2^(b-1) - 1``.
    parties
        ``N``, the most summands.
    lane_bits
        Width of a lane.
    count
        Lanes in an integer.
    """

    bits: int
    parties: int
    lane_bits: int
    count: int

    def __post_init__(self) -> None:
        if not MIN_BITS <= self.bits <= MAX_BITS:
            raise MethodError(f"bits is {self.bits}; allowed: {MIN_BITS} to {MAX_BITS}")
        if not 1 <= self.parties <= MAX_PARTIES:
            raise MethodError(f"parties is {self.parties}; allowed: 1 to {MAX_PARTIES}")
        needed = self.sum_bits + carry_bits(self.parties)
        if self.lane_bits < needed or self.count < 1:
            raise MethodError(
                f"{self.count} lanes of {self.lane_bits} bits; "
                f"{self.parties} parties at {self.bits} bits need at least one of {needed}"
            )

    @classmethod
    def fill(cls, bits: int, parties: int, modulus_bits: int) -> Lanes:
        """As many of the narrowest lanes as fit below every modulus of ``modulus_bits`` bits."""
        narrowest = cls(bits, parties, 64, 1)
        width = narrowest.sum_bits + carry_bits(parties)
        return cls(bits, parties, width, (modulus_bits - 1) // width)

    @classmethod
    def published(cls) -> Lanes:
        """The published code's: 16 bits, 100 lanes of 19 bits in 2048. Room for 4 parties."""
        return cls(bits=16, parties=4, lane_bits=19, count=100)

    @property
    def q_max(self) -> int:
        """What the clip bound times the number of parties stands for."""
        return int(2 ** (self.bits - 1) - 1)

    @property
    def limit(self) -> int:
        """Largest magnitude of one party's integer: ``ceil(q_max / N)``."""
        return -(-self.q_max // self.parties)

    @property
    def sum_bits(self) -> int:
        """Bits of a sum in two's complement: ``b + 1``, or more where many round up."""
        return max(self.bits + 1, (self.limit * self.parties).bit_length() + 1)

    def integers(self, values: int) -> int:
        """Large integers for so many values: rounded up."""
        return -(-values // self.count)

    def pack(self, values: NDArray[np.int32]) -> list[int]:
        """Large integers, each below ``2^(lane_bits * count)``, value 0 lowest.

        Parameters
        ----------
        values
            Shape (n,), each in ``[-limit, limit]``; the last integer is padded with zeros.

        Raises
        ------
        MethodError
            If a value is out of range.
        """
        if values.size and max(-int(values.min()), int(values.max())) > self.limit:
            raise MethodError(
                f"integers from {values.min()} to {values.max()}; "
                f"allowed: -{self.limit} to {self.limit}"
            )
        mask = np.uint64(2**self.sum_bits - 1)
        packed: list[int] = []
        for rows in self._chunks(self.integers(values.size)):
            part = values[rows.start * self.count : rows.stop * self.count].astype(np.int64)
            lanes = np.zeros((len(rows), self.count), dtype="<u8")
            lanes.reshape(-1)[: part.size] = part.view(np.uint64) & mask
            octets = lanes.view(np.uint8).reshape(len(rows), self.count, 8)[:, :, : self._octets]
            bits = np.unpackbits(octets, axis=2, count=self.lane_bits, bitorder="little")
            data = np.packbits(bits.reshape(len(rows), -1), axis=1, bitorder="little")
            packed += [int.from_bytes(row.tobytes(), "little") for row in data]
        return packed

    def unpack(self, packed: Sequence[int], values: int) -> NDArray[np.int32]:
        """Sums of what :meth:`pack` was given, shape (values,).

        Parameters
        ----------
        packed
            Sums of at most ``parties`` packed integers.
        values
            How many were packed.

        Raises
        ------
        MethodError
            If the number of integers is wrong, or one does not fit its lanes.
        """
        if len(packed) != self.integers(values):
            raise MethodError(
                f"{len(packed)} integers for {values} values; allowed: {self.integers(values)}"
            )
        width = self.lane_bits * self.count
        if any(number < 0 or number.bit_length() > width for number in packed):
            raise MethodError(f"a sum is not within its lanes of {width} bits: not of this key?")
        size, sign = -(-width // 8), 1 << (self.sum_bits - 1)
        sums = np.empty((len(packed), self.count), dtype=np.int32)
        for rows in self._chunks(len(packed)):
            text = b"".join(packed[row].to_bytes(size, "little") for row in rows)
            data = np.frombuffer(text, dtype=np.uint8).reshape(len(rows), size)
            bits = np.unpackbits(data, axis=1, count=width, bitorder="little")
            low = bits.reshape(len(rows), self.count, self.lane_bits)[:, :, : self.sum_bits]
            octets = np.zeros((len(rows), self.count, 8), dtype=np.uint8)
            short = np.packbits(low, axis=2, bitorder="little")
            octets[:, :, : short.shape[2]] = short
            lanes = octets.view("<i8")[:, :, 0]
            sums[rows.start : rows.stop] = (lanes ^ sign) - sign
        return sums.reshape(-1)[:values]

    @property
    def _octets(self) -> int:
        return -(-self.lane_bits // 8)

    def _chunks(self, rows: int) -> Iterator[range]:
        step = max(1, _CHUNK_BITS // (self.lane_bits * self.count))
        for start in range(0, rows, step):
            yield range(start, min(start + step, rows))


def carry_bits(parties: int) -> int:
    """``ceil(log2 N)``."""
    return (parties - 1).bit_length()
