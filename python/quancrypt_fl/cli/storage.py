"""Files that commands read and write: no half-written output, none replaced without being asked."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path

from quancrypt_fl.atomic_files import write_atomically
from quancrypt_fl.cli.errors import CommandError
from quancrypt_fl.cli.text import printable

__all__ = ["check_folder", "check_output", "read", "warn_if_exposed", "write"]


MOST_FROM_A_PIPE = 2**30
"""Bytes. A file has a size that somebody chose to store; a pipe may never end."""


def read(path: Path) -> bytes:
    """The whole file, or what a pipe gives until it ends.

    Raises
    ------
    CommandError
        If it is absent, a folder or a device, cannot be read, or is a pipe that gives more than
        :data:`MOST_FROM_A_PIPE` bytes.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_ISREG(mode):
                return file.read()
            if not stat.S_ISFIFO(mode):
                raise CommandError(f"{path}: cannot be read: it is neither a file nor a pipe")
            data = file.read(MOST_FROM_A_PIPE + 1)
    except OSError as error:
        raise CommandError(f"{path}: cannot be read: {_reason(error)}") from error
    if len(data) > MOST_FROM_A_PIPE:
        raise CommandError(
            f"{path}: is a pipe that gives more than {MOST_FROM_A_PIPE:,} bytes; allowed: no more; "
            "save them to a file and name that"
        )
    return data


def warn_if_exposed(path: Path) -> None:
    """Say on standard error if other users of the machine can read or change a secret file.

    It is a warning: the file is sealed, and on some file systems modes cannot be set.
    """
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        message = f"quancrypt: {printable(path)}: other users can read it; chmod 600 it"
        print(message, file=sys.stderr)


def check_output(path: Path, *, force: bool, inputs: Iterable[Path | None] = ()) -> None:
    """Raise :class:`CommandError` unless ``path`` may be written, before any work is done for it.

    Parameters
    ----------
    path
        The file to be.
    force
        Whether an existing file may be replaced. Folders, links and devices never are.
    inputs
        Files that the command reads (None is skipped) or writes too: none of them is written over,
        whatever ``force`` says.
    """
    for other in inputs:
        if other is not None and _same(path, other):
            raise CommandError(f"{path}: is the same file as {other}; name another one to write")
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise CommandError(
                f"{path}: cannot be written: there is no folder {path.parent}"
            ) from None
        return
    except OSError as error:
        raise CommandError(f"{path}: cannot be written: {_reason(error)}") from error
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise CommandError(f"{path}: cannot be written: it is {what}")
    if not force:
        raise CommandError(f"{path}: exists already; --force replaces it")


def check_folder(out: Path) -> None:
    """Raise :class:`CommandError` unless ``out`` is a folder or can be made: before any work."""
    for path in (out, *out.parents):
        if path.exists():
            if not path.is_dir():
                raise CommandError(f"{path}: is a file; --out names a folder")
            return


def _same(one: Path, two: Path) -> bool:
    try:
        return one.samefile(two)
    except OSError:  # one of them does not exist yet, or cannot be read
        return os.path.realpath(one) == os.path.realpath(two)


def write(path: Path, data: bytes, *, force: bool = False, private: bool = False) -> None:
    """Write ``data`` so that ``path`` holds all of it or what it held before, whatever happens.

    Parameters
    ----------
    path, force
        See :func:`check_output`, which is applied again.
    data
        The content.
    private
        Mode 0600 from the moment of creation; otherwise what the umask leaves of 0666.
    """
    check_output(path, force=force)
    mode = 0o600 if private else 0o666
    try:
        write_atomically(path, data, mode=mode, replace=force)
    except FileExistsError:
        raise CommandError(f"{path}: exists already; --force replaces it") from None
    except OSError as error:
        raise CommandError(f"{path}: cannot be written: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
