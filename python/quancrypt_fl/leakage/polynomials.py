"""Polynomials of the package's ciphertexts in NumPy: ``Z_p[X] / (X^N + 1)`` for each data prime.

Written from docs/wire-format.md and docs/packing.md, for experiments: an attacker needs no more
than this. Residues are int64 arrays ``[primes, N]`` in ``[0, p)``; data primes of packed encoding
are below 2^50. Values of a polynomial are in bit-reversed order, as in Microsoft SEAL.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "evaluate",
    "interpolate",
    "inverse",
    "multiply",
    "pack_residues",
    "recombine",
    "reduce",
    "unpack_numbers",
    "unpack_residues",
]

Residues = NDArray[np.int64]
Whole = NDArray[np.object_]
"""Python integers: coefficients modulo the product of all primes have up to 200 bits."""

Primes = Sequence[int]


def multiply(a: Residues, b: Residues, p: int) -> Residues:
    """``a b mod p`` for residues below ``p < 2^50``.

    The quotient is below 2^50, so that in floating point it is off by less than 1, and the
    remainder, of which 64-bit arithmetic keeps the low bits, lies in ``[-p, 2 p)``.
    """
    quotient = (a.astype(np.float64) * b / p).astype(np.int64)
    rest = a * b - quotient * p
    rest += np.where(rest < 0, p, 0)
    return np.asarray(rest - np.where(rest >= p, p, 0), dtype=np.int64)


def inverse(a: Residues, p: int) -> Residues:
    """``1 / a mod p`` by Fermat's theorem; 0 where ``a`` is 0."""
    found, power, exponent = np.ones_like(a), a, p - 2
    while exponent:
        if exponent & 1:
            found = multiply(found, power, p)
        power, exponent = multiply(power, power, p), exponent >> 1
    return found


# --- the number-theoretic transform ---


def evaluate(coefficients: Residues, p: int) -> Residues:
    """Coefficients ``[N]`` -> values at the odd powers of the smallest primitive 2N-th root."""
    n = len(coefficients)
    powers, x = _twiddles(n, p)[0], coefficients
    blocks = 1
    while blocks < n:
        low, high = np.moveaxis(x.reshape(blocks, 2, -1), 1, 0)
        high = multiply(high, powers[blocks : 2 * blocks, None], p)
        x = np.stack([(low + high) % p, (low - high) % p], axis=1)
        blocks *= 2
    return x.reshape(n)


def interpolate(values: Residues, p: int) -> Residues:
    """The inverse of :func:`evaluate`."""
    n = len(values)
    powers, x = _twiddles(n, p)[1], values
    blocks = n // 2
    while blocks:
        low, high = np.moveaxis(x.reshape(blocks, 2, -1), 1, 0)
        twisted = multiply((low - high) % p, powers[blocks : 2 * blocks, None], p)
        x = np.stack([(low + high) % p, twisted], axis=1)
        blocks //= 2
    return multiply(x.reshape(n), np.full(n, pow(n, -1, p), dtype=np.int64), p)


@functools.lru_cache(maxsize=32)
def _twiddles(n: int, p: int) -> tuple[Residues, Residues]:
    """Powers of the root and of its inverse, exponents in bit-reversed order."""
    root = next(
        candidate
        for base in range(2, 1000)
        if pow(candidate := pow(base, (p - 1) // (2 * n), p), n, p) == p - 1
    )
    root = min(pow(root, k, p) for k in range(1, 2 * n, 2))
    width = n.bit_length() - 1
    order = [int(f"{i:0{width}b}"[::-1], 2) for i in range(n)]
    forward, backward = (
        np.array([pow(base, e, p) for e in order], dtype=np.int64)
        for base in (root, pow(root, -1, p))
    )
    return forward, backward


# --- several primes ---


def reduce(coefficients: NDArray[Any], primes: Primes) -> Residues:
    """Integers ``[N]`` of any sign and size -> residues ``[primes, N]``."""
    return np.stack([np.asarray(coefficients % p, dtype=np.int64) for p in primes])


def recombine(residues: Residues, primes: Primes) -> Whole:
    """Residues ``[primes, N]`` -> integers ``[N]`` in ``[0, Q)``, by the Chinese remainders."""
    q = math.prod(primes)
    total = np.zeros(residues.shape[1], dtype=object)
    for row, p in zip(residues, primes, strict=True):
        total = total + row.astype(object) * (q // p * pow(q // p, -1, p))
    return np.asarray(total % q, dtype=object)


# --- bits ---


def unpack_numbers(data: bytes, width: int) -> Residues:
    """Little-endian numbers of ``width`` bits without gaps; what is left over is dropped."""
    bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8), bitorder="little")
    rows = bits[: len(bits) // width * width].reshape(-1, width).astype(np.int64)
    return np.asarray((rows << np.arange(width)).sum(axis=1), dtype=np.int64)


def unpack_residues(data: bytes, n: int, primes: Primes) -> Residues:
    """One serialized polynomial -> ``[primes, N]``; a residue takes ``ceil(log2 p)`` bits."""
    rows, start = [], 0
    for p in primes:
        size = n * (p - 1).bit_length() // 8
        rows.append(unpack_numbers(data[start : start + size], (p - 1).bit_length()))
        start += size
    return np.stack(rows)


def pack_residues(residues: Residues, primes: Primes) -> bytes:
    """The inverse of :func:`unpack_residues`."""
    parts = []
    for row, p in zip(residues, primes, strict=True):
        bits = row[:, None] >> np.arange((p - 1).bit_length()) & 1
        parts.append(np.packbits(bits.astype(np.uint8), bitorder="little").tobytes())
    return b"".join(parts)
