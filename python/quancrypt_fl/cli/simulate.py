"""``quancrypt simulate``: one federated run in one process."""

from __future__ import annotations

from pathlib import Path

import typer

from quancrypt_fl.cli.config_options import config_from, with_config_options
from quancrypt_fl.cli.federated import JsonResults, Quiet, Resume, run_federation
from quancrypt_fl.cli.interrupts import interruptible_imports
from quancrypt_fl.cli.storage import check_folder

__all__ = ["simulate"]


@with_config_options
def simulate(
    context: typer.Context,
    resume: Resume = False,
    json_only: JsonResults = False,
    quiet: Quiet = False,
) -> None:
    """Train a model over simulated clients, with updates encrypted end to end.

    Writes results.json, plot.png, model.safetensors and a checkpoint per round into --out.
    """
    named = [context.params[name] for name in ("dataset", "model", "method")]
    config = config_from(context, out=context.params["out"] or Path("runs") / "-".join(named))
    assert config.out is not None
    check_folder(config.out)
    with interruptible_imports():
        from quancrypt_fl.engines.simulation import Simulation

    run_federation(
        lambda observer: Simulation(config, resume=resume, observer=observer),
        config,
        json_only=json_only,
        quiet=quiet,
    )
