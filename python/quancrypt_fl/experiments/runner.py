"""Runs an experiment cell by cell, each in a folder of its own, and keeps what is finished.

``OUT/plan.json`` says what the folder belongs to, ``OUT/cells/ID/`` holds a cell. The same call
goes on where an earlier one stopped: finished cells are read, an interrupted one goes on from its
last round. Whatever happens, the files about the whole experiment are written from what there is.
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quancrypt_fl.atomic_files import write_atomically
from quancrypt_fl.data import load_dataset
from quancrypt_fl.errors import ConfigError
from quancrypt_fl.experiments.cells import Cell
from quancrypt_fl.experiments.experiment import Experiment, Plan
from quancrypt_fl.experiments.figures import draw_figure, drawable
from quancrypt_fl.experiments.tables import markdown
from quancrypt_fl.experiments.watcher import Watcher
from quancrypt_fl.observer import Observer
from quancrypt_fl.protect import native_environment
from quancrypt_fl.results import environment

__all__ = ["ExperimentRun"]

_SCHEMA = 1
_ERROR_FILE = "error.txt"


class ExperimentRun:
    """One experiment in one folder.

    Parameters
    ----------
    experiment
        What to run.
    plan
        Scale, seeds, device and data folder.
    out
        Folder for its files; made if it is not there.
    watcher
        Told about progress.

    Attributes
    ----------
    cells
        All cells, in order.
    finished
        Ids of the cells that are done.
    """

    def __init__(
        self, experiment: Experiment, plan: Plan, out: Path, watcher: Watcher | None = None
    ) -> None:
        self.cells: Sequence[Cell] = experiment.cells(plan)
        self._experiment, self._plan, self._out = experiment, plan, out
        self._watcher = watcher or Watcher()
        self._documents: dict[str, Mapping[str, Any]] = {}
        self._errors: dict[str, str] = {}
        self._seconds: dict[str, float] = {}

    @property
    def finished(self) -> list[str]:
        """In the order of the cells."""
        return [cell.id for cell in self.cells if cell.id in self._documents]

    def run(self) -> dict[str, Any]:
        """Run what is left; return the document of ``experiment.json``.

        A cell that fails is recorded with its error, and the others go on.

        Raises
        ------
        ConfigError
            If the folder belongs to another experiment, scale or data.
        DataError
            If a data set that is needed is absent or broken.
        """
        self._claim_folder()
        left = self._read_finished()
        self._watcher.started(self.cells, left)
        try:
            for cell in left:
                self._run_cell(cell)
        except KeyboardInterrupt:
            self._write(draw=False)
            raise
        document = self._write(draw=True)
        self._watcher.finished(document)
        return document

    def folder(self, cell: Cell) -> Path:
        """Where a cell's files are."""
        return self._out / "cells" / cell.id

    def _run_cell(self, cell: Cell) -> None:
        folder = self.folder(cell)
        observer = self._watcher.cell_started(cell)
        start = time.perf_counter()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            document = cell.run(folder, observer or Observer())
        except Exception as error:  # whatever it is, the other cells are worth having
            self._errors[cell.id] = f"{type(error).__name__}: {error}"
            (folder / _ERROR_FILE).write_text(traceback.format_exc(), encoding="utf-8")
            self._watcher.cell_failed(cell, self._errors[cell.id])
            return
        (folder / _ERROR_FILE).unlink(missing_ok=True)
        self._documents[cell.id] = document
        self._seconds[cell.id] = time.perf_counter() - start
        self._watcher.cell_finished(cell, document)

    def _read_finished(self) -> list[Cell]:
        left = []
        for cell in self.cells:
            document = cell.finished(self.folder(cell))
            if document is None:
                left.append(cell)
            else:
                self._documents[cell.id] = document
        return left

    def _claim_folder(self) -> None:
        """Check the data, and that earlier results in the folder are of the same kind."""
        choices = _choices(self._experiment, self._plan)
        claim = {
            "schema": _SCHEMA,
            "name": self._experiment.name,
            "scale": self._plan.scale,
            "device": self._plan.device,
            "data": self._data(),
            **choices,
        }
        path = self._out / "plan.json"
        if path.exists():
            try:
                earlier = json.loads(path.read_bytes())
            except ValueError:
                earlier = None
            if isinstance(earlier, dict) and "choices" not in earlier:  # by an earlier version
                earlier = {**earlier, **choices}
            if earlier != claim:
                raise ConfigError(
                    f"{path}: belongs to {_say(earlier)}, not to {_say(claim)}; "
                    "name another folder for --out"
                )
            return
        self._out.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(claim, indent=2).encode() + b"\n")

    def _data(self) -> dict[str, dict[str, int]]:
        """Images of each data set, all of them: what a cell may be limited to is in its config."""
        found = {}
        for name in self._experiment.datasets(self._plan.scale):
            dataset = load_dataset(name, self._plan.data_dir, self._plan.seeds[0])
            found[name] = {"train": len(dataset.train), "test": len(dataset.test)}
        return found

    def _write(self, *, draw: bool) -> dict[str, Any]:
        document = self._document()
        data = json.dumps(document, indent=2, allow_nan=False).encode() + b"\n"
        write_atomically(self._out / "experiment.json", data)
        write_atomically(self._out / "table.md", markdown(document).encode())
        if draw and drawable(document):
            for suffix in ("png", "svg"):
                draw_figure(document, self._out / f"figure.{suffix}")
        return document

    def _document(self) -> dict[str, Any]:
        experiment, plan = self._experiment, self._plan
        earlier = _earlier_seconds(self._out / "experiment.json")
        cells = [
            {
                "id": cell.id,
                "arm": cell.arm,
                "seed": cell.seed,
                "state": self._state(cell),
                "error": self._errors.get(cell.id),
                "seconds": self._seconds.get(cell.id, earlier.get(cell.id)),
                "runs": cell.describe(),
            }
            for cell in self.cells
        ]
        return {
            "schema": _SCHEMA,
            "name": experiment.name,
            "title": experiment.title,
            "question": experiment.question,
            "command": _command(experiment, plan),
            "scale": plan.scale,
            "seeds": list(plan.seeds),
            "device": plan.device,
            "data": json.loads((self._out / "plan.json").read_bytes())["data"],
            "complete": all(cell["state"] == "finished" for cell in cells),
            "cells": cells,
            "summary": experiment.summarize(plan, self._documents),
            "environment": {**environment(None), **native_environment()},
        }

    def _state(self, cell: Cell) -> str:
        if cell.id in self._documents:
            return "finished"
        return "failed" if cell.id in self._errors else "left"


