"""The package's own uploads of chosen integers, and twins of them that are broken on purpose.

The experiment holds the secret key; attackers get what :class:`Ciphertext` holds, and nothing else.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from numpy.typing import NDArray

from quancrypt_fl.leakage.decoding import (
    Packing,
    as_polynomial,
    frame,
    read_c0,
    unframe,
    unmasked_upload,
)
from quancrypt_fl.leakage.polynomials import (
    Residues,
    evaluate,
    multiply,
    pack_residues,
    reduce,
    unpack_numbers,
)
from quancrypt_fl.protect import Channel, Protector

__all__ = ["Ciphertext", "NativeUploads", "by_prime", "expand_c1", "secret_coefficients"]

Integers = NDArray[np.int64]

_BINOMIAL = 21  # pairs of bits, as the package draws its noise
_TENSOR = "update"


@dataclass(frozen=True)
class Ciphertext:
    """The first ciphertext of an upload, and what was published of its decryption, if anything.

    All are values ``[primes, N]``.
    """

    c0: Residues
    c1: Residues
    published: Residues | None = None


class NativeUploads:
    """Uploads of one tensor under one key.

    Parameters
    ----------
    values
        Values of an upload. The package chooses its parameters by them.
    rng
        Draws the noise of forged uploads; the package draws its own from the system.

    Attributes
    ----------
    values
        As above.
    params, packing
        Public parameters, and where they have the fields.
    primes
        Data primes as a column ``[primes, 1]``.
    """

    def __init__(self, values: int, rng: np.random.Generator) -> None:
        channel = Channel(bits=8, max_weight=16, security=128, values=values)
        self.values = values
        self.params = channel.parameters()
        self.packing = Packing.of(self.params)
        self.primes = np.array(self.packing.primes, dtype=np.int64)[:, None]
        self._client, self._rng = channel.client(), rng
        secret = secret_coefficients(
            self._client, self.params, self.upload(np.zeros(values, dtype=np.int64))
        )
        self._secret = by_prime(evaluate, self.packing, reduce(secret, self.packing.primes))

    def upload(self, quantized: Integers) -> bytes:
        """What the package makes of integers in ``[-q_max, q_max]``."""
        unit = (quantized / self.packing.offset).astype(np.float32)
        return self._client.protect({_TENSOR: unit}, {_TENSOR: 1.0}, 0).data

    def under_the_seed_of(self, first: bytes, quantized: Integers) -> bytes:
        """Broken: another upload with the seed of ``first``, its noise fresh."""
        bits = self._rng.integers(0, 2, (2, _BINOMIAL, self.packing.n))
        noise = bits[0].sum(axis=0) - bits[1].sum(axis=0)
        noisy = as_polynomial(quantized + self.packing.offset, self.params, noise)
        c0 = (noisy - self._masked(expand_c1(first, self.packing))) % self.primes
        return frame(unframe(first)[0], pack_residues(c0, self.packing.primes))

    def unmasked(self, quantized: Integers) -> bytes:
        """Broken: an upload whose ``c0`` is the plaintext."""
        return unmasked_upload(self.upload(quantized), self.params, quantized)

    def opened_exactly(self, upload: bytes, quantized: Integers) -> Ciphertext:
        """With the decryption as the package publishes it: the integers, without noise."""
        return replace(self.unopened(upload), published=self.plaintext(quantized))

    def opened_with_noise(self, upload: bytes) -> Ciphertext:
        """Broken: with ``m + e``, as a decryption that rounds nothing off would have it."""
        found = self.unopened(upload)
        return replace(found, published=(found.c0 + self._masked(found.c1)) % self.primes)

    def unopened(self, upload: bytes) -> Ciphertext:
        """As it was sent."""
        return Ciphertext(read_c0(upload, self.params), expand_c1(upload, self.packing))

    def plaintext(self, quantized: Integers) -> Residues:
        """The encoded integers, without noise."""
        return as_polynomial(quantized + self.packing.offset, self.params)

    def _masked(self, c1: Residues) -> Residues:
        """``c1 s``."""
        return by_prime(multiply, self.packing, c1, self._secret)


def by_prime(
    function: Callable[..., Residues], packing: Packing, *polynomials: Residues
) -> Residues:
    """``function(rows..., p)`` for each prime."""
    rows = zip(*polynomials, packing.primes, strict=True)
    return np.stack([function(*row) for row in rows])


def expand_c1(upload: bytes, packing: Packing) -> Residues:
    """``c1`` of the first ciphertext out of the seed in the header, as anybody can compute it.

    ChaCha20 (RFC 8439), its nonce the ciphertext's number and the prime's. Draws that are not below
    the prime are replaced, in their order, by later ones that are.
    """
    seed = bytes.fromhex(unframe(upload)[0]["seed"])
    rows = []
    for number, p in enumerate(packing.primes):
        width = (p - 1).bit_length()
        nonce = struct.pack("<IQI", 0, 0, number)  # counter, ciphertext, prime
        stream = Cipher(ChaCha20(seed, nonce), mode=None).encryptor()
        draws = unpack_numbers(stream.update(bytes(2 * packing.n * width // 8)), width)
        row, spare = draws[: packing.n].copy(), draws[packing.n :]
        refused = np.flatnonzero(row >= p)
        row[refused] = spare[spare < p][: len(refused)]
        rows.append(row)
    return np.stack(rows)


def secret_coefficients(client: Protector, params: Mapping[str, Any], upload: bytes) -> Integers:
    """The secret key ``[N]`` in {-1, 0, 1}, from a client that decrypts whatever it is given.

    Of a made-up ciphertext with the constant ``c1 = 2^g``, and ``c0`` with ``q_max`` in the first
    field of every coefficient, the decryption is the key, coefficient by coefficient. That is why
    no stranger may choose a ``c1`` (SECURITY.md, "Exact sums and published decryptions").

    Parameters
    ----------
    client
        Holds the key.
    params
        Public parameters.
    upload
        Any upload under the key, for what its header says of key and parameters.
    """
    packing = Packing.of(params)
    header = {
        **unframe(upload)[0],
        "tensors": [[_TENSOR, [packing.n], float(packing.offset)]],
        "seed": None,
    }
    c0 = as_polynomial(np.full(packing.n, packing.offset), params)
    c1 = np.full_like(c0, 1 << packing.guard_bits)  # of a constant, all values are the same
    body = b"".join(pack_residues(part, packing.primes) for part in (c0, c1))
    opened, _ = client.unprotect(frame(header, body))
    return np.asarray(np.rint(opened[_TENSOR]), dtype=np.int64)
