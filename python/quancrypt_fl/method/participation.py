"""Which clients take part in a round, and which of them are lost on the way."""

from __future__ import annotations

import numpy as np

__all__ = ["MOST_PARTIES", "choose", "lose"]

MOST_PARTIES = 128
"""Clients that can make a joint key, any so many of whom open a sum together."""


def choose(clients: int, participants: int, rng: np.random.Generator) -> list[int]:
    """Sorted indices of ``participants`` of ``clients`` clients, each set equally likely."""
    if participants >= clients:
        return list(range(clients))
    return sorted(rng.choice(clients, size=participants, replace=False).tolist())


def lose(chosen: list[int], probability: float, rng: np.random.Generator) -> frozenset[int]:
    """The chosen clients that fall silent, each with the same probability by itself."""
    if probability == 0.0:
        return frozenset()
    fallen = rng.random(len(chosen)) < probability
    return frozenset(client for client, gone in zip(chosen, fallen, strict=True) if gone)
