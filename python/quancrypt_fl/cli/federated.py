"""What the commands that run a federation have in common: options, progress, Ctrl-C, results."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from quancrypt_fl.cli.errors import CommandInterruptedError
from quancrypt_fl.cli.interrupts import MESSAGE, interruptible_imports

if TYPE_CHECKING:
    from quancrypt_fl.engines.federation import FederatedRun
    from quancrypt_fl.federation_config import FederationConfig
    from quancrypt_fl.observer import Observer

__all__ = ["JsonResults", "Quiet", "Resume", "run_federation"]

_OUTPUT = "Output"

Resume = Annotated[
    bool,
    typer.Option(
        "--resume", help="Go on from the last checkpoint in --out.", rich_help_panel=_OUTPUT
    ),
]
JsonResults = Annotated[
    bool, typer.Option("--json", help="Print only the results, as JSON.", rich_help_panel=_OUTPUT)
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing.", rich_help_panel=_OUTPUT)]


def run_federation(
    make: Callable[[Observer], FederatedRun],
    config: FederationConfig,
    *,
    json_only: bool,
    quiet: bool,
) -> None:
    """Run a federation, show how far it is, and print what came out.

    Parameters
    ----------
    make
        Makes the run, for an observer.
    config
        Its configuration; ``out`` is given.
    json_only, quiet
        Print only the results, or nothing.

    Raises
    ------
    CommandInterruptedError
        On Ctrl-C after a round that can be gone on from.
    """
    assert config.out is not None
    with interruptible_imports():
        from quancrypt_fl.cli.progress import progress_observer
        from quancrypt_fl.cli.tables import print_run
        from quancrypt_fl.observer import Observers

    with ExitStack() as stack:
        observer = stack.enter_context(progress_observer(silent=json_only or quiet))
        if config.tensorboard:
            from quancrypt_fl.tensorboard import TensorBoardObserver

            observer = Observers(observer, TensorBoardObserver(config.out / "tensorboard"))
        run = make(observer)
        try:
            results = run.run()
        except KeyboardInterrupt as error:
            if not run.saved_rounds:
                raise
            raise CommandInterruptedError(
                f"{MESSAGE} after round {run.saved_rounds}; go on with --resume"
            ) from error
    if json_only:
        json.dump(results, sys.stdout, indent=2)
        print()
    elif not quiet:
        print_run(results, config.out)
