"""What stops a command: one line for the user, exit status 2."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quancrypt_fl.errors import FederatedError
from quancrypt_native import QuanCryptError

__all__ = ["CommandError", "CommandInterruptedError", "naming"]


class CommandError(FederatedError, ValueError):
    """A file, an option or a passphrase does not allow what a command was asked to do."""


class CommandInterruptedError(FederatedError):
    """Ctrl-C, where there is more to say than that: exit status 130."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the file that is being worked on in front of an error of the native package."""
    try:
        yield
    except QuanCryptError as error:
        raise CommandError(f"{path}: {error}") from error
