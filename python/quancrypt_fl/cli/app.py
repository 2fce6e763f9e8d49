"""The application: one line per command, and one place where errors become a line on stderr."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from quancrypt_fl.cli.simulate import simulate
from quancrypt_fl.errors import FederatedError
from quancrypt_fl.protect import QuanCryptError

__all__ = ["app", "run"]

USAGE_ERROR = 2
INTERRUPTED = 130

app = typer.Typer(
    name="quancrypt",
    help="Federated learning whose server adds updates that it cannot read.",
    no_args_is_help=True,
    add_completion=False,
)
app.command()(simulate)


@app.callback()
def _commands() -> None:
    """Keeps ``simulate`` a command of its own while it is the only one."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (by default the process's own) and return the exit status.

    Expected errors become one line on stderr and status 2; anything else is a defect and keeps its
    traceback.
    """
    try:
        status = app(args=arguments, standalone_mode=False)
    except typer.TyperException as error:
        return _fail(error.format_message())
    except (FederatedError, QuanCryptError, OSError) as error:
        return _fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        print("quancrypt: interrupted", file=sys.stderr)
        return INTERRUPTED
    return status if isinstance(status, int) else 0


def _fail(message: str) -> int:
    line = " ".join(message.split()) or "no command given; see quancrypt --help"
    print(f"quancrypt: {line}", file=sys.stderr)
    return USAGE_ERROR
