"""The inversion study: which attacks meet which views at each scale, and what must hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from quancrypt_fl.errors import ConfigError
from quancrypt_fl.experiments.cells import Cell, MeasuringCell
from quancrypt_fl.experiments.experiment import Plan
from quancrypt_fl.leakage.inversion import ATTACKS
from quancrypt_fl.leakage.inversion.summary import summarize_inversion
from quancrypt_fl.leakage.inversion.target import Budget
from quancrypt_fl.leakage.inversion.trial import measure_inversion
from quancrypt_fl.leakage.inversion.views import (
    ALL_VIEWS,
    FEW_VIEWS,
    FEWEST_VIEWS,
    KINDS,
    REFERENCES,
    chosen_views,
)
from quancrypt_fl.leakage.networks import BATCH_STATISTICS, NETWORKS
from quancrypt_fl.leakage.views import View

__all__ = ["DATASETS", "InversionStudy", "inversion_study"]

DATASETS = ("digits", "mnist", "fashion-mnist", "cifar10")

_DEFAULT_NETWORKS = {"cifar10": ("lenet", "resnet18"), "digits": ("lenet", "cnn", "mlp")}
_SLOW = ("resnet18", "resnet18-batch", "alexnet")  # minutes an image on a CPU
_TV = 0.001  # larger ones blur more than they help in so few steps

_BUDGETS: Mapping[str, Mapping[str, Budget]] = {
    "quick": {
        "dlg": Budget(restarts=2, iterations=600),
        "cosine": Budget(restarts=1, iterations=300, tv=_TV),
        "analytic": Budget(restarts=1, iterations=300, tv=_TV),
    },
    "standard": {
        "dlg": Budget(restarts=2, iterations=800),
        "cosine": Budget(restarts=2, iterations=600, tv=_TV),
        "analytic": Budget(restarts=2, iterations=600, tv=_TV),
    },
    "paper": {
        "dlg": Budget(restarts=8, iterations=6000),
        "cosine": Budget(restarts=8, iterations=24_000, tv=0.1),
        "analytic": Budget(restarts=8, iterations=24_000, tv=_TV),
    },
}
"""At paper scale, the published budget: 8 restarts, 24,000 iterations, total variation 0.1."""

_SLOW_ITERATIONS = {"quick": 600, "standard": 800, "paper": 24_000}
_SLOW_RESTARTS = {"quick": 1, "standard": 1, "paper": 8}
_SLOW_IMAGES = {"quick": 1, "standard": 3, "paper": 20}
_IMAGES = {"quick": 3, "standard": 6, "paper": 100}
_IMAGES_OF_DIGITS = {"quick": 6, "standard": 12, "paper": 100}
_TIMES_REFERENCES = {"quick": 2, "standard": 4, "paper": 1}


@dataclass(frozen=True, kw_only=True)
class InversionStudy:
    """Gradient inversion of one data set; an experiment for the runner.

    Attributes
    ----------
    networks, attacks, kinds
        What to run; empty: the defaults of the data set, all attacks, all views.
    images
        Images for each cell; None: as the scale has it.
    """

    dataset: str = "digits"
    networks: tuple[str, ...] = ()
    attacks: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    images: int | None = None

    name = "inversion"

    @property
    def command(self) -> str:
        """What a user types."""
        given = [("model", self.networks), ("attack", self.attacks), ("view", self.kinds)]
        options = [f" --{name} {value}" for name, values in given for value in values]
        images = "" if self.images is None else f" --images {self.images}"
        return f"attack inversion --dataset {self.dataset}{''.join(options)}{images}"

    @property
    def choices(self) -> dict[str, Any]:
        """What all cells depend on, so that a folder is for one of it."""
        return {"images": self.images}

    @property
    def selection(self) -> tuple[str, ...]:
        """What is left out is not in the name of a folder."""
        images = () if self.images is None else (f"{self.images}-images",)
        return (*self.networks, *self.attacks, *self.kinds, *images)

    @property
    def title(self) -> str:
        """A line for people."""
        return f"Gradient inversion, {self.dataset}"

    @property
    def question(self) -> str:
        """What it answers."""
        return "How much of a training image can be drawn from each view of a client's update?"

    def datasets(self, scale: str) -> tuple[str, ...]:
        """The one data set."""
        del scale
        return (self.dataset,)

    def cells(self, plan: Plan) -> list[Cell]:
        """One for each network, attack and view."""
        (seed,) = plan.seeds
        measure = partial(measure_inversion, plan.data_dir, plan.device)
        found: list[Cell] = []
        for network in self.networks or _DEFAULT_NETWORKS.get(self.dataset, ("lenet", "cnn")):
            for attack in self.attacks or _attacks_on(network, plan.scale):
                for view in chosen_views(_views_of(self.dataset, network, plan.scale), self.kinds):
                    key = f"{self.dataset}-{network}-{attack}-{view.key}"
                    parameters = {
                        "dataset": self.dataset,
                        "network": network,
                        "attack": attack,
                        "view": view.described(),
                        "budget": asdict(_budget(network, attack, plan.scale)),
                        "images": self.images or _images(self.dataset, network, view, plan.scale),
                        "seed": seed,
                    }
                    found.append(MeasuringCell(key, key, measure, parameters, seed=seed))
        return found

    def config(self, plan: Plan) -> dict[str, Any]:
        """What was chosen, for the document."""
        return {
            "dataset": self.dataset,
            "scale": plan.scale,
            "device": plan.device,
            "networks": sorted({str(cell.describe()["network"]) for cell in self.cells(plan)}),
            "budgets": {name: asdict(b) for name, b in _BUDGETS[plan.scale].items()},
        }

    def summarize(self, plan: Plan, documents: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Tables, checks and the ``targets`` of the contract."""
        del plan
        return summarize_inversion(list(documents.values()))


