"""Runs a study of this package with the runner of experiments, and writes its own files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from quancrypt_fl.atomic_files import write_atomically
from quancrypt_fl.experiments.experiment import Experiment, Plan
from quancrypt_fl.experiments.runner import ExperimentRun
from quancrypt_fl.experiments.watcher import Watcher

__all__ = ["Draw", "Study", "run_study"]

SCHEMA = 1

Draw = Callable[[Sequence[Mapping[str, Any]], Mapping[str, Any], Path], list[Path]]
"""Draws the documents of finished cells, and their summary, into files of a folder."""


class Study(Experiment, Protocol):
    """An experiment that knows what was chosen."""

    def config(self, plan: Plan) -> dict[str, Any]:
        """What was chosen, for the document."""


def run_study(
    study: Study,
    plan: Plan,
    folder: Path,
    key: str,
    draw: Draw,
    watcher: Watcher | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run what is left of a study; write ``NAME.json`` and pictures beside the runner's files.

    Parameters
    ----------
    study, plan, folder
        What to run and where; the plan has one seed.
    key
        Name of the list of figures: ``targets`` or ``views``.
    draw
        Draws the pictures.

    Returns
    -------
    tuple of dict
        The document of the contract, and that of ``experiment.json``.
    """
    run = ExperimentRun(study, plan, folder, watcher)
    experiment = run.run()
    found = (cell.finished(run.folder(cell)) for cell in run.cells)
    documents = [document for document in found if document is not None]
    summary = experiment["summary"]
    pictures = draw(documents, summary, folder) if documents else []
    (seed,) = plan.seeds
    document = {
        "schema": SCHEMA,
        "attack": study.name,
        "seed": seed,
        "config": study.config(plan),
        key: summary[key],
        "checks": summary["checks"],
        "complete": experiment["complete"],
        "pictures": [path.name for path in pictures],
        "environment": experiment["environment"],
    }
    data = json.dumps(document, indent=2, allow_nan=False).encode() + b"\n"
    write_atomically(folder / f"{study.name}.json", data)
    return document, experiment
