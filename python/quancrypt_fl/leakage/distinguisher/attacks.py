"""Distinguishers: each is given the same things in every setting, and says 0 or 1."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

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
from quancrypt_fl.protect import Channel

__all__ = ["GAMES", "play_bytes", "play_package", "success"]

Integers = NDArray[np.int64]
Guess = Callable[[Ciphertext, Ciphertext, Integers, Sequence[Integers]], int]

_Q_MAX = 127
_VALUES = 500  # of an update of the package
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
    """How often a classifier is right that has seen as many ciphertexts of each message."""
    encryptor, choices = Encryptor(setting, rng), messages()
    truth = rng.permutation(np.arange(2 * trials) % 2)
    rows = [encryptor.encrypt(choices[b]) for b in truth]
    data = [np.concatenate([r.c0, r.c1]).astype("<u4").tobytes() for r in rows]
    return _classified(data, truth)


def play_package(trials: int, rng: np.random.Generator) -> int:
    """The same game with serialized uploads of the native package, headers included."""
    channel = Channel(bits=8, max_weight=16, security=128, values=_VALUES)
    client = channel.client()
    truth = rng.permutation(np.arange(2 * trials) % 2)
    data = []
    for b in truth:
        update = {"update": np.full(_VALUES, 1.0 if b else -1.0, dtype=np.float32)}
        data.append(client.protect(update, {"update": 1.0}, 0).data)
    return _classified(data, truth)


def _classified(data: Sequence[bytes], truth: NDArray[np.int64]) -> int:
    """Right answers on the second half, learned on the first: bytes, and how often each is there.

    Lengths that differ would tell the messages apart by themselves: they are a feature too.
    """
    shortest = min(len(item) for item in data)
    table = np.stack(
        [
            np.concatenate(
                [
                    np.frombuffer(item[:shortest], dtype=np.uint8).astype(np.float64),
                    np.bincount(np.frombuffer(item, dtype=np.uint8), minlength=256),
                    [len(item)],
                ]
            )
            for item in data
        ]
    )
    half = len(table) // 2
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500, C=0.01))
    classifier.fit(table[:half], truth[:half])
    return int((classifier.predict(table[half:]) == truth[half:]).sum())


def success(right: int, trials: int) -> tuple[float, float, float]:
    """Share of right answers with its exact 99.9 % interval (Clopper and Pearson)."""
    bounds = binomtest(right, trials).proportion_ci(_LEVEL)
    return right / trials, float(bounds.low), float(bounds.high)
