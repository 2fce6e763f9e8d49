"""``quancrypt simulate``: one federated run in one process."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from quancrypt_fl.cli.config_options import config_from, with_config_options
from quancrypt_fl.cli.errors import CommandInterruptedError
from quancrypt_fl.cli.interrupts import MESSAGE, interruptible_imports
from quancrypt_fl.cli.storage import check_folder

__all__ = ["simulate"]

_OUTPUT = "Output"


@with_config_options
def simulate(
    context: typer.Context,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on from the last checkpoint in --out.", rich_help_panel=_OUTPUT
        ),
    ] = False,
    json_only: Annotated[
        bool,
        typer.Option("--json", help="Print only the results, as JSON.", rich_help_panel=_OUTPUT),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Print nothing.", rich_help_panel=_OUTPUT)
    ] = False,
) -> None:
    """Train a model over simulated clients, with updates encrypted end to end.

    Writes results.json, plot.png, model.safetensors and a checkpoint per round into --out.
    """
    named = [context.params[name] for name in ("dataset", "model", "method")]
    config = config_from(context, out=context.params["out"] or Path("runs") / "-".join(named))
    assert config.out is not None
    check_folder(config.out)
    with interruptible_imports():
        from quancrypt_fl.cli.progress import progress_observer
        from quancrypt_fl.cli.tables import print_run
        from quancrypt_fl.engines.simulation import Simulation
        from quancrypt_fl.observer import Observers

    with ExitStack() as stack:
        observer = stack.enter_context(progress_observer(silent=json_only or quiet))
        if config.tensorboard:
            from quancrypt_fl.tensorboard import TensorBoardObserver

            events = TensorBoardObserver(config.out / "tensorboard")
            observer = Observers(observer, events)
        simulation = Simulation(config, resume=resume, observer=observer)
        try:
            results = simulation.run()
        except KeyboardInterrupt as error:
            if not simulation.saved_rounds:
                raise
            raise CommandInterruptedError(
                f"{MESSAGE} after round {simulation.saved_rounds}; go on with --resume"
            ) from error
    if json_only:
        json.dump(results, sys.stdout, indent=2)
        print()
    elif not quiet:
        print_run(results, config.out)
