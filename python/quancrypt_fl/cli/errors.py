"""What stops a command: one line for the user, and an exit status, 2 unless it says otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quancrypt_fl.errors import FederatedError
from quancrypt_native import QuanCryptError

__all__ = ["CommandError", "CommandFailedError", "CommandInterruptedError", "naming"]


class CommandError(FederatedError, ValueError):
    """A file, an option or a passphrase does not allow what a command was asked to do."""


class CommandFailedError(FederatedError):
    """What a command set going did not succeed: exit status 1."""


class CommandInterruptedError(FederatedError):
    """Ctrl-C, where there is more to say than that: exit status 130."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the file that is being worked on in front of an error of the native package."""
    try:
        yield
    except QuanCryptError as error:
        raise CommandError(f"{path}: {error}") from error
