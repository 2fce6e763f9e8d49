"""What an experiment is: a question, and the cells that answer it at each scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from quancrypt_fl.config import CHOICES, QuanCryptConfig
from quancrypt_fl.errors import ConfigError
from quancrypt_fl.experiments.cells import Cell, TrainingCell
from quancrypt_fl.experiments.summary import summarize_accuracy

__all__ = ["SCALES", "AccuracyExperiment", "Arm", "Experiment", "Plan", "Requirement", "make_plan"]

SCALES = ("quick", "standard", "paper")
"""Minutes on two cores; about an hour; 300 rounds, for a GPU."""

_MAX_SEEDS = 1000


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the user of an experiment chooses."""

    scale: str = "quick"
    seeds: tuple[int, ...] = (1, 2, 3)
    device: str = "cpu"
    data_dir: Path | None = None


def make_plan(scale: str, seeds: int, device: str, data_dir: Path | None) -> Plan:
    """The plan with seeds 1 to ``seeds``.

    Raises
    ------
    ConfigError
        If the scale or the device is unknown, the device is not there, or the number of seeds is
        out of range: says what is allowed.
    """
    if scale not in SCALES:
        raise ConfigError(f"scale = {scale!r}; allowed: {', '.join(SCALES)}")
    if device not in CHOICES["device"]:
        raise ConfigError(f"device = {device!r}; allowed: {', '.join(CHOICES['device'])}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device = 'cuda' is not available here; available: cpu")
    if not 1 <= seeds <= _MAX_SEEDS:
        raise ConfigError(f"seeds = {seeds}; allowed: 1 to {_MAX_SEEDS:,}")
    return Plan(scale=scale, seeds=tuple(range(1, seeds + 1)), device=device, data_dir=data_dir)


class Experiment(Protocol):
    """A published table or figure, or a study that the paper leaves out.

    Attributes
    ----------
    name
        Name on the command line.
    title
        A line for people.
    question
        What it answers.
    group_heading, label_heading
        What the first two columns of its table hold.
    """

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def question(self) -> str: ...

    def datasets(self, scale: str) -> tuple[str, ...]:
        """Data sets that it needs, without which it cannot begin."""

    def cells(self, plan: Plan) -> list[Cell]:
        """All cells, in the order in which they run."""

    def summarize(self, plan: Plan, documents: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Rows, checks and notes, from the documents of finished cells by id."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One line of an accuracy table: a configuration that runs with every seed.

    Attributes
    ----------
    key
        Short and unique; part of folder names.
    group, label
        What the table's first two columns say. A group is a panel of the figure, a label a line.
    fields
        Fields of the configuration.
    against
        Key of the arm from which it is subtracted seed by seed, or None.
    published
        Published best accuracy in per cent, or None.
    x
        Place on the axis of the varied field, if it is a number.
    """

    key: str
    group: str
    label: str
    fields: Mapping[str, Any]
    against: str | None = None
    published: float | None = None
    x: float | None = None


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """What must hold: ``arm`` minus ``against``, mean over seeds, in points of best accuracy.

    Attributes
    ----------
    text
        What must hold, for people.
    arm, against
        Keys of arms.
    at_least
        Bound of the mean paired difference in points; with ``strictly``, it must be above.
    """

    text: str
    arm: str
    against: str
    at_least: float = 0.0
    strictly: bool = False


@dataclass(frozen=True, kw_only=True)
class AccuracyExperiment:
    """Federated runs whose accuracies are compared.

    Attributes
    ----------
    arms
        From a scale to its arms.
    requirements
        From a scale to what must hold.
    notes
        Footnotes of the table.
    axis
        Name of the varied field where arms have an ``x``: the figure then shows the best accuracy
        over it too.
    """

    name: str
    title: str
    question: str
    group_heading: str
    label_heading: str
    arms: Callable[[str], Sequence[Arm]]
    requirements: Callable[[str], Sequence[Requirement]] = field(default=lambda scale: ())
    notes: tuple[str, ...] = ()
    axis: str | None = None

    def datasets(self, scale: str) -> tuple[str, ...]:
        """In the order of the arms."""
        return tuple(dict.fromkeys(str(arm.fields["dataset"]) for arm in self.arms(scale)))

    def cells(self, plan: Plan) -> list[Cell]:
        """Seed by seed, so that an interrupted experiment has complete pairs."""
        return [
            TrainingCell(
                f"{arm.key}-seed-{seed}",
                arm.key,
                QuanCryptConfig(
                    **arm.fields, seed=seed, device=plan.device, data_dir=plan.data_dir
                ),
            )
            for seed in plan.seeds
            for arm in self.arms(plan.scale)
        ]

    def summarize(self, plan: Plan, documents: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """A row for each arm that has a finished cell."""
        runs: dict[str, dict[int, Mapping[str, Any]]] = {}
        for cell in self.cells(plan):
            if cell.id in documents:
                runs.setdefault(cell.arm, {})[cell.seed] = documents[cell.id]
        return {
            "kind": "accuracy",
            "group_heading": self.group_heading,
            "label_heading": self.label_heading,
            "axis": self.axis,
            **summarize_accuracy(self.arms(plan.scale), self.requirements(plan.scale), runs),
            "notes": list(self.notes),
        }
