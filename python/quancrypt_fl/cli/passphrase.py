"""Where a passphrase comes from: a descriptor, the environment, or a hidden prompt.

Never an argument: other users of a machine can see those.
"""

from __future__ import annotations

import getpass
import os
import warnings
from pathlib import Path

from quancrypt_fl.cli.errors import CommandError

__all__ = [
    "NEW_VARIABLE",
    "VARIABLE",
    "check_descriptors",
    "passphrase_in",
    "read_new_passphrase",
    "read_passphrase",
]

VARIABLE = "QUANCRYPT_PASSPHRASE"
NEW_VARIABLE = "QUANCRYPT_NEW_PASSPHRASE"
_LONGEST = 65_536  # bytes; a descriptor that never ends must not fill the memory


def read_passphrase(path: Path, descriptor: int | None, *, new: bool = False) -> bytes:
    """The passphrase of a key file.

    Parameters
    ----------
    path
        The key file, for the prompt.
    descriptor
        ``--passphrase-fd``: its first line counts. It goes before ``QUANCRYPT_PASSPHRASE``, and
        that before a prompt.
    new
        Whether the file is about to be made: a prompt then asks twice.
    """
    return _read(f"Passphrase for {path}: ", "--passphrase-fd", descriptor, VARIABLE, twice=new)


def read_new_passphrase(what: str, descriptor: int | None, *, twice: bool = True) -> bytes:
    """A second passphrase, beside that of :func:`read_passphrase`.

    Parameters
    ----------
    what
        What it is for, for the prompt: ``"New passphrase for keys/secret.qck"``.
    descriptor
        ``--new-passphrase-fd``: its first line counts. It goes before
        ``QUANCRYPT_NEW_PASSPHRASE``, and that before a prompt.
    twice
        Whether a prompt asks twice: something is about to be sealed with it.
    """
    return _read(f"{what}: ", "--new-passphrase-fd", descriptor, NEW_VARIABLE, twice=twice)


def _read(prompt: str, option: str, descriptor: int | None, variable: str, *, twice: bool) -> bytes:
    if descriptor is not None:
        source = f"{option} {descriptor}"
        return _checked(_first_line(descriptor, source), source)
    if variable in os.environ:
        return _checked(os.fsencode(os.environ[variable]), variable)
    instead = f"set {variable} or give {option}"
    given = _checked(_ask(prompt, instead), "the passphrase")
    if twice and _ask("The same again: ", instead) != given:
        raise CommandError("the two passphrases differ")
    return given


def check_descriptors(one: int | None, two: int | None) -> None:
    """Raise CommandError if both passphrases are to come from one descriptor: a line is read with
    what follows it.
    """
    if one is not None and one == two:
        raise CommandError(
            f"--passphrase-fd and --new-passphrase-fd are both {one}; each needs its own"
        )


def passphrase_in(file: Path) -> bytes:
    """The passphrase that the first line of a file is."""
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except OSError as error:
        raise CommandError(f"{file}: cannot be read: {error.strerror}") from error
    try:
        return _checked(_first_line(descriptor, str(file)), str(file))
    finally:
        os.close(descriptor)


def _checked(passphrase: bytes, source: str) -> bytes:
    if not passphrase:
        raise CommandError(f"{source} is empty; a passphrase has at least one character")
    return passphrase


def _first_line(descriptor: int, source: str) -> bytes:
    line = bytearray()
    try:
        while b"\n" not in line and len(line) <= _LONGEST:
            block = os.read(descriptor, 4096)
            if not block:
                break
            line += block
    except OSError as error:
        raise CommandError(f"{source}: {error.strerror}") from error
    if len(line) > _LONGEST:
        raise CommandError(f"{source}: more than {_LONGEST} bytes")
    return bytes(line).partition(b"\n")[0].removesuffix(b"\r")


def _ask(prompt: str, instead: str) -> bytes:
    with warnings.catch_warnings():
        # Where it cannot turn the echo off, getpass warns and reads what everybody sees.
        warnings.simplefilter("error", getpass.GetPassWarning)
        try:
            return os.fsencode(getpass.getpass(prompt))
        except getpass.GetPassWarning:
            raise CommandError(
                f"there is no terminal to ask for the passphrase: {instead}"
            ) from None
        except EOFError:
            raise CommandError("no passphrase was given") from None
