"""An update on the wire: lanes in large integers, in the clear or under Paillier.

Header (see :mod:`quancrypt_fl.baselines.envelope`): bits, parties, lane width and lanes per
integer, the number of summands, the tensors with their clip bounds, the number of integers and
their width in bytes. Body: the integers, big-endian, of that fixed width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quancrypt_fl.baselines.batchcrypt.lanes import Lanes
from quancrypt_fl.baselines.batchcrypt.paillier import PublicKey
from quancrypt_fl.baselines.envelope import TensorHeader, join, split, tensor_headers
from quancrypt_fl.errors import MethodError

__all__ = ["PackedUpdate", "Wire"]

_MAGIC = b"QBC1"
_LAYOUT = ("bits", "parties", "lane_bits", "lanes")
_FIELDS: dict[str, type] = {
    **dict.fromkeys((*_LAYOUT, "weight", "integers", "width"), int),
    "tensors": list,
}


@dataclass(frozen=True)
class PackedUpdate:
    """One update, or a sum of ``weight`` of them."""

    tensors: tuple[TensorHeader, ...]
    integers: Sequence[int]
    weight: int = 1

    @property
    def size(self) -> int:
        """Number of values."""
        return sum(tensor.size for tensor in self.tensors)


@dataclass(frozen=True)
class Wire:
    """What both sides know of a run, all of it public.

    Attributes
    ----------
    lanes
        The layout.
    public
        Paillier modulus; None where the integers travel in the clear.
    """

    lanes: Lanes
    public: PublicKey | None

    @property
    def width(self) -> int:
        """Bytes of an integer."""
        if self.public is not None:
            return 2 * self.public.width
        return -(-self.lanes.lane_bits * self.lanes.count // 8)

    def add(self, a: Sequence[int], b: Sequence[int]) -> list[int]:
        """Integers of a sum; under Paillier with the public key alone."""
        if self.public is not None:
            return self.public.add(a, b)
        return [x + y for x, y in zip(a, b, strict=True)]

    def to_bytes(self, update: PackedUpdate) -> bytes:
        """Serialize."""
        header = {
            **dict(zip(_LAYOUT, self._layout(), strict=True)),
            "weight": update.weight,
            "tensors": [tensor.as_list() for tensor in update.tensors],
            "integers": len(update.integers),
            "width": self.width,
        }
        body = b"".join(number.to_bytes(self.width, "big") for number in update.integers)
        return join(_MAGIC, header, body)

    def from_bytes(self, data: bytes) -> PackedUpdate:
        """Parse and check.

        Raises
        ------
        MethodError
            If the data are not an update of this layout and key size.
        """
        header, body = split(_MAGIC, data, _FIELDS)
        for name, known in zip((*_LAYOUT, "width"), (*self._layout(), self.width), strict=True):
            if header[name] != known:
                raise MethodError(f"an update has {name} = {header[name]}; this run's is {known}")
        if not 1 <= header["weight"] <= self.lanes.parties:
            raise MethodError(
                f"an update of weight {header['weight']}; allowed: 1 to {self.lanes.parties}"
            )
        tensors = tensor_headers(header["tensors"])
        count = self.lanes.integers(sum(tensor.size for tensor in tensors))
        if header["integers"] != count or len(body) != count * self.width:
            raise MethodError(
                f"{header['integers']} integers in {len(body)} bytes; "
                f"the tensors take {count} of {self.width} bytes"
            )
        integers = [
            int.from_bytes(body[at : at + self.width], "big")
            for at in range(0, len(body), self.width)
        ]
        if self.public is not None and not all(0 < c < self.public.n**2 for c in integers):
            raise MethodError("a ciphertext is not in [1, n^2)")
        bits = self.lanes.lane_bits * self.lanes.count
        if self.public is None and any(number.bit_length() > bits for number in integers):
            raise MethodError(f"an integer of an update exceeds its lanes of {bits} bits")
        return PackedUpdate(tensors, integers, header["weight"])

    def _layout(self) -> tuple[int, int, int, int]:
        lanes = self.lanes
        return lanes.bits, lanes.parties, lanes.lane_bits, lanes.count
