"""How good a score of membership is: areas, rates, intervals, and what chance gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, rankdata
from sklearn.metrics import roc_curve

from quancrypt_fl.seeds import generator

__all__ = ["Quality", "advantages", "auc_interval", "aucs", "quality"]

Values = NDArray[np.float64]
Marks = NDArray[np.bool_]

_RESAMPLES = 1000
_RATES = (0.01, 0.001)
_CHANCE_QUANTILE = 0.95
_AT_A_TIME = 2_000_000  # scores; bounds memory


@dataclass(frozen=True)
class Quality:
    """What a score achieves.

    Attributes
    ----------
    auc, low, high
        Area under the ROC curve with its 95 % bootstrap interval, scores being fixed.
    advantage
        Largest true minus false positive rate over all thresholds (Yeom et al.), on the samples
        that are judged: it is above 0 by chance too.
    advantage_at_chance
        The largest that 95 % of random memberships give, scores being fixed.
    tpr
        True positive rate at false positive rates of 0.01 and 0.001.
    tpr_interval
        95 % interval of the first (Clopper and Pearson 1934), the threshold being fixed.
    curve
        False and true positive rates at every threshold, for the plot.
    """

    auc: float
    low: float
    high: float
    advantage: float
    advantage_at_chance: float
    tpr: tuple[float, float]
    tpr_interval: tuple[float, float]
    curve: tuple[Values, Values]


def quality(score: Values, member: Marks, seed: int) -> Quality:
    """Judge a score against the truth, both of shape (samples,)."""
    # Points on a straight line are kept: the last one before a given rate may be among them.
    false, true, _ = roc_curve(member, score, drop_intermediate=False)
    low, high = auc_interval(score, member, seed)
    first, second = (float(true[np.searchsorted(false, x, side="right") - 1]) for x in _RATES)
    return Quality(
        float(aucs(score[None], member)[0]),
        low,
        high,
        float((true - false).max()),
        _advantage_at_chance(score, member, seed),
        (first, second),
        _clopper_pearson(round(first * int(member.sum())), int(member.sum())),
        (false, true),
    )


def auc_interval(
    score: Values, member: Marks, seed: int, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap of the AUC: members and others are drawn anew, each by themselves.

    For scores that owe nothing to the samples that are judged; of others see
    :func:`~quancrypt_fl.leakage.membership.halves.refitted_interval`.
    """
    rng = generator(seed, "auc-bootstrap")
    inner, outer = score[member], score[~member]
    label = np.arange(len(score)) < len(inner)
    drawn = [
        aucs(np.concatenate([_drawn(rng, inner, n), _drawn(rng, outer, n)], axis=1), label)
        for n in _portions(len(score))
    ]
    low, high = np.quantile(np.concatenate(drawn), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def aucs(scores: Values, member: Marks) -> Values:
    """Areas under the ROC curve of many scorings, (scorings, samples), of the same samples.

    Share of pairs in which the member has the larger score; a tie counts half.
    """
    inner = int(member.sum())
    outer = len(member) - inner
    ranks = rankdata(scores, axis=1)[:, member].sum(axis=1)
    return np.asarray((ranks - inner * (inner + 1) / 2) / (inner * outer), dtype=np.float64)


def advantages(scores: Values, member: Marks) -> Values:
    """Largest true minus false positive rates of many scorings, (scorings, samples)."""
    order = np.argsort(-scores, axis=1)
    ordered = np.take_along_axis(scores, order, axis=1)
    steps = np.where(member, 1 / member.sum(), -1 / (~member).sum())
    difference = np.cumsum(steps[order], axis=1)
    # A threshold lies between two scores that differ, or below all of them.
    difference[:, :-1][ordered[:, :-1] == ordered[:, 1:]] = 0.0
    return np.asarray(np.maximum(difference.max(axis=1), 0.0), dtype=np.float64)


def _advantage_at_chance(score: Values, member: Marks, seed: int) -> float:
    rng = generator(seed, "advantage-permutations")
    found = [
        advantages(rng.permuted(np.tile(score, (n, 1)), axis=1), member)
        for n in _portions(len(score))
    ]
    return float(np.quantile(np.concatenate(found), _CHANCE_QUANTILE))


def _clopper_pearson(successes: int, trials: int) -> tuple[float, float]:
    """95 % interval of a probability."""
    low = beta.ppf(0.025, successes, trials - successes + 1) if successes else 0.0
    high = beta.ppf(0.975, successes + 1, trials - successes) if successes < trials else 1.0
    return float(low), float(high)


def _drawn(rng: np.random.Generator, values: Values, times: int) -> Values:
    return values[rng.integers(len(values), size=(times, len(values)))]


def _portions(samples: int) -> list[int]:
    """Numbers of resamples that fit into memory together, 1,000 in all."""
    most = max(1, min(_RESAMPLES, _AT_A_TIME // samples))
    whole, rest = divmod(_RESAMPLES, most)
    return [most] * whole + [rest] * (rest > 0)
