"""Scores of membership: the larger, the more likely a sample was trained on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from quancrypt_fl.leakage.membership.logistic import log_odds

__all__ = ["lira_offline", "lira_online", "loss_threshold", "shadow_classifier"]

Values = NDArray[np.float64]
Marks = NDArray[np.bool_]

_ENOUGH_OF_A_CLASS = 10  # members, and others, over all shadow models: fewer teach nothing
_SMALLEST_SPREAD = 1e-3
_FEW_SHADOWS = 32  # below, LiRA's variance is that of all samples together


def loss_threshold(loss: Values) -> Values:
    """Yeom et al. (CSF 2018): members have a small loss. Shape (samples,)."""
    return -loss


def shadow_classifier(
    shadow: Values, inside: Marks, target: Values, labels: NDArray[np.int64]
) -> Values:
    """Shokri et al. (S&P 2017): classifiers learn from shadow models whose members are known.

    One for each class of the samples; where shadow models have fewer than 10 members or 10 others
    of a class, the one that learned from all classes.

    Parameters
    ----------
    shadow, inside
        Evidence of shadow models about samples, (models, samples, features), and who was inside of
        each, (models, samples).
    target
        Evidence of the attacked model, (samples, features).
    labels
        Class of each sample, (samples,).
    """
    found = _learned(shadow, inside, target)
    for label in np.unique(labels):
        mine = labels == label
        marks = inside[:, mine]
        if min(marks.sum(), (~marks).sum()) >= _ENOUGH_OF_A_CLASS:
            found[mine] = _learned(shadow[:, mine], marks, target[mine])
    return found


def _learned(shadow: Values, inside: Marks, target: Values) -> Values:
    flat = shadow.reshape(1, -1, shadow.shape[-1])
    found: Values = log_odds(flat, inside.ravel(), target[None])[0]
    return found


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
