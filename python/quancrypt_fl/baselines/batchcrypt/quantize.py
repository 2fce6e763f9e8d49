"""From floats to a party's integers and from sums of integers to means."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.baselines.batchcrypt.lanes import Lanes
from quancrypt_fl.errors import MethodError

__all__ = ["dequantize_mean", "quantize"]


def quantize(
    name: str, tensor: NDArray[np.float32], clip: float, lanes: Lanes, rng: np.random.Generator
) -> NDArray[np.int32]:
    """``floor(clip(x) * q_max / (clip * N) + u)``, ``u`` uniform in [0, 1): unbiased.

    Parameters
    ----------
    name
        Of the tensor, for errors.
    tensor
        Any shape; flattened.
    clip
        Clip bound, finite and positive.
    lanes
        ``q_max`` and ``N``.
    rng
        Gives ``u``.

    Returns
    -------
    array of int32
        Shape (n,), in ``[-lanes.limit, lanes.limit]``.

    Raises
    ------
    MethodError
        If the tensor holds NaN or infinity, or the clip bound is impossible.
    """
    if not (math.isfinite(clip) and clip > 0):
        raise MethodError(f"the clip bound of {name!r} is {clip}; allowed: finite and positive")
    values = tensor.reshape(-1).astype(np.float64)
    if not np.isfinite(values).all():
        raise MethodError(f"update of {name!r} holds NaN or infinity: local training diverged")
    np.clip(values, -clip, clip, out=values)
    values *= lanes.q_max / (clip * lanes.parties)
    values += rng.random(values.size)
    np.floor(values, out=values)
    np.clip(values, -lanes.limit, lanes.limit, out=values)  # a last bit of rounding, if at all
    return values.astype(np.int32)


def dequantize_mean(
    sums: NDArray[np.int32], clip: float, lanes: Lanes, weight: int
) -> NDArray[np.float32]:
    """Means of ``weight`` parties from their sums of integers, in the shape of ``sums``."""
    step = clip * lanes.parties / lanes.q_max
    return (sums * (step / weight)).astype(np.float32)
