"""From the results of runs to the lines of an accuracy table, its curves and its checks."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from quancrypt_fl.experiments.statistics import Interval, interval, paired_difference

if TYPE_CHECKING:
    from quancrypt_fl.experiments.experiment import Arm, Requirement

__all__ = ["check", "summarize_accuracy"]

Runs = Mapping[str, Mapping[int, Mapping[str, Any]]]
"""Documents of ``results.json`` by arm and seed."""

_PERCENT = 100.0


def check(
    text: str, required: str, measured: str, passed: bool | None, basis: str = ""
) -> dict[str, Any]:
    """One line of the checks: what must hold, what was measured; None passed if it was not."""
    return {
        "text": text,
        "required": required,
        "measured": measured,
        "passed": passed,
        "basis": basis,
    }


def summarize_accuracy(
    arms: Sequence[Arm], requirements: Sequence[Requirement], runs: Runs
) -> dict[str, Any]:
    """``rows`` and ``checks``; accuracies in per cent, differences in points.

    Parameters
    ----------
    arms
        Lines of the table; one without a run is left out.
    requirements
        What must hold; one that lacks runs is listed as not measured.
    runs
        Finished runs.
    """
    return {
        "rows": [_row(arm, runs) for arm in arms if runs.get(arm.key)],
        "checks": [_judge(requirement, runs) for requirement in requirements],
    }


def _row(arm: Arm, runs: Runs) -> dict[str, Any]:
    own = runs[arm.key]
    documents = list(own.values())
    against = runs.get(arm.against, {}) if arm.against else {}
    best, final = _best(own), _final(own)
    return {
        "arm": arm.key,
        "group": arm.group,
        "label": arm.label,
        "x": arm.x,
        "seeds": sorted(own),
        "rounds": documents[0]["totals"]["rounds"],
        "best_accuracy": interval(list(best.values())).as_dict(),
        "final_accuracy": interval(list(final.values())).as_dict(),
        "against": arm.against,
        "best_difference": _as_dict(paired_difference(best, _best(against))),
        "final_difference": _as_dict(paired_difference(final, _final(against))),
        "published_best_accuracy": arm.published,
        "upload_bytes_per_round": statistics.fmean(
            document["totals"]["bytes"]["upload"] / document["totals"]["rounds"]
            for document in documents
        ),
        "float32_update_bytes": documents[0]["totals"]["float32_update_bytes"],
        "curve": _curve(documents),
    }


def _curve(documents: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Accuracy over rounds: mean, smallest and largest over the seeds that got so far."""
    lists = [[r["test_accuracy"] * _PERCENT for r in d["rounds"]] for d in documents]
    length = max(len(values) for values in lists)
    columns = [[values[t] for values in lists if t < len(values)] for t in range(length)]
    return {
        "round": [float(t + 1) for t in range(length)],
        "mean": [statistics.fmean(column) for column in columns],
        "low": [min(column) for column in columns],
        "high": [max(column) for column in columns],
    }


def _judge(requirement: Requirement, runs: Runs) -> dict[str, Any]:
    relation = ">" if requirement.strictly else ">="
    required = f"{relation} {requirement.at_least:+.2f} points"
    difference = paired_difference(
        _best(runs.get(requirement.arm, {})), _best(runs.get(requirement.against, {}))
    )
    if difference is None:
        return check(requirement.text, required, "not measured", None)
    mean = difference.mean
    passed = mean > requirement.at_least if requirement.strictly else mean >= requirement.at_least
    half = difference.half_width
    spread = "" if half is None else f" ± {half:.2f}"
    basis = f"best accuracy, mean of {difference.count} paired differences"
    return check(requirement.text, required, f"{mean:+.2f}{spread} points", passed, basis)


def _best(runs: Mapping[int, Mapping[str, Any]]) -> dict[int, float]:
    return _totals(runs, "best_test_accuracy")


def _final(runs: Mapping[int, Mapping[str, Any]]) -> dict[int, float]:
    return _totals(runs, "test_accuracy")


def _totals(runs: Mapping[int, Mapping[str, Any]], key: str) -> dict[int, float]:
    return {seed: run["totals"][key] * _PERCENT for seed, run in runs.items()}


def _as_dict(value: Interval | None) -> dict[str, float | int | None] | None:
    return None if value is None else value.as_dict()
