"""A small RLWE encryption in NumPy, like the package's, whose safeguards can be switched off.

Symmetric: ``c1`` uniform from a seed, ``c0 = m + e - c1 s`` in ``Z_p[X] / (X^N + 1)``, ``s``
ternary, ``e`` centred binomial. The ring is small (N = 256, a 31-bit prime): far too small against
lattice reduction, which nobody tries here, and large enough for these attacks to mean the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BROKEN",
    "GUARD_BITS",
    "SOUND",
    "Ciphertext",
    "Encryptor",
    "N",
    "P",
    "Setting",
    "divide",
    "from_slots",
    "multiply",
    "to_slots",
]

Integers = NDArray[np.int64]
Complex = NDArray[np.complex128]

N = 256
P = 2147483137
"""The largest prime below 2^31 that is 1 modulo 2 N."""

GUARD_BITS = 6
"""Bits below a message, in which the noise stays: |e| <= 21 < 2^5."""

_BINOMIAL = 21  # pairs of bits: standard deviation 3.24
_SCALE = 2.0**20  # of slots


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How encryption is used.

    Attributes
    ----------
    noise
        Whether ``e`` is there.
    seed_uses
        How many ciphertexts have one ``c1``; 0: all of them.
    exact
        Whether a published decryption is the exact message; otherwise it is that of slots, in
        floating point, with the noise in it.
    """

    name: str
    noise: bool = True
    seed_uses: int = 1
    exact: bool = True


SOUND = Setting(name="sound")
BROKEN = (
    Setting(name="noise off", noise=False),
    Setting(name="seed used twice", seed_uses=2),
    Setting(name="one seed for all", seed_uses=0),
    Setting(name="slots decrypted with noise", exact=False),
)


@dataclass(frozen=True)
class Ciphertext:
    """Residues in [0, P), shape (N,) each, and what was published of its decryption."""

    c0: Integers
    c1: Integers
    published: Integers


class Encryptor:
    """A secret key and a setting; everything is drawn from ``rng``."""

    def __init__(self, setting: Setting, rng: np.random.Generator) -> None:
        self._setting, self._rng = setting, rng
        self._secret = rng.integers(-1, 2, N)
        self._c1, self._uses = rng.integers(0, P, N), 0

    def encrypt(self, message: Integers) -> Ciphertext:
        """Encrypt coefficients in [0, P); publish the decryption as the setting has it."""
        if self._uses == self._setting.seed_uses and self._uses:
            self._c1, self._uses = self._rng.integers(0, P, N), 0
        self._uses += 1
        error = np.zeros(N, dtype=np.int64)
        if self._setting.noise:
            bits = self._rng.integers(0, 2, (2, _BINOMIAL, N))
            error = bits[0].sum(axis=0) - bits[1].sum(axis=0)
        noisy = (message + error) % P
        c0 = (noisy - multiply(self._c1, self._secret % P)) % P
        published = message if self._setting.exact else from_slots(to_slots(noisy))
        return Ciphertext(c0, self._c1, published)


# --- arithmetic ---


def multiply(a: Integers, b: Integers) -> Integers:
    """Product in the ring, by evaluation at the odd powers of a 2N-th root of unity."""
    return _times(_INVERSE, _times(_FORWARD, a) * _times(_FORWARD, b) % P)


def divide(a: Integers, b: Integers) -> Integers:
    """``a / b``, with 0 for the evaluations at which ``b`` vanishes."""
    inverses = np.array([pow(int(value), P - 2, P) for value in _times(_FORWARD, b)])
    return _times(_INVERSE, _times(_FORWARD, a) * inverses % P)


def _times(matrix: Integers, values: Integers) -> Integers:
    """Products are below 2^62; their residues are added, below 2^39."""
    return np.asarray((matrix * values % P).sum(axis=1) % P, dtype=np.int64)


def _matrices() -> tuple[Integers, Integers]:
    root = next(
        candidate
        for base in range(2, 100)
        if pow(candidate := pow(base, (P - 1) // (2 * N), P), N, P) == P - 1
    )
    powers = np.array([pow(root, e, P) for e in range(2 * N)], dtype=np.int64)
    exponents = np.outer(2 * np.arange(N) + 1, np.arange(N))
    forward = powers[exponents % (2 * N)]
    inverse = powers[-exponents.T % (2 * N)] * pow(N, P - 2, P) % P
    return forward, np.asarray(inverse, dtype=np.int64)


_FORWARD, _INVERSE = _matrices()


def to_slots(coefficients: Integers) -> Complex:
    """Values at the odd powers of a complex root of unity, as CKKS decodes them."""
    signed = np.where(coefficients > P // 2, coefficients - P, coefficients)
    return np.asarray(np.fft.ifft(signed * _twist()) * N / _SCALE, dtype=np.complex128)


def from_slots(values: Complex) -> Integers:
    """The coefficients whose slots these are: rounding takes all floating-point error away."""
    found = np.fft.fft(values * _SCALE / N) * _twist().conj()
    return np.asarray(np.rint(found.real), dtype=np.int64) % P


def _twist() -> Complex:
    return np.asarray(np.exp(1j * np.pi * np.arange(N) / N), dtype=np.complex128)
