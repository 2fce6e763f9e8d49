"""Clip bounds by dACIQ: from the smallest and the largest value of each layer at every party.

BatchCrypt (Zhang et al., USENIX ATC 2020, section 5.2) takes a layer's values for Gaussian. The
expected range of ``size`` such values gives ``sigma``, and ``a_b * sigma`` is the clip bound where
clipping and rounding to ``b`` bits together cost least.

The ranges travel in the clear: the server, and whoever listens, sees each party's smallest and
largest value of every layer. That is BatchCrypt's choice; QuanCrypt-FL agrees under encryption.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.errors import MethodError
from quancrypt_fl.method.clipping import MIN_BOUND
from quancrypt_fl.method.roles import Tensors

__all__ = ["MAX_BITS", "MIN_BITS", "clips_from_ranges", "layer_ranges", "sigma", "unit_factor"]

MIN_BITS, MAX_BITS = 2, 16

_GAUSSIAN = 0.175 * (1 + math.sqrt(math.pi * math.log(4)))
_GOLDEN = (math.sqrt(5) - 1) / 2
_BRACKET = (0.5, 10.0)  # a_b rises from 1.71 (2 bits) to 5.83 (16 bits); one minimum within


def layer_ranges(tensors: Tensors) -> dict[str, NDArray[np.float32]]:
    """One party's report: ``[min, max]`` of each layer, float32 of shape (2,); zeros if empty.

    Raises
    ------
    MethodError
        If a tensor holds NaN or infinity: local training diverged.
    """
    ranges = {}
    for name, tensor in tensors.items():
        pair = np.zeros(2, dtype=np.float32)
        if tensor.size:
            pair[:] = tensor.min(), tensor.max()
        if not np.isfinite(pair).all():
            raise MethodError(f"update of {name!r} holds NaN or infinity: local training diverged")
        ranges[name] = pair
    return ranges


def clips_from_ranges(
    reports: Sequence[Mapping[str, NDArray[np.float32]]],
    sizes: Mapping[str, int],
    bits: int,
    parties: int,
) -> dict[str, float]:
    """Clip bound of each layer, the same for all parties of a round.

    Parameters
    ----------
    reports
        What :func:`layer_ranges` gave at each party, at least one.
    sizes
        Values in each layer.
    bits
        ``b``, 2 to 16.
    parties
        Parties of the round, at least as many as reports.

    Returns
    -------
    dict
        ``a_b * sigma``. Where that is 0 or undefined (a layer of equal values, or a single value)
        the largest magnitude, so that nothing is clipped; for zeros the smallest allowed bound.

    Raises
    ------
    MethodError
        If reports disagree on the layers or hold impossible ranges.
    """
    factor = unit_factor(bits)
    if not 1 <= len(reports) <= parties:
        raise MethodError(f"{len(reports)} reports of ranges; allowed: 1 to {parties}, the parties")
    for report in reports:
        if set(report) != set(sizes):
            raise MethodError(
                f"a report of ranges names {sorted(report)}; the layers are {sorted(sizes)}"
            )
    clips = {}
    for name, size in sizes.items():
        given = [report[name] for report in reports]
        if not all(pair.shape == (2,) and np.isfinite(pair).all() for pair in given):
            raise MethodError(f"a range of {name!r} is not two finite numbers")
        ranges = np.array(given, dtype=np.float64)
        if (ranges[:, 0] > ranges[:, 1]).any():
            raise MethodError(f"a range of {name!r} has its minimum above its maximum")
        low, high = float(ranges[:, 0].min()), float(ranges[:, 1].max())
        clip = factor * sigma(low, high, size * parties)
        clips[name] = max(clip or max(abs(low), abs(high)), MIN_BOUND)
    return clips


def sigma(low: float, high: float, size: int) -> float:
    """``(max - min) * 0.175 * (1 + sqrt(pi * ln 4)) / sqrt(2 * ln size)``; 0 for one value."""
    if size < 2:
        return 0.0
    return (high - low) * _GAUSSIAN / math.sqrt(2 * math.log(size))


@lru_cache
def unit_factor(bits: int) -> float:
    """``a_b``: the best clip bound of standard normal values, by golden-section search.

    Raises
    ------
    MethodError
        If ``bits`` is not 2 to 16.
    """
    if not MIN_BITS <= bits <= MAX_BITS:
        raise MethodError(f"bits is {bits}; allowed: {MIN_BITS} to {MAX_BITS}")
    low, high = _BRACKET
    while high - low > 1e-9:
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if _cost(left, bits) < _cost(right, bits):
            high = right
        else:
            low = left
    return (low + high) / 2


def _cost(a: float, bits: int) -> float:
    """Mean squared error of clipping N(0, 1) to ``[-a, a]`` and of rounding to ``bits`` bits."""
    clipping = (1 + a * a) * math.erfc(a / math.sqrt(2))  # 1 - erf would cancel from 10 bits up
    clipping -= math.sqrt(2 / math.pi) * a * math.exp(-a * a / 2)
    levels = 2.0**bits
    return clipping + 2 * a * a * (levels - 2) / (3 * levels**3)
