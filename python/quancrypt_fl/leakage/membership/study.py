"""The membership study: what is trained at each scale, and how many shadow models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from quancrypt_fl.data import load_dataset
from quancrypt_fl.errors import ConfigError, DataError
from quancrypt_fl.experiments.cells import Cell, MeasuringCell
from quancrypt_fl.experiments.experiment import Plan
from quancrypt_fl.leakage.membership.federation import Federation
from quancrypt_fl.leakage.membership.summary import shadow_key, summarize_membership
from quancrypt_fl.leakage.membership.trial import measure_shadow, measure_target, pool_labels
from quancrypt_fl.leakage.views import View
from quancrypt_fl.models import MODELS

__all__ = ["DATASETS", "TARGETS", "MembershipStudy", "membership_study"]

DATASETS = ("digits", "mnist", "fashion-mnist", "cifar10")

TARGETS: Mapping[str, View] = {
    "clear": View(kind="plaintext"),
    "layers": View(kind="all-layers", rate=0.5, clip=True, bits=8),
    "noise": View(kind="noise", noise=0.05),
}
"""Trainings that are attacked, by what is done to every update of theirs."""

_SHADOWS = {"quick": 16, "standard": 64, "paper": 256}
_FEWEST = 2
_FEWEST_MEMBERS = 20

# Trained far beyond what serves the test set: an attack that fails here proves nothing elsewhere.
_SETTINGS: Mapping[str, tuple[str, int, Federation]] = {
    "digits": ("mlp", 100, Federation(model="mlp", clients=5, rounds=10, local_epochs=30)),
    "mnist": ("cnn", 200, Federation(model="cnn", clients=5, rounds=10, local_epochs=6)),
    "fashion-mnist": ("cnn", 200, Federation(model="cnn", clients=5, rounds=10, local_epochs=6)),
    "cifar10": ("cnn", 400, Federation(model="cnn", clients=5, rounds=10, local_epochs=6)),
}


@dataclass(frozen=True, kw_only=True)
class MembershipStudy:
    """Membership inference on one data set; an experiment for the runner.

    Attributes
    ----------
    members
        Samples that are trained on; the pool holds as many others.
    shadows
        Shadow models that are trained in the clear; None: as the scale has it. Of each other
        training there are half as many, two at least: all of them are the larger part of the time.
    """

    dataset: str
    federation: Federation
    members: int
    shadows: int | None = None

    name = "membership"

    @property
    def command(self) -> str:
        """What a user types."""
        usual, members, _ = _SETTINGS[self.dataset]
        model = "" if self.federation.model == usual else f" --model {self.federation.model}"
        asked = "" if self.members == members else f" --members {self.members}"
        shadows = "" if self.shadows is None else f" --shadows {self.shadows}"
        return f"attack membership --dataset {self.dataset}{model}{asked}{shadows}"

    @property
    def choices(self) -> dict[str, Any]:
        """What all cells depend on, so that a folder is for one of it."""
        return {"model": self.federation.model, "members": self.members}

    @property
    def selection(self) -> tuple[str, ...]:
        """What was chosen, for the name of a folder."""
        usual, members, _ = _SETTINGS[self.dataset]
        model = () if self.federation.model == usual else (self.federation.model,)
        asked = () if self.members == members else (f"{self.members}-members",)
        shadows = () if self.shadows is None else (f"{self.shadows}-shadows",)
        return (*model, *asked, *shadows)

    @property
    def title(self) -> str:
        """A line for people."""
        return f"Membership inference, {self.dataset}, {self.federation.model}"

    @property
    def question(self) -> str:
        """What it answers."""
        return "Can it be told from each view of a training whether a sample was trained on?"

    def datasets(self, scale: str) -> tuple[str, ...]:
        """The one data set."""
        del scale
        return (self.dataset,)

    def cells(self, plan: Plan) -> list[Cell]:
        """The attacked trainings first, then shadow models of each of them.

        Those in the clear are named by a number alone and have no view in their parameters, so
        that cells stay valid which were finished when there were no others.
        """
        (seed,) = plan.seeds
        self._check_members(plan)
        common = {
            "dataset": self.dataset,
            "federation": asdict(self.federation),
            "members": self.members,
            "seed": seed,
        }
        measured = partial(measure_target, plan.data_dir, plan.device)
        found: list[Cell] = [
            MeasuringCell(
                f"target-{name}", name, measured, {**common, "view": view.described()}, seed=seed
            )
            for name, view in TARGETS.items()
        ]
        shadow = partial(measure_shadow, plan.data_dir, plan.device)
        for name, count in self._shadows(plan).items():
            key = shadow_key(name)
            protected = {} if name == "clear" else {"view": TARGETS[name].described()}
            for number in range(count):
                parameters = {**common, "shadow": number, **protected}
                found.append(MeasuringCell(f"{key}-{number}", key, shadow, parameters, seed=seed))
        return found

    def _check_members(self, plan: Plan) -> None:
        """Half of the pool is trained on, and the pool is of the training set."""
        try:
            there = len(load_dataset(self.dataset, plan.data_dir, plan.seeds[0]).train) // 2
        except DataError:
            return  # the runner says what is missing
        if self.members > there:
            raise ConfigError(
                f"members = {self.members}; allowed with {self.dataset} here: {_FEWEST_MEMBERS} to "
                f"{there:,}, half of the training set"
            )

    def _shadows(self, plan: Plan) -> dict[str, int]:
        """Number of shadow models of each training."""
        clear = self.shadows or _SHADOWS[plan.scale]
        fewer = max(_FEWEST, clear // 2)
        return {name: clear if name == "clear" else fewer for name in TARGETS}

    def config(self, plan: Plan) -> dict[str, Any]:
        """What was chosen, for the document."""
        return {
            "dataset": self.dataset,
            "scale": plan.scale,
            "members": self.members,
            "device": plan.device,
            "shadows": self._shadows(plan),
            "federation": asdict(self.federation),
        }

    def summarize(self, plan: Plan, documents: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Tables, checks and the ``views`` of the contract."""
        (seed,) = plan.seeds
        target = next((d for id_, d in documents.items() if id_.startswith("target-")), None)
        labels = None if target is None else pool_labels(plan.data_dir, target["parameters"])
        return summarize_membership(documents, labels, seed)


def membership_study(
    dataset: str,
    model: str | None = None,
    members: int | None = None,
    shadows: int | None = None,
) -> MembershipStudy:
    """A checked study.

    Raises
    ------
    ConfigError
        If a name is unknown or a number out of range: says what is allowed.
    """
    if dataset not in DATASETS:
        raise ConfigError(f"dataset = {dataset!r}; allowed: {', '.join(DATASETS)}")
    usual, usual_members, federation = _SETTINGS[dataset]
    if model is not None and model not in MODELS:
        raise ConfigError(f"model = {model!r}; allowed: {', '.join(MODELS)}")
    if members is not None and not _FEWEST_MEMBERS <= members <= 20_000:
        raise ConfigError(f"members = {members}; allowed: {_FEWEST_MEMBERS} to 20,000")
    if shadows is not None and not _FEWEST <= shadows <= 1000:
        raise ConfigError(f"shadows = {shadows}; allowed: 2 to 1,000")
    chosen = Federation(**{**asdict(federation), "model": model or usual})
    return MembershipStudy(
        dataset=dataset, federation=chosen, members=members or usual_members, shadows=shadows
    )
