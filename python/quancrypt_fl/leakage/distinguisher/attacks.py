"""Distinguishers against the small encryption of :mod:`~quancrypt_fl.leakage.distinguisher.rlwe`.

Each is given the same things in every setting, and says 0 or 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from quancrypt_fl.leakage.distinguisher.classifier import byte_features, classified
from quancrypt_fl.leakage.distinguisher.rlwe import (
    GUARD_BITS,
    Ciphertext,
    Encryptor,
    N,
    P,
    Setting,
    divide,
    multiply,
)

__all__ = ["GAMES", "play", "play_bytes", "success"]

Integers = NDArray[np.int64]
Guess = Callable[[Ciphertext, Ciphertext, Integers, Sequence[Integers]], int]

_Q_MAX = 127
_LEVEL = 0.999  # several figures are to hold together


def messages() -> tuple[Integers, Integers]:
    """Two updates of the attacker's choice: all values smallest, and all largest (8 bits)."""
    return np.zeros(N, dtype=np.int64), np.full(N, 2 * _Q_MAX << GUARD_BITS, dtype=np.int64)


def _nearest(found: Integers, choices: Sequence[Integers]) -> int:
    """The choice of which more coefficients are within the guard bits of what was found."""
    near = [(np.minimum((found - m) % P, (m - found) % P) < 1 << GUARD_BITS).sum() for m in choices]
    return int(near[1] > near[0])


def by_key(
    known: Ciphertext, asked: Ciphertext, message: Integers, choices: Sequence[Integers]
) -> int:
    """Solve ``c1 s = m' - c0`` for the key, with the published ``m'``; then decrypt.

    Exact where there is no noise, or where what was published holds the noise (Li and Micciancio,
    "On the security of homomorphic encryption on approximate numbers", Eurocrypt 2021).
    """
    del message
    secret = divide((known.published - known.c0) % P, known.c1)
    return _nearest((asked.c0 + multiply(asked.c1, secret)) % P, choices)


def by_difference(
    known: Ciphertext, asked: Ciphertext, message: Integers, choices: Sequence[Integers]
) -> int:
    """Subtract a ciphertext of a known message: under one seed, keys and ``c1`` cancel."""
    return _nearest((asked.c0 - known.c0 + message) % P, choices)


_GUESSES: Mapping[str, Guess] = {"key": by_key, "difference": by_difference}

GAMES = (*_GUESSES, "bytes")
"""Names of the attacks: two by algebra, and a classifier trained on bytes."""


def play(setting: Setting, attack: str, trials: int, rng: np.random.Generator) -> int:
    """How often an attack by algebra is right, each time under a new key."""
    choices = messages()
    right = 0
    for _ in range(trials):
        encryptor = Encryptor(setting, rng)
        message = np.asarray(rng.integers(0, 2 * _Q_MAX + 1, N) << GUARD_BITS, dtype=np.int64)
        truth = int(rng.integers(2))
        known, asked = encryptor.encrypt(message), encryptor.encrypt(choices[truth])
        right += _GUESSES[attack](known, asked, message, choices) == truth
    return right


def play_bytes(setting: Setting, trials: int, rng: np.random.Generator) -> int:
    """How often a classifier is right that has seen as many ciphertexts with their messages."""
    encryptor, choices = Encryptor(setting, rng), messages()
    truth = rng.integers(0, 2, 2 * trials)  # independent, as exact intervals ask for
    rows = [encryptor.encrypt(choices[b]) for b in truth]
    data = [np.concatenate([r.c0, r.c1]).astype("<u4").tobytes() for r in rows]
    return classified(byte_features(data), truth)


def success(right: int, trials: int) -> tuple[float, float, float]:
    """Share of right answers with its exact 99.9 % interval (Clopper and Pearson)."""
    bounds = binomtest(right, trials).proportion_ci(_LEVEL)
    return right / trials, float(bounds.low), float(bounds.high)
