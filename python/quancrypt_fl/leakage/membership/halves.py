"""An attack that learns from one half of the samples and asks about the other, and its errors.

Both classifiers depend on the samples that are judged: of two halves, each teaches the attack on
the other. Where there is nothing to learn, their chance errors have the same sign. A bootstrap that
holds the classifiers fixed does not see this, and its intervals are too narrow; here every resample
is learned from anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from quancrypt_fl.leakage.membership.logistic import log_odds
from quancrypt_fl.leakage.membership.quality import advantages, aucs
from quancrypt_fl.seeds import generator

__all__ = ["Chance", "chance_by_halves", "learned_by_halves", "refitted_interval"]

Values = NDArray[np.float64]
Marks = NDArray[np.bool_]
Places = NDArray[np.int64]

_RESAMPLES = 1000
_PERMUTATIONS = 999  # with what was measured, 1,000: the level is exact
_AT_A_TIME = 2_000_000  # values of resampled evidence; bounds memory


@dataclass(frozen=True)
class _Parts:
    """Places of samples, (resamples, count), by half and by what they are taken for."""

    inner: tuple[Places, Places]
    outer: tuple[Places, Places]

    def half(self, number: int) -> tuple[Places, Marks]:
        """Places in one half, members first, (resamples, samples), and who is a member."""
        both = np.concatenate([self.inner[number], self.outer[number]], axis=1)
        return both, np.arange(both.shape[1]) < self.inner[number].shape[1]


@dataclass(frozen=True)
class Chance:
    """What the attack gives where there is nothing to learn.

    Attributes
    ----------
    low, high
        Interval of the AUC.
    advantage
        95th percentile of the advantage.
    """

    low: float
    high: float
    advantage: float


def learned_by_halves(evidence: Values, member: Marks, seed: int) -> Values:
    """Scores by an attacker who knows the membership of one half and asks about the other.

    Scores are ranks in [0, 1] within each half, so that two classifiers can be compared.

    Parameters
    ----------
    evidence, member
        (samples, features) and (samples,).
    seed
        Decides the halves, each with half of the members and half of the others.
    """
    parts = _split(seed, np.flatnonzero(member)[None], np.flatnonzero(~member)[None])
    scores, _ = _crossed(evidence, parts)
    places = np.concatenate([parts.half(0)[0][0], parts.half(1)[0][0]])
    found = np.empty(len(member))
    found[places] = scores[0]
    return found


def refitted_interval(
    evidence: Sequence[Values],
    member: Marks,
    seed: int,
    level: float = 0.95,
    resamples: int = _RESAMPLES,
) -> tuple[float, float]:
    """Percentile bootstrap of the AUC of :func:`learned_by_halves`, learned anew every time.

    Members and others of each half are drawn anew from those of the same half, so that no sample
    is both learned from and asked about.

    Parameters
    ----------
    evidence
        As of :func:`learned_by_halves`, once or several times: each gets its share of resamples.
    """
    parts = _split(seed, np.flatnonzero(member)[None], np.flatnonzero(~member)[None])
    rng = generator(seed, "halves-bootstrap")

    def drawn(places: Places, times: int) -> Places:
        chosen: Places = places[0, rng.integers(places.shape[1], size=(times, places.shape[1]))]
        return chosen

    found = []
    for one in evidence:
        for times in _portions(math.ceil(resamples / len(evidence)), one):
            inner, outer = (
                (drawn(kind[0], times), drawn(kind[1], times))
                for kind in (parts.inner, parts.outer)
            )
            found.append(aucs(*_crossed(one, _Parts(inner, outer))))
    low, high = np.quantile(np.concatenate(found), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def chance_by_halves(
    evidence: Values,
    member: Marks,
    client: Places,
    seed: int,
    level: float = 0.99,
    permutations: int = _PERMUTATIONS,
) -> Chance:
    """Permutation test of the whole attack: memberships permuted, halves drawn anew, learned anew.

    An AUC outside of the interval has a probability of ``1 - level`` where evidence and membership
    have nothing to do with each other.

    Parameters
    ----------
    evidence, member
        As of :func:`learned_by_halves`.
    client
        Against whose update a sample is held, (samples,). Memberships are permuted among samples
        of the same client: each client has its own share of members.
    seed
        Decides permutations and halves.
    level
        Of the interval of the AUC.
    permutations
        How many.
    """
    rng = generator(seed, "halves-permutations")
    areas, largest = [], []
    for times in _portions(permutations, evidence):
        scores, label = _crossed(evidence, _permuted(rng, member, client, times))
        areas.append(aucs(scores, label))
        largest.append(advantages(scores, label))
    ordered = np.sort(np.concatenate(areas))
    # Of permutations + 1 equally likely places in the order, so many lie outside on either side.
    outside = max(1, math.floor((1 - level) / 2 * (permutations + 1) + 1e-9))
    return Chance(
        float(ordered[outside - 1]),
        float(ordered[-outside]),
        float(np.quantile(np.concatenate(largest), 0.95)),
    )


def _permuted(rng: np.random.Generator, member: Marks, client: Places, times: int) -> _Parts:
    """Halves of memberships that changed places among the samples of each client."""
    inner, outer = [], []
    for number in np.unique(client):
        places = np.flatnonzero(client == number)
        count = int(member[places].sum())
        changed = rng.permuted(np.tile(places, (times, 1)), axis=1)
        inner.append(changed[:, :count])
        outer.append(changed[:, count:])
    kinds = (np.concatenate(inner, axis=1), np.concatenate(outer, axis=1))
    return _halved(*(rng.permuted(kind, axis=1) for kind in kinds))


def _split(seed: int, inner: Places, outer: Places) -> _Parts:
    """The halves of a seed."""
    rng = generator(seed, "membership-halves")
    return _halved(rng.permuted(inner, axis=1), rng.permuted(outer, axis=1))


def _halved(inner: Places, outer: Places) -> _Parts:
    middle_inner, middle_outer = inner.shape[1] // 2, outer.shape[1] // 2
    return _Parts(
        (inner[:, :middle_inner], inner[:, middle_inner:]),
        (outer[:, :middle_outer], outer[:, middle_outer:]),
    )


def _crossed(evidence: Values, parts: _Parts) -> tuple[Values, Marks]:
    """Scores of the first half and then the second, (resamples, samples), and who is a member."""
    (first, first_member), (second, second_member) = parts.half(0), parts.half(1)
    of_first = log_odds(evidence[second], second_member, evidence[first])
    of_second = log_odds(evidence[first], first_member, evidence[second])
    ranks = [rankdata(found, axis=1) / found.shape[1] for found in (of_first, of_second)]
    return np.concatenate(ranks, axis=1), np.concatenate([first_member, second_member])


def _portions(resamples: int, evidence: Values) -> Iterator[int]:
    """Numbers of resamples that fit into memory together."""
    most = max(1, _AT_A_TIME // evidence.size)
    while resamples > 0:
        yield min(most, resamples)
        resamples -= most
