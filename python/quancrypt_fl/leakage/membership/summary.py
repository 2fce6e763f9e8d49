"""Figures of finished membership cells: every score on every view, tables, what must hold."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.experiments.summary import check
from quancrypt_fl.leakage.membership.scores import (
    Quality,
    auc_interval,
    learned_by_halves,
    lira_offline,
    lira_online,
    loss_threshold,
    quality,
    shadow_classifier,
)

__all__ = ["curves_of", "summarize_membership"]

Documents = Mapping[str, Mapping[str, Any]]
Scored = tuple[str, str, str, NDArray[np.float64], Mapping[str, Any]]

_OVERFITTED_AUC = 0.6
_CHANCE_LEVEL = 0.99
_HEAD = ("view", "training", "attack", "AUC", "95 % interval", "advantage", "TPR at 1 % FPR",
         "TPR at 0.1 % FPR")  # fmt: skip
_TRAININGS = {
    "clear": "in the clear",
    "layers": "pruned 50 %, clipped, 8 bits",
    "noise": "clipped to norm 1, noise 0.05",
}
_CURVE_POINTS = 200
_DELTA = 1e-5


def summarize_membership(documents: Documents, seed: int) -> dict[str, Any]:
    """The summary of an experiment of kind ``leakage``, from documents of finished cells by id."""
    views, curves = [], []
    for view, training, attack, score, target in _scored(documents, seed):
        member = np.array(target["member"])
        found = quality(score, member, seed)
        views.append(_view(view, training, attack, found, target))
        views[-1]["epsilon"] = _epsilon(documents[f"target-{training}"]["parameters"])
        if view == "ciphertext":
            low, high = auc_interval(score, member, seed, _CHANCE_LEVEL)
            views[-1]["auc_ci_99"] = [low, high]
        curves.append(_curve(view, training, attack, found))
    return {
        "kind": "leakage",
        "rows": views,
        "views": views,
        "tables": _tables(views, documents) if views else [],
        "checks": _checks(views),
        "notes": list(_NOTES) if views else [],
        "curves": curves,
        "figure": [],
    }


_NOTES = (
    "Half of the pool was trained on. Intervals are percentiles of 1,000 bootstrap samples of "
    "members and of the others.",
    "Models are overfitted on purpose. Shadow models are trained as the target is, on other halves "
    "of the same pool, in the clear.",
    "The attack on updates knows the membership of half of the samples and is asked about the "
    "other half, and the reverse. On ciphertexts it reads the bytes of round 1 as numbers, and "
    "knows the first global weights.",
    f"epsilon: differential privacy of one client towards whoever sees sums and models, at delta = "
    f"{_DELTA:g}; above 10 or so it promises next to nothing.",
    "With fewer than 1,000 non-members, a false positive rate of 0.1 % means none at all.",
)


def curves_of(summary: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """ROC curves for a plot: ``view``, ``training``, ``attack``, ``false``, ``true``."""
    return list(summary["curves"])


def _scored(documents: Documents, seed: int) -> Iterator[Scored]:
    """View, training, attack, scores of all samples, and the results of the target."""
    shadows = [d["results"] for id_, d in documents.items() if id_.startswith("shadow-")]
    for training in _TRAININGS:
        document = documents.get(f"target-{training}")
        if document is None:
            continue
        target = document["results"]
        for attack, score in _on_final_model(target, shadows):
            yield "final", training, attack, score, target
        losses = np.array(target["rounds"])
        yield "rounds", training, "loss", loss_threshold(losses.mean(axis=0)), target
        member = np.array(target["member"])
        for view, evidence in target["updates"].items():
            values = np.array(evidence)
            features = np.concatenate([values.mean(axis=1), values[:, -1]], axis=1)
            yield view, training, "updates", learned_by_halves(features, member, seed), target


def _on_final_model(
    target: Mapping[str, Any], shadows: list[Mapping[str, Any]]
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    facts = {name: np.array(values) for name, values in target["facts"].items()}
    yield "loss", loss_threshold(facts["loss"])
    if len(shadows) < 2:
        return
    inside = np.array([shadow["member"] for shadow in shadows])
    evidence = np.stack([_features(shadow["facts"]) for shadow in shadows])
    yield "shadow", shadow_classifier(evidence, inside, _features(target["facts"]))
    confidence = np.array([shadow["facts"]["confidence"] for shadow in shadows])
    yield "lira-online", lira_online(confidence, inside, facts["confidence"])
    yield "lira-offline", lira_offline(confidence, inside, facts["confidence"])


def _features(facts: Mapping[str, Any]) -> NDArray[np.float64]:
    """Largest probabilities, loss, and whether the answer is right, (samples, 5)."""
    return np.column_stack([np.array(facts["top"]), facts["loss"], facts["right"]])


def _view(
    view: str, training: str, attack: str, found: Quality, target: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "view": view,
        "training": training,
        "attack": attack,
        "auc": found.auc,
        "auc_ci": [found.low, found.high],
        "tpr_at_fpr_0.01": found.tpr[0],
        "tpr_at_fpr_0.001": found.tpr[1],
        "advantage": found.advantage,
        "test_accuracy": target["test_accuracy"],
        "train_accuracy": target["train_accuracy"],
        "upload_bytes": target["sent"].get(view, target["sent"]["single"]),
        "float32_bytes": target["float32"],
        "clients": target["clients"],
    }


def _epsilon(parameters: Mapping[str, Any]) -> float | None:
    """``epsilon`` of one client against those who see sums and models; None without noise.

    Zero-concentrated privacy of the Gaussian mechanism, clip 1: ``rho = rounds / (2 n sigma^2)``,
    ``epsilon = rho + 2 sqrt(rho log(1 / delta))`` (Bun and Steinke 2016, propositions 1.6 and 1.3).
    """
    noise, federation = parameters["view"]["noise"], parameters["federation"]
    if not noise:
        return None
    rho = federation["rounds"] / (2 * federation["clients"] * noise**2)
    return float(rho + 2 * math.sqrt(rho * math.log(1 / _DELTA)))


def _curve(view: str, training: str, attack: str, found: Quality) -> dict[str, Any]:
    false, true = found.curve
    kept = np.unique(np.linspace(0, len(false) - 1, _CURVE_POINTS).astype(int))
    return {
        "view": view,
        "training": training,
        "attack": attack,
        "auc": found.auc,
        "false": false[kept].tolist(),
        "true": true[kept].tolist(),
    }


def _tables(views: list[dict[str, Any]], documents: Documents) -> list[dict[str, Any]]:
    rows = [
        [
            item["view"],
            _TRAININGS[item["training"]],
            item["attack"],
            f"{item['auc']:.3f}",
            f"{item['auc_ci'][0]:.3f} to {item['auc_ci'][1]:.3f}",
            f"{item['advantage']:.3f}",
            f"{item['tpr_at_fpr_0.01']:.3f}",
            f"{item['tpr_at_fpr_0.001']:.3f}",
        ]
        for item in views
    ]
    costs = []
    for training, said in _TRAININGS.items():
        document = documents.get(f"target-{training}")
        if document is not None:
            results = document["results"]
            epsilon = _epsilon(document["parameters"])
            costs.append(
                [
                    said,
                    f"{results['train_accuracy']:.1%}",
                    f"{results['test_accuracy']:.1%}",
                    f"{results['sent']['single'] / results['float32']:.2f}",
                    "–" if epsilon is None else f"{epsilon:.0f}",
                ]
            )
    return [
        {"title": "Membership of a sample:", "head": list(_HEAD), "rows": rows, "left": 3},
        {
            "title": "What the layers cost:",
            "head": [
                "training",
                "accuracy on members",
                "test accuracy",
                "upload / float32",
                "epsilon",
            ],
            "rows": costs,
            "left": 1,
        },
    ]


def _checks(views: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    final = [v for v in views if v["view"] == "final" and v["training"] == "clear"]
    if final:
        best = max(final, key=lambda item: item["auc"])
        found.append(
            check(
                "membership shows in an overfitted model",
                f"AUC > {_OVERFITTED_AUC}",
                f"{best['auc']:.3f}",
                best["auc"] > _OVERFITTED_AUC,
                f"final model, {best['attack']}",
            )
        )
    for item in views:
        if item["view"] == "ciphertext":
            low, high = item["auc_ci_99"]
            found.append(
                check(
                    "ciphertexts tell nothing about membership",
                    "AUC 0.5 within its 99 % interval",
                    f"{item['auc']:.3f} ({low:.3f} to {high:.3f})",
                    low <= 0.5 <= high,
                    "ciphertexts of round 1",
                )
            )
    return found
