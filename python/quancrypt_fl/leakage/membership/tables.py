"""Tables of the membership study, what must hold, and footnotes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quancrypt_fl.experiments.summary import check

__all__ = ["DELTA", "ROUND_1", "TRAININGS", "checks_of", "notes_of", "tables_of"]

Views = Sequence[Mapping[str, Any]]

DELTA = 1e-5
"""Of differential privacy."""

ROUND_1 = "updates, round 1"
"""The attack on updates that has those of the first round alone, as that on ciphertexts has."""

TRAININGS = {
    "clear": "in the clear",
    "layers": "pruned 50 %, clipped, 8 bits",
    "noise": "clipped to norm 1, noise 0.05",
}
"""Trainings that are attacked, for people."""

_WORKS = 0.6  # AUC of an attack that works
_HEAD = ("view", "training", "attack", "AUC", "95 % interval", "advantage (chance)",
         "TPR at 1 % FPR", "TPR at 0.1 % FPR")  # fmt: skip
_COSTS_HEAD = ("training", "accuracy on members", "test accuracy", "upload / float32", "epsilon")


def tables_of(views: Views) -> list[dict[str, Any]]:
    """What each attack got, and what the layers cost."""
    rows = [
        [
            item["view"],
            TRAININGS[item["training"]],
            item["attack"],
            f"{item['auc']:.3f}",
            f"{item['auc_ci'][0]:.3f} to {item['auc_ci'][1]:.3f}",
            f"{item['advantage']:.3f} ({item['advantage_at_chance']:.2f})",
            f"{item['tpr_at_fpr_0.01']:.3f}",
            f"{item['tpr_at_fpr_0.001']:.3f}",
        ]
        for item in views
    ]
    single = {item["training"]: item for item in views if item["view"] == "single"}
    costs = [
        [
            TRAININGS[training],
            f"{item['train_accuracy']:.1%}",
            f"{item['test_accuracy']:.1%}",
            f"{item['upload_bytes'] / item['float32_bytes']:.2f}",
            "–" if item["epsilon"] is None else f"{item['epsilon']:.0f}",
        ]
        for training, item in single.items()
    ]
    return [
        {"title": "Membership of a sample:", "head": list(_HEAD), "rows": rows, "left": 3},
        {"title": "What the layers cost:", "head": list(_COSTS_HEAD), "rows": costs, "left": 1},
    ]


def notes_of(shadows: Mapping[str, int]) -> list[str]:
    """Footnotes; ``shadows``: how many shadow models each training has."""
    counted = "; ".join(f"{shadows[key]} {said}" for key, said in TRAININGS.items())
    return [
        "Half of the pool was trained on. Intervals are percentiles of 1,000 bootstrap samples of "
        "members and of the others; of the attack on updates, which learns from the samples that "
        "it is judged by, every one of them is learned from anew within each half. These are wider "
        "than need be where there is little to learn.",
        "Advantage: the largest true minus false positive rate on these samples. In brackets what "
        "chance alone reaches in one of 20: 1,000 permutations of memberships.",
        "Models are overfitted on purpose. Shadow models are trained as the attacked one is, with "
        f"the same layers or noise, on other halves of the same pool: {counted}.",
        "The attack on updates knows the membership of half of the samples and is asked about the "
        "other half, and the reverse. On ciphertexts it reads the bytes of round 1 as numbers, of "
        "20 encryptions of each update, one at a time (their mean AUC is shown), and "
        f'knows the first global weights; "{ROUND_1}" has the same of updates in the clear.',
        "What chance gives to it: 99 % of 999 permutations of memberships among the samples of "
        "each client, with halves drawn and classifiers learned anew.",
        "epsilon: differential privacy of one client towards whoever sees sums and models, at "
        f"delta = {DELTA:g}; above 10 or so it promises next to nothing.",
        "With fewer than 1,000 non-members, a false positive rate of 0.1 % means none at all.",
    ]


def checks_of(views: Views) -> list[dict[str, Any]]:
    """What must hold; nothing of what was not measured."""
    found = []
    clear = [item for item in views if item["training"] == "clear"]
    if final := [item for item in clear if item["view"] == "final"]:
        best = max(final, key=lambda item: item["auc"])
        text, basis = "membership shows in an overfitted model", f"final model, {best['attack']}"
        found.append(_works(text, best, basis))
    for item in clear:
        if item["attack"] == ROUND_1:
            text = "the same attack on plaintext updates of round 1 works"
            found.append(_works(text, item, "single updates of round 1"))
    for item in clear:
        if item["view"] == "ciphertext":
            low, high = item["auc_at_chance"]
            found.append(
                check(
                    "ciphertexts tell nothing about membership",
                    "AUC within 99 % of what chance gives",
                    f"{item['auc']:.3f} (chance: {low:.2f} to {high:.2f})",
                    low <= item["auc"] <= high,
                    "ciphertexts of round 1",
                )
            )
    return found


def _works(text: str, item: Mapping[str, Any], basis: str) -> dict[str, Any]:
    auc = item["auc"]
    return check(text, f"AUC > {_WORKS}", f"{auc:.3f}", auc > _WORKS, basis)
