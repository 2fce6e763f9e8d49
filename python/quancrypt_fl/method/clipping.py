"""Mean-based clipping (step 5 of a round): every tensor is clipped to a multiple of its mean size.

For one tensor of an update, ``mu = mean(|delta|)`` and the bound is ``alpha * mu``. All clients of
a round use the bound of the *mean* of their ``mu``, so that one integer means the same number in
every update and the encrypted sum of integers is the sum of the clipped updates.

A client divides each tensor by its bound before it hands it over, and the native package clips to
``[-1, 1]`` in the same pass as quantization. The clip bound written into a ciphertext's header is
then always 1: the summing side does not even learn the mean magnitudes of the aggregate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.errors import MethodError

__all__ = ["MIN_BOUND", "clip_bounds", "from_unit", "mean_magnitudes", "to_unit"]

MIN_BOUND = 2.0**-32
"""Smallest clip bound: a bound must be positive, and a tensor of zeros has ``mu = 0``. It equals
the resolution at which ``mu`` travels (see :mod:`quancrypt_fl.method.statistics`)."""


def mean_magnitudes(update: Mapping[str, NDArray[np.float32]]) -> dict[str, float]:
    """``mu = mean(|delta|)`` of every tensor, in float64; 0 for an empty tensor.

    Raises
    ------
    MethodError
        If a tensor holds NaN or infinity: training diverged, and no bound can be agreed on.
    """
    means = {}
    for name, delta in update.items():
        mean = float(np.abs(delta).mean(dtype=np.float64)) if delta.size else 0.0
        if not math.isfinite(mean):
            raise MethodError(f"update of {name!r} holds NaN or infinity: local training diverged")
        means[name] = mean
    return means


def clip_bounds(
    means: Mapping[str, float], factor: float, largest: float = math.inf
) -> dict[str, float]:
    """Clip bound ``factor * mu`` of every tensor, from :data:`MIN_BOUND` to ``largest``."""
    return {name: min(max(factor * mean, MIN_BOUND), largest) for name, mean in means.items()}


def to_unit(delta: NDArray[np.float32], bound: float) -> NDArray[np.float32]:
    """``delta / bound``: values to be clipped lie outside ``[-1, 1]``."""
    return delta / np.float32(bound)


def from_unit(values: NDArray[np.float32], bound: float) -> NDArray[np.float32]:
    """Inverse of :func:`to_unit` for the mean of clipped updates."""
    return values * np.float32(bound)
