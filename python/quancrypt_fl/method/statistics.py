"""Clients agree on clip bounds without showing anybody their statistics (step 5 of a round).

Each client's ``mu = mean(|delta|)`` per tensor travels *inside* the ciphertext of its update, as
one more named tensor of small integers. The decrypted sum gives the weighted mean of all ``mu``,
which sets the clip bounds of the next round; the first round is preceded by an exchange of this
tensor alone, encrypted too.

A float cannot travel through a ``b``-bit quantizer, so ``mu`` is written as an unsigned fixed-point
number (49 bits, resolution 2^-32, below 2^17) and cut into digits that fit the quantizer's range
``[0, q_max]``. With a clip bound of ``q_max`` quantization is the identity on these digits, sums of
digits are exact, and the weighted mean of the fixed-point numbers comes out exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.errors import MethodError

__all__ = ["STATISTICS", "StatisticsCode"]

STATISTICS = "quancrypt.mean_magnitudes"
"""Name of the tensor of digits among the tensors of an update."""

_FRACTION_BITS = 32
_TOTAL_BITS = 49
_EXACT_SUM_BITS = 22  # a sum of digits stays below 2^22: float32 means of it still round to it


@dataclass(frozen=True)
class StatisticsCode:
    """How ``mu`` is cut into digits, the same for all clients of a run.

    Parameters
    ----------
    names
        The tensors of the model, in the order in which their ``mu`` travel.
    bits
        Bits of the quantizer, at least 2; ``q_max = 2^(bits - 1) - 1``.
    max_weight
        Largest total weight of a sum.
    """

    names: tuple[str, ...]
    bits: int
    max_weight: int

    @property
    def q_max(self) -> int:
        """Largest magnitude that the quantizer represents, and the clip bound of the digits."""
        return int(2 ** (self.bits - 1) - 1)

    @property
    def digit_bits(self) -> int:
        """Bits of a digit, so that it is at most ``q_max`` and sums stay below 2^22."""
        return max(1, min(self.bits - 1, _EXACT_SUM_BITS - self.max_weight.bit_length()))

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the tensor of digits: (tensors, digits per ``mu``)."""
        return len(self.names), -(-_TOTAL_BITS // self.digit_bits)

    @property
    def largest(self) -> float:
        """Largest ``mu`` that digits up to ``q_max`` can state; :meth:`encode` stays below."""
        places = range(self.shape[1])
        fixed = sum(self.q_max << (self.digit_bits * place) for place in places)
        return float(fixed / 2**_FRACTION_BITS)

    def encode(self, means: Mapping[str, float]) -> NDArray[np.float32]:
        """Digits of every ``mu``, least significant first; shape :attr:`shape`, in [0, q_max].

        Raises
        ------
        MethodError
            If a mean is not in ``[0, 2^17)``: local training diverged.
        """
        digits = np.empty(self.shape, dtype=np.float32)
        for row, name in enumerate(self.names):
            mean = means[name]
            if not 0.0 <= mean < 2 ** (_TOTAL_BITS - _FRACTION_BITS) - 1:
                raise MethodError(
                    f"mean magnitude {mean:g} of {name!r} is out of range: local training diverged"
                )
            fixed = round(mean * 2**_FRACTION_BITS)
            for column in range(self.shape[1]):
                digits[row, column] = fixed & (2**self.digit_bits - 1)
                fixed >>= self.digit_bits
        return digits

    def decode(self, mean_digits: NDArray[np.float32], weight: int) -> dict[str, float]:
        """The weighted mean of ``mu`` per tensor, from the decrypted mean of the digits.

        Parameters
        ----------
        mean_digits
            Shape :attr:`shape`: each digit summed over the clients, divided by ``weight``.
        weight
            Total weight of the sum; undoes the division exactly.
        """
        sums = np.rint(mean_digits.astype(np.float64) * weight).astype(np.int64)
        return {
            name: self._mean(row.tolist(), weight)
            for name, row in zip(self.names, sums, strict=True)
        }

    def _mean(self, digit_sums: Sequence[int], weight: int) -> float:
        """Python integers: 49 bits times a weight of up to 2^16 would overflow 64 bits."""
        fixed = sum(digit << (self.digit_bits * place) for place, digit in enumerate(digit_sums))
        return fixed / (weight << _FRACTION_BITS)
