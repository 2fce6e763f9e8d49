"""Interleaved timing: ours, rival, ours, rival, ...; medians, and the median of paired ratios.

What else runs on the machine slows both halves of a pair alike, so that ratios stay steady where
times do not.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["Pair", "Spread", "Thunk", "interleave", "quiet", "seconds"]

Thunk = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and extremes of samples in one unit."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        """Of at least one sample."""
        return cls(statistics.median(samples), min(samples), max(samples))

    def as_dict(self) -> dict[str, float]:
        """``median``, ``min`` and ``max``."""
        return {"median": self.median, "min": self.low, "max": self.high}


@dataclass(frozen=True, slots=True)
class Pair:
    """Two subjects' times, and how many times longer the second takes."""

    ours: Spread
    rival: Spread
    ratio: Spread


@contextmanager
def quiet() -> Iterator[None]:
    """No garbage collection inside."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def seconds(thunk: Thunk) -> float:
    """Wall-clock time of one call; freeing its result is not part of it."""
    start = time.perf_counter()
    result = thunk()
    elapsed = time.perf_counter() - start
    del result
    return elapsed


def interleave(ours: Callable[[], float], rival: Callable[[], float], repeat: int) -> Pair:
    """Take samples in turn, ``repeat`` times, after one of each that does not count."""
    ours()
    rival()
    samples = [(ours(), rival()) for _ in range(repeat)]
    return Pair(
        Spread.of([a for a, _ in samples]),
        Spread.of([b for _, b in samples]),
        Spread.of([b / a for a, b in samples]),
    )
