"""Smoothing of the global weights (step 9 of a round)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["smooth"]


def smooth(
    before: NDArray[np.float32], aggregate: NDArray[np.float32], smoothing: float
) -> NDArray[np.float32]:
    """``(1 - lambda) * before + lambda * aggregate`` in float32; ``lambda = 1`` is the aggregate.

    Parameters
    ----------
    before, aggregate
        Global weights before the round and the mean of the clients' weights, of equal shape.
    smoothing
        ``lambda`` in ``(0, 1]``.
    """
    if smoothing == 1.0:
        return aggregate
    old, new = np.float32(1.0 - smoothing), np.float32(smoothing)
    return old * before + new * aggregate
