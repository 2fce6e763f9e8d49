"""The same distinguishers against the package's own uploads, and against broken twins of them.

Messages are again all values smallest, and all largest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.leakage.decoding import as_plaintext, decoded_values
from quancrypt_fl.leakage.distinguisher.classifier import byte_features, classified
from quancrypt_fl.leakage.distinguisher.native_ciphertexts import (
    Ciphertext,
    NativeUploads,
    by_prime,
)
from quancrypt_fl.leakage.polynomials import Residues, inverse, multiply

__all__ = [
    "NATIVE_GAMES",
    "NOISE_HANDED_OVER",
    "NOT_ENCRYPTED",
    "ONE_SEED",
    "PACKAGE",
    "SEED_TWICE",
    "play_native",
]

Integers = NDArray[np.int64]

PACKAGE = "quancrypt-native"
NOISE_HANDED_OVER = f"{PACKAGE}, noise handed over"
SEED_TWICE = f"{PACKAGE}, seed used twice"
ONE_SEED = f"{PACKAGE}, one seed for all"
NOT_ENCRYPTED = f"{PACKAGE}, not encrypted"

NATIVE_GAMES: Mapping[str, tuple[str, ...]] = {
    PACKAGE: ("key", "difference", "bytes", "decoded"),
    NOISE_HANDED_OVER: ("key", "difference"),
    SEED_TWICE: ("key", "difference", "bytes", "decoded"),
    ONE_SEED: ("bytes", "decoded"),
    NOT_ENCRYPTED: ("bytes", "decoded"),
}
"""Attacks on each setting. What is handed over makes no difference to the bytes of an upload."""

_FULL = 20_480  # values of one full ciphertext: two primes, five fields
_SMALL = 500  # one prime, one field: as many columns as a classifier can learn from


def _by_key(
    known: Ciphertext, asked: Ciphertext, message: Integers, uploads: NativeUploads
) -> Residues:
    """``c1 s = m' - c0`` with the published ``m'``, solved at each root of unity; then decrypt."""
    del message
    assert known.published is not None
    packing = uploads.packing
    inverses = by_prime(inverse, packing, known.c1)
    equation = (known.published - known.c0) % uploads.primes
    secret = by_prime(multiply, packing, equation, inverses)
    return (asked.c0 + by_prime(multiply, packing, asked.c1, secret)) % uploads.primes


def _by_difference(
    known: Ciphertext, asked: Ciphertext, message: Integers, uploads: NativeUploads
) -> Residues:
    """Subtract an upload of a known message: under one seed, keys and ``c1`` cancel."""
    return (asked.c0 - known.c0 + uploads.plaintext(message)) % uploads.primes


Found = Callable[[Ciphertext, Ciphertext, Integers, NativeUploads], Residues]
"""From a known and an asked ciphertext, and the known message, to the asked plaintext."""

_ALGEBRA: Mapping[str, Found] = {"key": _by_key, "difference": _by_difference}


def play_native(setting: str, attack: str, trials: int, rng: np.random.Generator) -> int:
    """How often an attack on the package's uploads is right."""
    if attack in _ALGEBRA:
        return _by_algebra(setting, _ALGEBRA[attack], trials, rng)
    uploads = NativeUploads(_SMALL, rng)
    truth = rng.integers(0, 2, 2 * trials)  # independent, as exact intervals ask for
    data = _encrypted(setting, uploads, truth)
    if attack == "bytes":
        return classified(byte_features(data), truth)
    decoded = [decoded_values(item, uploads.params, _SMALL) for item in data]
    return classified(np.stack(decoded).astype(np.float64), truth)


def _by_algebra(setting: str, find: Found, trials: int, rng: np.random.Generator) -> int:
    """Each time with a new known message, published as the setting has it."""
    uploads = NativeUploads(_FULL, rng)
    choices = _choices(uploads)
    right = 0
    for _ in range(trials):
        largest = uploads.packing.offset
        message = rng.integers(-largest, largest + 1, _FULL)
        truth = int(rng.integers(2))
        first = uploads.upload(message)
        if setting == SEED_TWICE:
            second = uploads.under_the_seed_of(first, choices[truth])
        else:
            second = uploads.upload(choices[truth])
        if setting == NOISE_HANDED_OVER:
            known = uploads.opened_with_noise(first)
        else:
            known = uploads.opened_exactly(first, message)
        # The attacker asks about the second upload: nothing of it is published.
        asked = uploads.unopened(second)
        fields = as_plaintext(find(known, asked, message, uploads), uploads.params)
        right += _nearest(fields - largest, choices) == truth
    return right


def _nearest(found: Integers, choices: Sequence[Integers]) -> int:
    """The choice of which more values were found."""
    same = [int(np.count_nonzero(found == choice)) for choice in choices]
    return int(same[1] > same[0])


def _encrypted(setting: str, uploads: NativeUploads, truth: Integers) -> list[bytes]:
    """An upload of each message, in the order of ``truth``."""
    choices = _choices(uploads)
    data: list[bytes] = []
    for number, b in enumerate(truth):
        if setting == NOT_ENCRYPTED:
            data.append(uploads.unmasked(choices[b]))
        elif setting == ONE_SEED and data:
            data.append(uploads.under_the_seed_of(data[0], choices[b]))
        elif setting == SEED_TWICE and number % 2:
            data.append(uploads.under_the_seed_of(data[-1], choices[b]))
        else:
            data.append(uploads.upload(choices[b]))
    return data


def _choices(uploads: NativeUploads) -> tuple[Integers, Integers]:
    largest = uploads.packing.offset
    return np.full(uploads.values, -largest), np.full(uploads.values, largest)
