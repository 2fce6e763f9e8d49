"""What the built-in app can learn, by the name that kits and runs have for it.

Each kind brings its own libraries, on its own side: its modules are imported where they are needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.config import QuanCryptConfig
from quancrypt_fl.federation_config import FederationConfig
from quancrypt_fl.lm.config import FinetuneConfig

if TYPE_CHECKING:
    from flwr.app import Context

    from quancrypt_fl.flower.app.settings import RunSettings

__all__ = ["LEARNING", "Learning", "Site", "Start"]

Weights = Mapping[str, NDArray[np.float32]]


class Site(Protocol):
    """One client with its data, for one message."""

    @property
    def samples(self) -> int:
        """Number of training samples."""

    def train(self, weights: Weights, t: int) -> tuple[dict[str, NDArray[np.float32]], float]:
        """Trained weights that travel, and the mean loss; ``t`` counts rounds from 0."""

    def evaluate(self, weights: Weights) -> dict[str, int | float]:
        """``accuracy``, mean ``loss``, and over how many samples: ``num-examples``."""

    def write(self, folder: Path, weights: Weights) -> None:
        """Write the final model as its users load it, beside the store's ``model.safetensors``."""


@dataclass(frozen=True)
class Start:
    """What the server begins a training with.

    Attributes
    ----------
    weights
        Initial values of what travels.
    parameters, exchanged
        Numbers of values: of the whole model, and of what a client sends in a round.
    about
        What ``results.json`` names at its top.
    turns
        See :attr:`quancrypt_fl.method.fedavg.FedAvg.turns`.
    """

    weights: Weights
    parameters: int
    exchanged: int
    about: Mapping[str, Any]
    turns: tuple[frozenset[str], ...] = field(default=())


@dataclass(frozen=True)
class Learning:
    """One kind of what is learned.

    Attributes
    ----------
    config
        Class of the run's configuration.
    client, server
        Modules with ``site(context, settings)`` and ``check_initial(context, settings, weights)``,
        and with ``start(settings)``.
    writes
        Whether :meth:`Site.write` has something to do.
    """

    config: type[FederationConfig]
    client: str
    server: str
    writes: bool

    def site(self, context: Context, settings: RunSettings) -> Site:
        """The client of a message."""
        return cast("Site", import_module(self.client).site(context, settings))

    def check_initial(self, context: Context, settings: RunSettings, weights: Weights) -> None:
        """Raise ``RunRefusedError`` unless a training of this run begins with these weights."""
        import_module(self.client).check_initial(context, settings, weights)

    def start(self, settings: RunSettings) -> Start:
        """What a training begins with."""
        return cast("Start", import_module(self.server).start(settings))


_HERE = "quancrypt_fl.flower.app"

LEARNING: Mapping[str, Learning] = {
    "builtin": Learning(QuanCryptConfig, f"{_HERE}.images", f"{_HERE}.trainer", writes=False),
    "finetune": Learning(
        FinetuneConfig,
        f"{_HERE}.adapters",
        f"{_HERE}.first_adapter",
        writes=True,
    ),
}
"""By what ``app`` is called in kits: image classifiers, and adapters of language models."""
