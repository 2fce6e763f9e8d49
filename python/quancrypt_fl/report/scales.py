"""Axes: from values to positions in ``[0, 1]``, with round numbers to mark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Scale", "linear", "logarithmic", "whole"]

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Scale:
    """An axis from ``low`` to ``high``; ``log`` if equal steps are equal factors."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def position(self, value: float) -> float:
        """Where ``value`` lies: 0 at ``low``, 1 at ``high``."""
        if self.log:
            value = max(value, self.low)
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def linear(values: Sequence[float], *, zero: bool = False, marks: int = 5) -> Scale:
    """A scale that ends on round numbers and holds all values; from 0 on if ``zero``."""
    low, high = (0.0 if zero else min(values)), max(values)
    if high - low < 1e-12 * max(1.0, abs(high)):
        spread = abs(high) or 1.0
        low, high = (0.0 if zero else low - 0.05 * spread), high + 0.05 * spread
    step = _step((high - low) / marks)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(round(i * step, 12) for i in range(first, last + 1))
    return Scale(ticks[0], ticks[-1], ticks)


def whole(first: int, last: int, *, marks: int = 6) -> Scale:
    """A scale of whole numbers, such as rounds, that ends exactly on ``first`` and ``last``."""
    if first == last:
        return Scale(first - 1, last + 1, (float(first),))
    step = max(1, math.ceil(_step((last - first) / marks)))
    ticks = {t for t in range(0, last + 1, step) if t >= first}
    # Both ends are marked, unless a mark beside them would run into theirs.
    inner = {t for t in ticks if min(t - first, last - t) >= 0.5 * step}
    return Scale(first, last, tuple(float(t) for t in sorted({first, *inner, last})))


def logarithmic(values: Sequence[float]) -> Scale:
    """A scale of powers of ten (with 2 and 5 between few of them) that holds all values > 0."""
    low, high = math.log10(min(values)), math.log10(max(values))
    first, last = math.floor(low + 1e-9), math.ceil(high - 1e-9)
    last = max(last, first + 1)
    inner = (1.0, 2.0, 5.0) if last - first <= 2 else (1.0,)
    stride = math.ceil((last - first) / 6)
    ticks = [m * 10.0**e for e in range(first, last, stride) for m in inner] + [10.0**last]
    begin = max((t for t in ticks if t <= min(values)), default=10.0**first)
    end = min((t for t in ticks if t >= max(values)), default=10.0**last)
    if begin == end:
        begin, end = 10.0**first, 10.0**last
    return Scale(begin, end, tuple(t for t in ticks if begin <= t <= end), log=True)


def _step(rough: float) -> float:
    """The round number that is not below ``rough`` by much: 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step for step in _STEPS if step >= rough / power * (1 - 1e-9)) * power