def _command(experiment: Experiment, plan: Plan) -> str:
    """What a user types for it; studies that are no experiment by name say so."""
    if (command := getattr(experiment, "command", None)) is None:
        return f"quancrypt experiment {experiment.name}"
    seeded = "" if plan.seeds == (1,) else f" --seed {plan.seeds[0]}"
    return f"quancrypt {command}{seeded}"


def _choices(experiment: Experiment, plan: Plan) -> dict[str, Any]:
    """Of a study: what all its cells depend on, beside the rest of the claim."""
    choices = getattr(experiment, "choices", None)
    return {} if choices is None else {"choices": {"seed": plan.seeds[0], **choices}}


def _earlier_seconds(path: Path) -> dict[str, float]:
    """Seconds of cells that an earlier call has run."""
    try:
        cells = json.loads(path.read_bytes())["cells"]
        return {cell["id"]: cell["seconds"] for cell in cells if cell["seconds"] is not None}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _say(claim: Any) -> str:
    try:
        sizes = ", ".join(
            f"{name} with {size['train']:,} + {size['test']:,} images"
            for name, size in claim["data"].items()
        )
        words = f"{claim['name']} at scale {claim['scale']} on {claim['device']}"
        chosen = {k: v for k, v in claim.get("choices", {}).items() if v is not None}
        words += "".join(f", {name} {value}" for name, value in chosen.items())
    except (KeyError, TypeError, AttributeError):
        return "something else"
    return f"{words} ({sizes})" if sizes else words
