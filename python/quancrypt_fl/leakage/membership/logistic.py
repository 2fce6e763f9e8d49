"""Logistic regression by Newton's method, for many small training sets at a time.

The same as scikit-learn's ``StandardScaler`` and ``LogisticRegression(C=0.1)`` one after the other,
with which a test compares it; resamples of an attack need thousands of fits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["log_odds"]

Values = NDArray[np.float64]
Marks = NDArray[np.bool_]

_C = 0.1  # inverse strength of the penalty |w|^2 / 2; the intercept is free
_STEPS = 100  # at most; 5 to 10 are usual
_ENOUGH = 1e-8  # largest change of a coefficient
_SHORTEST = 1e-6  # of a step, of Newton's whole one


def log_odds(known: Values, member: Marks, asked: Values) -> Values:
    """Log-odds of membership by a logistic regression on standardised features.

    Parameters
    ----------
    known
        Features of samples whose membership is known, (sets, samples, features): one regression
        for each set. Infinities count as 1e6, NaN as 0.
    member
        Who is a member, the same in every set, (samples,); both kinds occur.
    asked
        Features of others, (sets, others, features).

    Returns
    -------
    numpy.ndarray
        (sets, others).
    """
    known, asked = _finite(known), _finite(asked)
    mean, spread = known.mean(axis=1, keepdims=True), known.std(axis=1, keepdims=True)
    # What differs by rounding alone is constant, and says nothing.
    spread[spread <= 10 * np.finfo(np.float64).eps * np.abs(mean)] = 1.0
    coefficients = _fitted(_with_ones((known - mean) / spread), member)
    found = _with_ones((asked - mean) / spread) @ coefficients[..., None]
    return np.asarray(found[..., 0], dtype=np.float64)


def _fitted(inputs: Values, member: Marks) -> Values:
    """Coefficients, (sets, features + 1), the intercept last.

    Minimises ``|w|^2 / 2 + C sum_i log(1 + exp(-s_i (w x_i + b)))``, ``s_i`` 1 for members and -1
    for others. Newton's step is halved for those sets whose objective it would raise.
    """
    signs = np.where(member, 1.0, -1.0)
    penalty = np.ones(inputs.shape[-1])
    penalty[-1] = 0.0
    found = np.zeros((len(inputs), inputs.shape[-1]))
    for _ in range(_STEPS):
        margin = signs * (inputs @ found[..., None])[..., 0]
        wrong = 0.5 * (1 - np.tanh(margin / 2))  # probability of the other answer
        gradient = penalty * found - _C * ((signs * wrong)[:, None] @ inputs)[:, 0]
        weights = _C * wrong * (1 - wrong)
        hessian = inputs.transpose(0, 2, 1) @ (weights[..., None] * inputs) + np.diag(penalty)
        hessian[:, -1, -1] += np.finfo(np.float64).tiny  # all margins may be beyond exp
        step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
        length = np.ones((len(inputs), 1))
        before = _objective(inputs, signs, penalty, found)
        while True:
            after = _objective(inputs, signs, penalty, found - length * step)
            worse = (after > before + 1e-12 * np.abs(before)) & (length[:, 0] > _SHORTEST)
            if not worse.any():
                break
            length[worse] /= 2
        found = found - length * step
        if np.abs(length * step).max() < _ENOUGH:
            break
    return found


def _objective(inputs: Values, signs: Values, penalty: Values, found: Values) -> Values:
    margin = signs * (inputs @ found[..., None])[..., 0]
    losses = np.logaddexp(0.0, -margin).sum(axis=1)
    return np.asarray(_C * losses + (penalty * found**2).sum(axis=1) / 2, dtype=np.float64)


def _with_ones(features: Values) -> Values:
    ones = np.ones((*features.shape[:-1], 1))
    return np.concatenate([features, ones], axis=-1)


def _finite(values: Values) -> Values:
    return np.nan_to_num(values, nan=0.0, posinf=1e6, neginf=-1e6)
