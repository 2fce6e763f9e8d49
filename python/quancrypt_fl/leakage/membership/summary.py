"""Figures of finished membership cells: every score on every view."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.leakage.membership.federation import clients_of
from quancrypt_fl.leakage.membership.halves import (
    chance_by_halves,
    learned_by_halves,
    refitted_interval,
)
from quancrypt_fl.leakage.membership.quality import Quality, aucs, quality
from quancrypt_fl.leakage.membership.scores import (
    lira_offline,
    lira_online,
    loss_threshold,
    shadow_classifier,
)
from quancrypt_fl.leakage.membership.tables import (
    DELTA,
    ROUND_1,
    TRAININGS,
    checks_of,
    notes_of,
    tables_of,
)

__all__ = ["curves_of", "shadow_key", "summarize_membership"]

Documents = Mapping[str, Mapping[str, Any]]
Labels = NDArray[np.int64]
Values = NDArray[np.float64]

_CURVE_POINTS = 200
_FEWEST_SHADOWS = 2


@dataclass(frozen=True)
class _Scored:
    """One attack on one view: scores of all samples, and what they were learned from by halves.

    Of ciphertexts there are several features, one for each encryption; the AUC is their mean, and
    scores are those of the first.
    """

    view: str
    training: str
    attack: str
    score: Values
    features: Sequence[Values] | None = None


def summarize_membership(documents: Documents, labels: Labels | None, seed: int) -> dict[str, Any]:
    """The summary of an experiment of kind ``leakage``.

    Parameters
    ----------
    documents
        Of finished cells by id.
    labels
        Class of each sample of the pool; None: no target is finished.
    seed
        Decides halves and resamples.
    """
    views, curves = [], []
    for scored in _scored(documents, labels, seed):
        document = documents[f"target-{scored.training}"]
        found, at_chance = _judged(scored, document["results"], seed)
        views.append(_view(scored, found, at_chance, document))
        curves.append(_curve(scored, found))
    shadows = {training: len(_shadows(documents, training)) for training in TRAININGS}
    return {
        "kind": "leakage",
        "rows": views,
        "views": views,
        "tables": tables_of(views) if views else [],
        "checks": checks_of(views),
        "notes": notes_of(shadows) if views else [],
        "curves": curves,
        "figure": [],
    }


def curves_of(summary: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """ROC curves for a plot: ``view``, ``training``, ``attack``, ``false``, ``true``."""
    return list(summary["curves"])


def shadow_key(training: str) -> str:
    """What ids of the shadow models of a training begin with; a number follows."""
    return "shadow" if training == "clear" else f"shadow-{training}"


def _shadows(documents: Documents, training: str) -> list[Mapping[str, Any]]:
    """Results of the shadow models of a training."""
    key = shadow_key(training)
    return [d["results"] for id_, d in documents.items() if id_.rpartition("-")[0] == key]


def _scored(documents: Documents, labels: Labels | None, seed: int) -> Iterator[_Scored]:
    for training in TRAININGS:
        document = documents.get(f"target-{training}")
        if document is None or labels is None:
            continue
        target = document["results"]
        for attack, score in _on_final_model(target, _shadows(documents, training), labels):
            yield _Scored("final", training, attack, score)
        losses = np.array(target["rounds"])
        yield _Scored("rounds", training, "loss", loss_threshold(losses.mean(axis=0)))
        member = np.array(target["member"])
        for view, evidence in target["updates"].items():
            values = np.array(evidence)
            if view == "ciphertext":  # each encryption by itself
                draws = [values[:, number] for number in range(values.shape[1])]
                score = learned_by_halves(draws[0], member, seed)
                yield _Scored(view, training, "updates", score, draws)
                continue
            seen = [("updates", values)]
            if view == "single" and training == "clear":
                seen.append((ROUND_1, values[:, :1]))  # what the row of ciphertexts is held against
            for attack, rounds in seen:
                features = _update_features(rounds)
                score = learned_by_halves(features, member, seed)
                yield _Scored(view, training, attack, score, [features])


def _on_final_model(
    target: Mapping[str, Any], shadows: list[Mapping[str, Any]], labels: Labels
) -> Iterator[tuple[str, Values]]:
    facts = {name: np.array(values) for name, values in target["facts"].items()}
    yield "loss", loss_threshold(facts["loss"])
    if len(shadows) < _FEWEST_SHADOWS:
        return
    inside = np.array([shadow["member"] for shadow in shadows])
    evidence = np.stack([_model_features(shadow["facts"]) for shadow in shadows])
    asked = _model_features(target["facts"])
    yield "shadow", shadow_classifier(evidence, inside, asked, labels)
    confidence = np.array([shadow["facts"]["confidence"] for shadow in shadows])
    yield "lira-online", lira_online(confidence, inside, facts["confidence"])
    yield "lira-offline", lira_offline(confidence, inside, facts["confidence"])


def _model_features(facts: Mapping[str, Any]) -> Values:
    """Largest probabilities, loss, and whether the answer is right, (samples, 5)."""
    return np.column_stack([np.array(facts["top"]), facts["loss"], facts["right"]])


def _update_features(evidence: Values) -> Values:
    """From (samples, rounds, 3): the mean over rounds and the last, (samples, 6); of one round 3.

    The same for every view: with one round, mean and last are the same.
    """
    if evidence.shape[1] == 1:
        return evidence[:, 0]
    return np.concatenate([evidence.mean(axis=1), evidence[:, -1]], axis=1)


def _judged(
    scored: _Scored, target: Mapping[str, Any], seed: int
) -> tuple[Quality, list[float] | None]:
    """How good the scores are, and the 99 % interval of the AUC at chance where they were learned.

    What was learned from half of the samples that are judged is learned anew for every resample.
    """
    member = np.array(target["member"])
    found = quality(scored.score, member, seed)
    if scored.features is None:
        return found, None
    low, high = refitted_interval(scored.features, member, seed)
    client = clients_of(member, target["clients"])
    chance = chance_by_halves(scored.features[0], member, client, seed)
    scores = np.stack([learned_by_halves(one, member, seed) for one in scored.features])
    auc = float(aucs(scores, member).mean())
    found = replace(found, auc=auc, low=low, high=high, advantage_at_chance=chance.advantage)
    return found, [chance.low, chance.high]


def _view(
    scored: _Scored, found: Quality, at_chance: list[float] | None, document: Mapping[str, Any]
) -> dict[str, Any]:
    parameters, target = document["parameters"], document["results"]
    return {
        "dataset": parameters["dataset"],
        "model": parameters["federation"]["model"],
        "view": scored.view,
        "training": scored.training,
        "attack": scored.attack,
        "auc": found.auc,
        "auc_ci": [found.low, found.high],
        "auc_at_chance": at_chance,
        "tpr_at_fpr_0.01": found.tpr[0],
        "tpr_at_fpr_0.01_ci": list(found.tpr_interval),
        "tpr_at_fpr_0.001": found.tpr[1],
        "advantage": found.advantage,
        "advantage_at_chance": found.advantage_at_chance,
        "test_accuracy": target["test_accuracy"],
        "train_accuracy": target["train_accuracy"],
        "upload_bytes": target["sent"].get(scored.view, target["sent"]["single"]),
        "float32_bytes": target["float32"],
        "clients": target["clients"],
        "epsilon": _epsilon(parameters),
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
    return float(rho + 2 * math.sqrt(rho * math.log(1 / DELTA)))


def _curve(scored: _Scored, found: Quality) -> dict[str, Any]:
    """Ends, and the best point at each of false positive rates on a logarithmic grid."""
    false, true = found.curve
    smallest = false[false > 0][0]
    grid = np.geomspace(smallest, 1.0, _CURVE_POINTS)
    last = np.searchsorted(false, [0.0, *grid * (1 + 1e-9)], side="right") - 1
    kept = np.unique([0, *last, len(false) - 1])
    return {
        "view": scored.view,
        "training": scored.training,
        "attack": scored.attack,
        "auc": found.auc,
        "false": false[kept].tolist(),
        "true": true[kept].tolist(),
    }
