"""Published tables and figures, and studies that the paper leaves out, one command each.

>>> from quancrypt_fl.experiments import run_experiment
>>> run_experiment("ablation-dice", out="runs/dice")
Traceback (most recent call last):
    ...
quancrypt_fl.errors.ConfigError: no experiment 'ablation-dice'; there are: mnist-clients, ...
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quancrypt_fl.experiments.watcher import Watcher

__all__ = ["run_experiment"]


def run_experiment(
    name: str,
    *,
    out: str | os.PathLike[str],
    scale: str = "quick",
    data_dir: str | os.PathLike[str] | None = None,
    seeds: int = 3,
    device: str = "cpu",
    watcher: Watcher | None = None,
) -> dict[str, Any]:
    """Run an experiment, or what is left of it, and return the document of ``experiment.json``.

    Parameters
    ----------
    name
        One of ``quancrypt_fl.experiments.catalogue.EXPERIMENTS``.
    out
        Folder for its files. Finished cells in it are not run again.
    scale
        ``"quick"`` (minutes on two cores), ``"standard"`` (about an hour) or ``"paper"`` (300
        rounds, for a GPU).
    data_dir
        Folder of the data sets.
    seeds
        Number of seeds: 1, 2, ...
    device
        ``"cpu"`` or ``"cuda"``.
    watcher
        Told about progress.

    Raises
    ------
    ConfigError
        If a name is unknown, or the folder belongs to something else.
    DataError
        If a data set is absent or broken.
    """
    from quancrypt_fl.experiments.catalogue import find_experiment
    from quancrypt_fl.experiments.experiment import make_plan
    from quancrypt_fl.experiments.runner import ExperimentRun

    experiment = find_experiment(name)
    plan = make_plan(scale, seeds, device, None if data_dir is None else Path(data_dir))
    return ExperimentRun(experiment, plan, Path(out), watcher).run()
