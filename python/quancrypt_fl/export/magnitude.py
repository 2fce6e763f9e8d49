"""Unstructured pruning: the smallest weights of each tensor become zero."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

__all__ = ["prune_weights"]

_PRUNED_FROM_DIMENSIONS = 2


def prune_weights(
    weights: Mapping[str, NDArray[np.float32]], rate: float
) -> dict[str, NDArray[np.float32]]:
    """Set ``floor(rate * size)`` weights of each tensor to zero, those of smallest magnitude.

    Tensors with fewer than two dimensions (biases, batch norms) stay as they are. The first in
    memory order go first where magnitudes are equal, as in a round.
    """
    pruned = {}
    for name, tensor in weights.items():
        result = tensor.copy()
        count = math.floor(rate * tensor.size + 1e-9)
        if tensor.ndim >= _PRUNED_FROM_DIMENSIONS and count:
            magnitude = np.abs(tensor).ravel()
            threshold = np.partition(magnitude, count - 1)[count - 1]
            result.flat[np.flatnonzero(magnitude < threshold)] = 0
            equal = np.flatnonzero(magnitude == threshold)
            result.flat[equal[: count - np.count_nonzero(magnitude < threshold)]] = 0
        pruned[name] = result
    return pruned
