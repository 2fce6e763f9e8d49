"""Scores of membership: the larger, the more likely a sample was trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_curve
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from quancrypt_fl.seeds import generator

__all__ = [
    "Quality",
    "auc_interval",
    "learned",
    "learned_by_halves",
    "lira_offline",
    "lira_online",
    "loss_threshold",
    "quality",
    "shadow_classifier",
]

Values = NDArray[np.float64]
Marks = NDArray[np.bool_]

_RESAMPLES = 1000
_SMALLEST_SPREAD = 1e-3
_FEW_SHADOWS = 32  # below, LiRA's variance is that of all samples together


def loss_threshold(loss: Values) -> Values:
    """Yeom et al. (CSF 2018): members have a small loss. Shape (samples,)."""
    return -loss


def shadow_classifier(shadow: Values, inside: Marks, target: Values) -> Values:
    """Shokri et al. (S&P 2017): a classifier learns from shadow models whose members are known.

    Parameters
    ----------
    shadow, inside
        Evidence of shadow models about samples, (models, samples, features), and who was inside of
        each, (models, samples).
    target
        Evidence of the attacked model, (samples, features).
    """
    flat = shadow.reshape(-1, shadow.shape[-1])
    return learned(flat, inside.ravel(), target)


def lira_online(confidence: Values, inside: Marks, target: Values) -> Values:
    """Likelihood ratio (Carlini et al., S&P 2022, algorithm 1), as a logarithm.

    ``log N(phi; mu_in, s_in) - log N(phi; mu_out, s_out)`` for each sample, with the means over
    shadow models that were, and were not, trained on it. With fewer than 32 models of a kind the
    spread is one number for all samples, as the authors do.

    Parameters
    ----------
    confidence, inside
        Logits of shadow models, and who was inside, both (models, samples).
    target
        Logits of the attacked model, (samples,).
    """
    mu_in, spread_in = _moments(confidence, inside)
    mu_out, spread_out = _moments(confidence, ~inside)
    ratio = norm.logpdf(target, mu_in, spread_in) - norm.logpdf(target, mu_out, spread_out)
    return np.asarray(ratio, dtype=np.float64)


def lira_offline(confidence: Values, inside: Marks, target: Values) -> Values:
    """LiRA with models that never saw the sample: how far above them the attacked one is.

    ``log P(N(mu_out, s_out) < phi)``: one-sided, as in the paper's section VI-B.
    """
    mu_out, spread_out = _moments(confidence, ~inside)
    return np.asarray(norm.logcdf(target, mu_out, spread_out), dtype=np.float64)


def _moments(confidence: Values, chosen: Marks) -> tuple[Values, Values]:
    """Mean and spread over the chosen models, for each sample."""
    count = chosen.sum(axis=0)
    shares = np.maximum(count, 1)
    mean = np.where(chosen, confidence, 0.0).sum(axis=0) / shares
    mean = np.where(count > 0, mean, confidence.mean())
    square = np.where(chosen, (confidence - mean) ** 2, 0.0)
    if len(confidence) < 2 * _FEW_SHADOWS:
        freedom = max(1, int(np.maximum(count - 1, 0).sum()))
        spread = np.full(mean.shape, np.sqrt(square.sum() / freedom))
    else:
        spread = np.sqrt(square.sum(axis=0) / np.maximum(count - 1, 1))
    return mean, np.maximum(spread, _SMALLEST_SPREAD)


def learned(known: Values, member: Marks, asked: Values) -> Values:
    """Log-odds of membership by a logistic regression on standardised features."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, C=0.1))
    classifier.fit(_finite(known), member)
    return np.asarray(classifier.decision_function(_finite(asked)), dtype=np.float64)


def learned_by_halves(evidence: Values, member: Marks, seed: int) -> Values:
    """An attacker who knows the membership of one half asks about the other, and the reverse.

    Scores are ranks in [0, 1] within each half, so that two classifiers can be compared.

    Parameters
    ----------
    evidence, member
        (samples, features) and (samples,).
    seed
        Decides the halves, each with half of the members and half of the others.
    """
    rng = generator(seed, "membership-halves")
    half = np.zeros(len(member), dtype=np.bool_)
    for kind in (True, False):
        places = rng.permutation(np.flatnonzero(member == kind))
        half[places[: len(places) // 2]] = True
    scores = np.empty(len(member))
    for asked in (half, ~half):
        found = learned(evidence[~asked], member[~asked], evidence[asked])
        scores[asked] = rankdata(found) / len(found)
    return scores


def _finite(values: Values) -> Values:
    return np.nan_to_num(values, nan=0.0, posinf=1e6, neginf=-1e6)


# --- how good a score is ---


@dataclass(frozen=True)
class Quality:
    """What a score achieves.

    Attributes
    ----------
    auc, low, high
        Area under the ROC curve with its 95 % bootstrap interval.
    advantage
        Largest true minus false positive rate over all thresholds (Yeom et al.).
    tpr
        True positive rate at false positive rates of 0.01 and 0.001.
    curve
        False and true positive rates, for the plot.
    """

    auc: float
    low: float
    high: float
    advantage: float
    tpr: tuple[float, float]
    curve: tuple[Values, Values]


def quality(score: Values, member: Marks, seed: int) -> Quality:
    """Judge a score against the truth, both of shape (samples,)."""
    false, true, _ = roc_curve(member, score)
    low, high = auc_interval(score, member, seed)
    rates = tuple(float(true[np.searchsorted(false, x, side="right") - 1]) for x in (0.01, 0.001))
    return Quality(
        _auc(score[member], score[~member]),
        low,
        high,
        float((true - false).max()),
        (rates[0], rates[1]),
        (false, true),
    )


def auc_interval(
    score: Values, member: Marks, seed: int, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap of the AUC: members and others are drawn anew, each by themselves."""
    rng = generator(seed, "auc-bootstrap")
    inner, outer = score[member], score[~member]
    drawn = [
        _auc(rng.choice(inner, len(inner)), rng.choice(outer, len(outer)))
        for _ in range(_RESAMPLES)
    ]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _auc(inner: Values, outer: Values) -> float:
    """Share of pairs in which the member has the larger score; a tie counts half."""
    ordered = np.sort(outer)
    below = np.searchsorted(ordered, inner, side="left")
    equal = np.searchsorted(ordered, inner, side="right") - below
    return float((below + equal / 2).mean() / len(outer))
