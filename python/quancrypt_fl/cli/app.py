"""The application: one line per command, and one place where errors become a line on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from quancrypt_fl.cli.aggregate import aggregate
from quancrypt_fl.cli.attack import attack
from quancrypt_fl.cli.bench import bench
from quancrypt_fl.cli.client import client
from quancrypt_fl.cli.data import data
from quancrypt_fl.cli.decrypt import decrypt
from quancrypt_fl.cli.doctor import doctor
from quancrypt_fl.cli.encrypt import encrypt
from quancrypt_fl.cli.errors import CommandFailedError, CommandInterruptedError
from quancrypt_fl.cli.experiment import experiment
from quancrypt_fl.cli.export import export
from quancrypt_fl.cli.inspect import inspect
from quancrypt_fl.cli.interrupts import INTERRUPTED, MESSAGE
from quancrypt_fl.cli.keygen import keygen
from quancrypt_fl.cli.lm import lm
from quancrypt_fl.cli.passwd import passwd
from quancrypt_fl.cli.plan import plan
from quancrypt_fl.cli.provision import provision
from quancrypt_fl.cli.report import report
from quancrypt_fl.cli.rotate import rotate
from quancrypt_fl.cli.run import run as run_deployment
from quancrypt_fl.cli.server import server
from quancrypt_fl.cli.simulate import simulate
from quancrypt_fl.cli.text import printable
from quancrypt_fl.cli.typer_versions import UsageException
from quancrypt_fl.cli.watch import watch
from quancrypt_fl.errors import FederatedError
from quancrypt_native import QuanCryptError, __version__

__all__ = ["app", "run"]

FAILED = 1
USAGE_ERROR = 2
BROKEN_PIPE = 141  # as a shell reports a process that SIGPIPE ended

app = typer.Typer(
    name="quancrypt",
    help="Federated learning whose server adds updates that it cannot read.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,  # passphrases are locals
)
# In the order of use, which is the order of `quancrypt --help`.
app.command()(doctor)
app.command()(plan)
app.command()(data)
app.command()(simulate)
app.command()(experiment)
app.add_typer(attack, name="attack")
app.add_typer(lm, name="lm")
app.command()(provision)
app.command()(server)
app.command()(client)
app.command("run")(run_deployment)
app.command()(watch)
app.command()(report)
app.command()(export)
app.command()(keygen)
app.command()(encrypt)
app.command()(aggregate)
app.command()(decrypt)
app.command()(inspect)
app.command()(passwd)
app.command()(rotate)
app.command()(bench)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"quancrypt-native {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Options before the command."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (by default the process's own) and return the exit status.

    Expected errors become one line on stderr and status 2, or 1 for a training that failed;
    anything else is a defect and keeps its traceback.
    """
    try:
        status = app(args=arguments, standalone_mode=False)
        sys.stdout.flush()
    except UsageException as error:
        return _fail(error.format_message())
    except BrokenPipeError:
        # The reader of our output is gone; what is still buffered has nowhere to go at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except SystemExit as error:
        # Typer's own answer to a pipe that closes while a command prints: it asks to exit with 1.
        if not isinstance(error.__context__, BrokenPipeError):
            raise
        return BROKEN_PIPE
    except CommandInterruptedError as error:
        return _interrupted(str(error))
    except CommandFailedError as error:
        return _fail(str(error), FAILED)
    except OSError as error:
        return _fail(_describe(error))
    except (FederatedError, QuanCryptError) as error:
        return _fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    if status == INTERRUPTED:  # Typer turns KeyboardInterrupt into a silent exit
        return _interrupted()
    return status if isinstance(status, int) else 0


def _interrupted(message: str = MESSAGE) -> int:
    print(f"quancrypt: {printable(message)}", file=sys.stderr)
    return INTERRUPTED


def _describe(error: OSError) -> str:
    if error.filename is None or error.strerror is None:
        return str(error)
    return f"{os.fsdecode(error.filename)}: {error.strerror}"


def _fail(message: str, status: int = USAGE_ERROR) -> int:
    line = " ".join(message.split()) or "no command given; see quancrypt --help"
    print(f"quancrypt: {printable(line)}", file=sys.stderr)
    return status
