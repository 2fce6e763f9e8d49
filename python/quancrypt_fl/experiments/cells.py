"""The smallest parts of an experiment: a cell runs once, in a folder of its own, and is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from quancrypt_fl.atomic_files import write_atomically
from quancrypt_fl.config import QuanCryptConfig
from quancrypt_fl.engines.simulation import Simulation
from quancrypt_fl.errors import CheckpointError
from quancrypt_fl.observer import Observer

__all__ = ["Cell", "MeasuringCell", "TrainingCell"]

_SCHEMA = 1


class Cell(Protocol):
    """One run or one measurement.

    Attributes
    ----------
    id
        Name of its folder.
    arm
        Line of the experiment's table to which it belongs.
    seed
        Its seed.
    """

    @property
    def id(self) -> str: ...
    @property
    def arm(self) -> str: ...
    @property
    def seed(self) -> int: ...

    @property
    def rounds(self) -> int:
        """Steps of its progress."""

    def finished(self, folder: Path) -> dict[str, Any] | None:
        """Its document, if an earlier run of exactly this cell has left one in ``folder``."""

    def run(self, folder: Path, observer: Observer) -> dict[str, Any]:
        """Run it, from where an interrupted run stopped, and return its document."""

    def describe(self) -> dict[str, Any]:
        """What it runs, for people and for the experiment's document."""


@dataclass(frozen=True)
class TrainingCell:
    """A federated run, in ``folder`` with its ``results.json``."""

    id: str
    arm: str
    config: QuanCryptConfig

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return self.config.seed

    @property
    def rounds(self) -> int:
        """Rounds of the run."""
        return self.config.rounds

    def finished(self, folder: Path) -> dict[str, Any] | None:
        """The document of ``results.json`` where its configuration is this one."""
        document = _read(folder / "results.json")
        try:
            made_with = QuanCryptConfig(**document["config"]) if document else None
        except (ValidationError, KeyError, TypeError):
            return None
        if made_with is None or made_with.rounds != self.config.rounds:
            return None
        return document if made_with.identity() == self.config.identity() else None

    def run(self, folder: Path, observer: Observer) -> dict[str, Any]:
        """Run, or go on from the last checkpoint if there is one of the same configuration."""
        config = self.config.model_copy(update={"out": folder})
        if (folder / "checkpoints").is_dir():
            try:
                return Simulation(config, resume=True, observer=observer).run()
            except CheckpointError:
                pass  # of another configuration, or damaged: from the beginning
        return Simulation(config, observer=observer).run()

    def describe(self) -> dict[str, Any]:
        """Fields of the configuration that are not defaults."""
        fields = self.config.model_dump(mode="json", exclude_defaults=True)
        return {name: value for name, value in fields.items() if name not in ("out", "data_dir")}


@dataclass(frozen=True)
class MeasuringCell:
    """A measurement, kept in ``measurement.json``.

    Attributes
    ----------
    measure
        From the parameters to the results, both ready for JSON. ``missing`` in the results says
        what could not be measured: it is tried again.
    parameters
        Everything that the results depend on, beside the machine.
    """

    id: str
    arm: str
    measure: Callable[[Mapping[str, Any]], dict[str, Any]]
    parameters: Mapping[str, Any]
    seed: int = 1
    rounds: int = 1

    def finished(self, folder: Path) -> dict[str, Any] | None:
        """The document of a measurement with the same parameters, in which nothing is missing.

        One whose results are not those that were written is measured again.
        """
        document = _read(folder / "measurement.json")
        results = None if document is None else document.get("results")
        if document is None or not isinstance(results, dict) or results.get("missing"):
            return None
        if document.get("sha256", digest := _digest(results)) != digest:
            return None
        same = all(document.get(key) == value for key, value in self._identity().items())
        return document if same else None

    def run(self, folder: Path, observer: Observer) -> dict[str, Any]:
        """Measure; a measurement that was interrupted begins again."""
        del observer
        results = json.loads(json.dumps(self.measure(self.parameters), allow_nan=False))
        document = {**self._identity(), "results": results, "sha256": _digest(results)}
        folder.mkdir(parents=True, exist_ok=True)
        data = json.dumps(document, indent=2, allow_nan=False).encode() + b"\n"
        write_atomically(folder / "measurement.json", data)
        return document

    def describe(self) -> dict[str, Any]:
        """The parameters."""
        return dict(self.parameters)

    def _identity(self) -> dict[str, Any]:
        parameters = json.loads(json.dumps(dict(self.parameters)))
        return {"schema": _SCHEMA, "cell": self.id, "seed": self.seed, "parameters": parameters}


def _digest(results: Mapping[str, Any]) -> str:
    """SHA-256 of results as JSON."""
    return hashlib.sha256(json.dumps(results, sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> dict[str, Any] | None:
    """A JSON object; None if there is none."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None
