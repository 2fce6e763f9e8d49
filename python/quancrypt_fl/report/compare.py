"""What runs have in common and what they differ in; runs that differ in their seed form a group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from quancrypt_fl.report.runs import Run

__all__ = ["Comparison", "Group", "compare"]

ABSENT = "–"
_FIRST = ("method", "dataset", "model", "clients", "bits", "partition")
_LAST = ("rounds", "max_weight", "threads", "batch_size", "local_epochs", "seed")
"""Fields that often follow from others: a label names them only where nothing else tells."""
_LABEL_LENGTH = 60


@dataclass(frozen=True, slots=True)
class Group:
    """Runs with one configuration and any seed, in order of their names.

    Attributes
    ----------
    label
        What tells the group from the others, as short as possible.
    """

    label: str
    runs: tuple[Run, ...]

    @property
    def accuracies(self) -> list[float]:
        """Final test accuracies of the runs that have one."""
        return [run.final_accuracy for run in self.runs if run.final_accuracy is not None]

    @property
    def mean_accuracy(self) -> float | None:
        """Their mean, if there is one."""
        return mean(self.accuracies) if self.accuracies else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation of the final test accuracy over seeds; None for one run."""
        return stdev(self.accuracies) if len(self.accuracies) > 1 else None


@dataclass(frozen=True, slots=True)
class Comparison:
    """The fields of several mappings, such as configurations.

    Attributes
    ----------
    differing
        Names of fields that are not equal everywhere, in order.
    shared
        The others, with their values.
    """

    differing: tuple[str, ...]
    shared: Mapping[str, str]


def compare(fields: Sequence[Mapping[str, str]]) -> Comparison:
    """Compare mappings; a field that one of them lacks differs."""
    names = list(dict.fromkeys(name for values in fields for name in values))
    differing = tuple(
        name for name in names if len({values.get(name, ABSENT) for values in fields}) > 1
    )
    shared = {name: fields[0][name] for name in names if name not in differing}
    return Comparison(differing, shared)


def groups_of(runs: Sequence[Run]) -> list[Group]:
    """Groups in order of their first run."""
    members: dict[tuple[tuple[str, str], ...], list[Run]] = {}
    for run in runs:
        key = tuple(sorted((k, v) for k, v in run.config.items() if k != "seed"))
        # Two runs of one seed are no sample of two seeds: the second one starts a group.
        while any(other.seed == run.seed for other in members.get(key, ())):
            key = (*key, ("again", ""))
        members.setdefault(key, []).append(run)
    found = list(members.values())
    return [
        Group(label, tuple(group))
        for label, group in zip(_labels([group[0] for group in found]), found, strict=True)
    ]


def _labels(runs: Sequence[Run]) -> list[str]:
    """Labels of runs: the method, and fields that tell runs apart which it leaves alike."""
    configs = [run.config for run in runs]
    differing = [name for name in compare(configs).differing if name != "seed"]
    order = [name for name in _FIRST if name in differing and name != "method"]
    order += [name for name in differing if name not in (*_FIRST, *_LAST)]
    order += [name for name in _LAST if name in differing]
    parts: list[tuple[str, ...]] = [(run.method,) for run in runs]
    for name in order:
        values: dict[tuple[str, ...], set[str]] = {}
        for part, config in zip(parts, configs, strict=True):
            values.setdefault(part, set()).add(config.get(name, ABSENT))
        parts = [
            (*part, _part(name, config.get(name, ABSENT))) if len(values[part]) > 1 else part
            for part, config in zip(parts, configs, strict=True)
        ]
    labels = [" · ".join(part) for part in parts]
    if len(set(labels)) < len(labels):
        labels = [f"{label} · {run.name}" for label, run in zip(labels, runs, strict=True)]
    return [x if len(x) <= _LABEL_LENGTH else f"{x[: _LABEL_LENGTH - 1]}…" for x in labels]


def _part(name: str, value: str) -> str:
    if name in ("dataset", "model", "partition", "method"):
        return value
    words = name.replace("_", " ")
    match value:
        case "yes":
            return words
        case "no":
            return f"no {words}"
    if name not in ("clients", "bits", "rounds"):
        return f"{words} {value}"
    return f"{value} {words.removesuffix('s') if value == '1' else words}"
