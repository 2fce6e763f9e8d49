"""Means over seeds with confidence intervals, and differences seed by seed.

Two methods with the same seed have the same split, the same initial weights and the same order of
samples, so their results rise and fall together. The difference of a pair is free of what both
share: its interval says whether one method is better, where the intervals of the two means may
well overlap.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import special

__all__ = ["LEVEL", "Interval", "interval", "paired_difference"]

LEVEL = 0.95
"""Confidence level of every interval."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its confidence interval.

    Attributes
    ----------
    mean
        Mean of the values.
    half_width
        The interval is ``mean - half_width`` to ``mean + half_width``; None for a single value,
        which tells nothing about the spread.
    count
        Number of values.
    """

    mean: float
    half_width: float | None
    count: int

    def as_dict(self) -> dict[str, float | int | None]:
        """``mean``, ``low``, ``high`` (None without interval), ``count``."""
        half = self.half_width
        return {
            "mean": self.mean,
            "low": None if half is None else self.mean - half,
            "high": None if half is None else self.mean + half,
            "count": self.count,
        }


def interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Student's t interval of the mean of independent values.

    Parameters
    ----------
    values
        At least one.
    level
        Confidence level in (0, 1).
    """
    count = len(values)
    mean = statistics.fmean(values)
    if count == 1:
        return Interval(mean, None, 1)
    quantile = float(special.stdtrit(count - 1, (1 + level) / 2))
    return Interval(mean, quantile * statistics.stdev(values) / math.sqrt(count), count)


def paired_difference(
    values: Mapping[int, float], reference: Mapping[int, float], level: float = LEVEL
) -> Interval | None:
    """Interval of the mean of ``values - reference``, over the seeds that both have.

    Parameters
    ----------
    values, reference
        From seed to result.
    level
        Confidence level in (0, 1).

    Returns
    -------
    Interval or None
        None if there is no common seed.
    """
    seeds = sorted(values.keys() & reference.keys())
    if not seeds:
        return None
    return interval([values[seed] - reference[seed] for seed in seeds], level)
