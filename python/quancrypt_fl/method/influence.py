"""What one client can do to a round, at most: computed from clip bounds, weights and gains.

An upload adds ``w q`` to the sum, with its weight ``w`` and integers ``q`` in ``[-q_max, q_max]``,
and an integer ``q_max`` stands for the clip bound ``c``. So a client whose integers are in range
moves a coordinate of the mean by at most ``c w / W`` against sending zero (``W``: total weight).

The mean of a group is such a mean, and the median of groups moves no further than the mean that
moved. In return ``W`` is the group's, which is less.

A client that writes its own ciphertexts is not held to that range: there is no proof of it. What
holds it is the sum. Decryption refuses a sum with a field outside ``[0, 2 q_max W]``, so that the
mean stays in ``[-c, c]`` whatever anybody adds, and such a client alone can put it anywhere there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from quancrypt_fl.method.pruning import Mask
from quancrypt_fl.method.roles import Tensors
from quancrypt_fl.method.weighting import Share

__all__ = ["distance", "influence", "largest_share"]


def influence(
    bounds: Mapping[str, float],
    masks: Mapping[str, Mask],
    share: float,
    *,
    factor: float,
    update_l2: float,
) -> dict[str, Any]:
    """Figures of one round, in the units of weights.

    Parameters
    ----------
    bounds
        Clip bound of each tensor in this round.
    masks
        What is sent of each tensor, and how often a coordinate counts.
    share
        See :func:`largest_share`: the client that counts most is looked at.
    factor
        What multiplies a mean on its way into the weights: smoothing, or an outer optimizer's rate
        (what its momentum adds in later rounds aside), and the correction for clients that are
        missing.
    update_l2
        Euclidean norm of what the round did to the weights.

    Returns
    -------
    dict
        ``coordinate`` and ``l2``: how far one client moves the new weights at most, by the largest
        coordinate and in Euclidean norm, against sending zeros, if its integers are in range; twice
        that between two extremes. ``malformed_coordinate`` and ``malformed_l2``: the same for a
        client that encrypts any integers. ``l2_over_update``: ``l2`` in units of ``update_l2``,
        None if that is 0.
    """
    coordinate = squares = 0.0
    for name, mask in masks.items():
        bound = bounds[name]
        if mask.size == 0:
            continue
        gain = np.ones(1) if mask.gain is None else mask.gain.astype(np.float64)
        coordinate = max(coordinate, bound * float(gain.max()))
        square = float(np.square(gain).sum()) if mask.gain is not None else float(mask.size)
        squares += bound * bound * square
    largest, norm = factor * coordinate, factor * math.sqrt(squares)
    return {
        "weight_share": share,
        "coordinate": largest * share,
        "l2": norm * share,
        "malformed_coordinate": largest,
        "malformed_l2": norm,
        "update_l2": update_l2,
        "l2_over_update": norm * share / update_l2 if update_l2 > 0 else None,
    }


def largest_share(shares: Sequence[Share]) -> float:
    """``w / W``: the largest part of a sum's total weight that belongs to one client."""
    return max(share.weight for share in shares) / sum(share.weight for share in shares)


def distance(one: Tensors, other: Tensors) -> float:
    """Euclidean distance of two sets of tensors, in float64."""
    return math.hypot(
        *(
            float(np.linalg.norm((tensor.astype(np.float64) - other[name]).reshape(-1)))
            for name, tensor in one.items()
        )
    )
