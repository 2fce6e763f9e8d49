"""Sizes of a round of encrypted aggregation, from its parameters alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import quancrypt_native as qn

__all__ = ["TENSEAL_BYTES_PER_VALUE", "Estimate", "alternatives", "default_max_weight"]

TENSEAL_BYTES_PER_VALUE = 104.5
"""Upload of TenSEAL 0.3 with the parameters of QuanCrypt-FL: N = 16384, 60-40-40-40-60 bits."""

_FLOAT32_BYTES = 4
_WORD_BYTES = 8  # of a residue in memory
_LARGEST_DEGREE = 16384  # the search takes a sixth of a second at 32768, and gains 2 % of bytes


@dataclass(frozen=True)
class Estimate:
    """A round of ``clients`` clients, each with ``values`` values."""

    params: qn.Parameters
    values: int
    clients: int

    @property
    def ciphertexts(self) -> int:
        """Ciphertexts of one update."""
        return -(-self.values // self.params.values_per_ciphertext)

    @property
    def upload_bytes(self) -> int:
        """Ciphertexts of one client; names, shapes and bounds come on top, about 50 a tensor."""
        return self.params.upload_bytes(self.values)

    @property
    def download_bytes(self) -> int:
        """Ciphertexts of the sum: both polynomials, where a symmetric upload has one."""
        return self.upload_bytes * (2 if self.params.key_mode == "symmetric" else 1)

    @property
    def server_bytes(self) -> int:
        """Memory while summing, for any number of clients.

        The running sum holds a word for each residue; beside it lie one upload and, at the end, the
        serialized sum.
        """
        residues = 2 * len(self.params.data_primes) * self.params.poly_degree * self.ciphertexts
        return residues * _WORD_BYTES + self.upload_bytes + self.download_bytes

    @property
    def bytes_per_value(self) -> float:
        """Upload over the values, the last ciphertext's empty fields included."""
        return self.upload_bytes / self.values

    @property
    def expansion(self) -> float:
        """Upload over the same values as float32."""
        return self.bytes_per_value / _FLOAT32_BYTES

    @property
    def times_fewer_than_tenseal(self) -> float:
        """TenSEAL's upload over this one."""
        return TENSEAL_BYTES_PER_VALUE / self.bytes_per_value

    @property
    def weight_left(self) -> int:
        """Weight that is left when every client counts once."""
        return self.params.max_weight - self.clients

    @property
    def noise_margin_bits(self) -> float:
        """Bits between the largest possible noise of a sum and what is rounded away."""
        return float(self.params.explain().as_dict()["noise_margin_bits"])


def default_max_weight(clients: int) -> int:
    """The next power of two from the number of clients up, as in ``quancrypt simulate``."""
    return 1 << (clients - 1).bit_length()


def alternatives(chosen: Estimate) -> Iterator[tuple[str, Estimate]]:
    """The same round with one setting changed, where that is possible: what is changed, and to what
    sizes it leads.
    """
    params = chosen.params
    for bits in (params.bits - 4, params.bits - 2, params.bits + 2, params.bits + 4):
        if 2 <= bits <= 16:
            yield from _changed(chosen, f"--bits {bits}", bits=bits)
    other = "public" if params.key_mode == "symmetric" else "symmetric"
    yield from _changed(chosen, f"--key-mode {other}", key_mode=other)
    for degree in (params.poly_degree // 2, params.poly_degree * 2):
        if 1024 <= degree <= _LARGEST_DEGREE:
            for change, estimate in _changed(chosen, f"N = {degree}", max_poly_degree=degree):
                if estimate.params.poly_degree == degree:
                    yield change, estimate


def _changed(
    chosen: Estimate, change: str, **settings: int | str
) -> Iterator[tuple[str, Estimate]]:
    params = chosen.params
    kept: dict[str, int | str] = {
        "bits": params.bits,
        "max_weight": params.max_weight,
        "security": params.security,
        "key_mode": params.key_mode,
    }
    arguments: dict[str, object] = {**kept, **settings}
    try:
        other = qn.Parameters.for_aggregation(values=chosen.values, **arguments)  # type: ignore[arg-type]
    except qn.ParameterError:
        return
    yield change, Estimate(other, chosen.values, chosen.clients)
