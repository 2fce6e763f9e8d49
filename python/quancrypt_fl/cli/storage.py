"""Files that commands read and write: no half-written output, none replaced without being asked."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path

from quancrypt_fl.cli.errors import CommandError

__all__ = ["check_output", "read", "write"]

_NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK}


def read(path: Path) -> bytes:
    """The whole file.

    Raises
    ------
    CommandError
        If it is absent, a folder, or cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise CommandError(f"{path}: cannot be read: {_reason(error)}") from error


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
    temporary = path.with_name(f".quancrypt-{secrets.token_hex(8)}.tmp")
    try:
        try:
            _create(temporary, data, 0o600 if private else 0o666)
            _move(temporary, path, force=force)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        raise CommandError(f"{path}: cannot be written: {_reason(error)}") from error


def _create(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _move(temporary: Path, path: Path, *, force: bool) -> None:
    if force:
        temporary.replace(path)
        return
    try:
        # Unlike a rename, a link fails if another process made the file in the meantime.
        path.hardlink_to(temporary)
    except FileExistsError:
        raise CommandError(f"{path}: exists already; --force replaces it") from None
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        check_output(path, force=False)
        temporary.replace(path)


def _sync_folder(folder: Path) -> None:
    """Make the new name durable, where the system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
