"""Scores of membership on made-up models whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from quancrypt_fl.leakage.membership.scores import (
    auc_interval,
    learned_by_halves,
    lira_offline,
    lira_online,
    loss_threshold,
    quality,
    shadow_classifier,
)

SAMPLES, MODELS = 400, 20


@pytest.fixture(scope="module")
def made_up() -> dict[str, np.ndarray]:
    """Logits of shadow models: each sample has its own difficulty, and members gain 1.5."""
    rng = np.random.default_rng(4)
    difficulty = rng.normal(0, 4, SAMPLES)
    inside = rng.random((MODELS, SAMPLES)) < 0.5
    confidence = difficulty + 1.5 * inside + rng.normal(0, 0.7, (MODELS, SAMPLES))
    member = np.arange(SAMPLES) % 2 == 0
    target = difficulty + 1.5 * member + rng.normal(0, 0.7, SAMPLES)
    return {"inside": inside, "confidence": confidence, "member": member, "target": target}


def test_likelihood_ratio_knows_how_difficult_a_sample_is(made_up: dict[str, np.ndarray]) -> None:
    """Of one sample it needs to know what other models say: a threshold on the loss does not."""
    inside, confidence, target = (made_up[k] for k in ("inside", "confidence", "target"))
    member = made_up["member"]
    online = quality(lira_online(confidence, inside, target), member, 1)
    offline = quality(lira_offline(confidence, inside, target), member, 1)
    simple = quality(loss_threshold(-target), member, 1)
    assert simple.auc < 0.7
    assert online.auc == pytest.approx(float(norm.cdf(1.5 / (0.7 * np.sqrt(2)))), abs=0.05)
    assert offline.auc > 0.85
    assert online.tpr[0] > 3 * simple.tpr[0]


def test_a_shadow_classifier_learns_from_shadows(made_up: dict[str, np.ndarray]) -> None:
    rng = np.random.default_rng(5)
    inside, member = made_up["inside"], made_up["member"]
    shadow = np.stack([inside + rng.normal(0, 1, inside.shape), rng.normal(0, 1, inside.shape)], 2)
    target = np.column_stack([member + rng.normal(0, 1, SAMPLES), rng.normal(0, 1, SAMPLES)])
    found = quality(shadow_classifier(shadow, inside, target), member, 1)
    assert found.auc == pytest.approx(float(norm.cdf(1 / np.sqrt(2))), abs=0.06)


def test_an_attacker_who_learns_by_halves_cheats_nobody() -> None:
    """Fifty features without meaning: over many trials the mean AUC is one half."""
    member = np.arange(100) % 2 == 0
    found = []
    for seed in range(30):
        noise = np.random.default_rng(seed).normal(size=(100, 50))
        found.append(quality(learned_by_halves(noise, member, seed), member, seed).auc)
    assert np.mean(found) == pytest.approx(0.5, abs=0.05)
    told = np.column_stack([member + 0.1 * np.random.default_rng(0).normal(size=100)] * 2)
    assert quality(learned_by_halves(told, member, 1), member, 1).auc > 0.99


def test_quality_of_known_scores() -> None:
    member = np.array([True] * 4 + [False] * 4)
    perfect = quality(np.arange(8.0)[::-1].copy(), member, 1)
    assert (perfect.auc, perfect.advantage, perfect.tpr) == (1.0, 1.0, (1.0, 1.0))
    assert (perfect.low, perfect.high) == (1.0, 1.0)
    equal = quality(np.zeros(8), member, 1)
    assert (equal.auc, equal.advantage) == (0.5, 0.0)
    mixed = quality(np.array([4.0, 3.0, 1.0, 0.0, 2.0, 0.5, -1.0, -2.0]), member, 1)
    assert mixed.auc == pytest.approx((4 + 4 + 3 + 2) / 16)
    assert mixed.tpr == (0.5, 0.5)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    member = np.arange(120) % 2 == 0
    truth = float(norm.cdf(0.5 / np.sqrt(2)))
    held = 0
    for seed in range(40):
        score = np.random.default_rng(seed).normal(0.5 * member, 1)
        low, high = auc_interval(score, member, seed)
        held += low <= truth <= high
    assert held >= 34


def test_broken_evidence_is_no_error() -> None:
    """A model that diverged gives infinities."""
    member = np.arange(40) % 2 == 0
    values = np.random.default_rng(1).normal(size=(40, 3))
    values[3, 1], values[5, 2] = np.inf, np.nan
    assert np.isfinite(learned_by_halves(values, member, 1)).all()
