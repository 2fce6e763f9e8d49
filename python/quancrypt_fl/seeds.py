"""Every random choice of a run, from one seed.

Each use names itself (``"partition"``, ``"training"`` with round and client, ...), so that adding
one never shifts another. Randomness of encryption is none of these: it always comes from the
operating system, and cannot change results because encrypted sums are exact.
"""

from __future__ import annotations

import zlib

import numpy as np

__all__ = ["derive_seed", "generator"]


def derive_seed(seed: int, use: str, *indices: int) -> int:
    """A 63-bit seed for one use, e.g. ``derive_seed(1, "training", round, client)``."""
    return int(_sequence(seed, use, indices).generate_state(1, np.uint64)[0] >> np.uint64(1))


def generator(seed: int, use: str, *indices: int) -> np.random.Generator:
    """A NumPy generator for one use."""
    return np.random.default_rng(_sequence(seed, use, indices))


def _sequence(seed: int, use: str, indices: tuple[int, ...]) -> np.random.SeedSequence:
    return np.random.SeedSequence((seed, zlib.crc32(use.encode()), *indices))
