"""The membership study: what is trained at each scale, and how many shadow models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from quancrypt_fl.errors import ConfigError
from quancrypt_fl.experiments.cells import Cell, MeasuringCell
from quancrypt_fl.experiments.experiment import Plan
from quancrypt_fl.leakage.membership.federation import Federation
from quancrypt_fl.leakage.membership.summary import summarize_membership
from quancrypt_fl.leakage.membership.trial import measure_shadow, measure_target
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
        Shadow models; None: as the scale has it.
    """

    dataset: str
    federation: Federation
    members: int
    shadows: int | None = None

    name = "membership"

    @property
    def command(self) -> str:
        """What a user types."""
        return f"attack membership --dataset {self.dataset}"

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
        """The attacked trainings first, then the shadow models."""
        (seed,) = plan.seeds
        common = {
            "dataset": self.dataset,
            "federation": asdict(self.federation),
            "members": self.members,
            "seed": seed,
        }
        measured = partial(measure_target, plan.data_dir)
        found: list[Cell] = [
            MeasuringCell(
                f"target-{name}", name, measured, {**common, "view": asdict(view)}, seed=seed
            )
            for name, view in TARGETS.items()
        ]
        shadow = partial(measure_shadow, plan.data_dir)
        for number in range(self.shadows or _SHADOWS[plan.scale]):
            parameters = {**common, "shadow": number}
            found.append(MeasuringCell(f"shadow-{number}", "shadow", shadow, parameters, seed=seed))
        return found

    def config(self, plan: Plan) -> dict[str, Any]:
        """What was chosen, for the document."""
        return {
            "dataset": self.dataset,
            "scale": plan.scale,
            "members": self.members,
            "shadows": self.shadows or _SHADOWS[plan.scale],
            "federation": asdict(self.federation),
        }

    def summarize(self, plan: Plan, documents: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Tables, checks and the ``views`` of the contract."""
        (seed,) = plan.seeds
        return summarize_membership(documents, seed)


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
    if members is not None and not 20 <= members <= 20_000:
        raise ConfigError(f"members = {members}; allowed: 20 to 20,000")
    if shadows is not None and not 2 <= shadows <= 1000:
        raise ConfigError(f"shadows = {shadows}; allowed: 2 to 1,000")
    chosen = Federation(**{**asdict(federation), "model": model or usual})
    return MembershipStudy(
        dataset=dataset, federation=chosen, members=members or usual_members, shadows=shadows
    )