def _attacks_on(network: str, scale: str) -> tuple[str, ...]:
    """By default. L-BFGS is for networks that are twice differentiable, which ReLU is not."""
    if network == "mlp":  # of which the analytic attack needs no search
        return ("analytic",)
    if network in _SLOW and scale != "paper":
        return ("cosine",)
    return tuple(ATTACKS) if network == "lenet" else ("cosine", "analytic")


def _views_of(dataset: str, network: str, scale: str) -> tuple[View, ...]:
    """All views where they take minutes; fewer where they would take hours."""
    if scale == "paper":
        return ALL_VIEWS
    if network in _SLOW:
        return FEWEST_VIEWS
    few = dataset == "cifar10" or (scale == "quick" and dataset != "digits")
    return FEW_VIEWS if few else ALL_VIEWS


def _budget(network: str, attack: str, scale: str) -> Budget:
    budget = _BUDGETS[scale][attack]
    if network not in _SLOW:
        return budget
    return replace(budget, iterations=_SLOW_ITERATIONS[scale], restarts=_SLOW_RESTARTS[scale])


def _images(dataset: str, network: str, view: View, scale: str) -> int:
    if network in _SLOW:
        return _SLOW_IMAGES[scale]
    usual = (_IMAGES_OF_DIGITS if dataset == "digits" else _IMAGES)[scale]
    return usual * (_TIMES_REFERENCES[scale] if view.kind in REFERENCES else 1)


def inversion_study(
    dataset: str,
    networks: Sequence[str] = (),
    attacks: Sequence[str] = (),
    kinds: Sequence[str] = (),
    images: int | None = None,
) -> InversionStudy:
    """A checked study.

    Raises
    ------
    ConfigError
        If a name is unknown or ``images`` is out of range: says what is allowed.
    """
    for what, given, allowed in (
        ("dataset", (dataset,), DATASETS),
        ("model", networks, NETWORKS),
        ("attack", attacks, tuple(ATTACKS)),
        ("view", kinds, KINDS),
    ):
        for name in given:
            if name not in allowed:
                raise ConfigError(f"{what} = {name!r}; allowed: {', '.join(allowed)}")
    if BATCH_STATISTICS in networks and dataset == "digits":
        raise ConfigError(
            f"model = {BATCH_STATISTICS!r} with dataset = 'digits': its last feature map has one "
            "pixel, of which there is no variance; allowed: larger images, or model = 'resnet18'"
        )
    if images is not None and not 1 <= images <= 1000:
        raise ConfigError(f"images = {images}; allowed: 1 to 1,000")
    return InversionStudy(
        dataset=dataset,
        networks=tuple(networks),
        attacks=tuple(attacks),
        kinds=tuple(kinds),
        images=images,
    )
