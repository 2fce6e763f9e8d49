"""Writing a file so that it holds its old content or the new one, whatever stops the writer.

The bytes go into a hidden file of the same folder and are made durable there; a rename gives them
their name, and the folder is made durable last. A writer that is killed leaves at most that hidden
file. Its lock ends with it, so the next writer of the same file knows it for a leftover and removes
it; :func:`remove_leftovers` does so for a whole folder.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import secrets
import stat
from contextlib import suppress
from pathlib import Path

__all__ = ["is_temporary", "keep_as", "remove_leftovers", "sync_folder", "write_atomically"]

_TEMPORARY = re.compile(r"\.quancrypt-[0-9a-f]{16}-[0-9a-f]{16}\.tmp")
_NOT_SUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EROFS)
_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EXDEV, errno.EMLINK)


def write_atomically(
    path: Path,
    data: bytes | bytearray | memoryview,
    *,
    mode: int = 0o666,
    replace: bool = True,
    durable_name: bool = True,
) -> None:
    """Make ``path`` hold ``data``.

    Parameters
    ----------
    path
        The file. Its folder exists.
    data
        All of its content.
    mode
        Permissions from the moment of creation; the umask may take more away.
    replace
        False: an existing file stays, and is a FileExistsError, also if another process makes it
        meanwhile (where the file system has no hard links, that moment stays open).
    durable_name
        False: the caller makes the folder durable, see :func:`sync_folder`; until then a power
        failure may bring the old content back.

    Raises
    ------
    OSError
        ``path`` holds what it held before. An error where the folder is made durable, and no
        other, comes after the rename: the new content is there, and may not outlive a power
        failure.
    """
    prefix = _prefix(path.name)
    _remove(path.parent, prefix)
    temporary, opened = _created(path.parent, prefix, mode)
    try:
        try:
            _write(opened, data)
            os.fsync(opened)
            if replace:
                temporary.replace(path)
            else:
                _link(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        if not replace:
            with suppress(OSError):
                temporary.unlink()
    finally:
        os.close(opened)
    if durable_name:
        sync_folder(path.parent)


def keep_as(path: Path, kept: Path) -> None:
    """Make ``kept`` hold what ``path`` holds, also after ``path`` is replaced. It is durable then.

    Parameters
    ----------
    path
        A file.
    kept
        Another name in the same folder; it may be there already, with the same content.

    Raises
    ------
    FileExistsError
        If ``kept`` holds something else.
    OSError
        ``kept`` is absent, then, or whole.
    """
    try:
        try:
            kept.hardlink_to(path)
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            mode = stat.S_IMODE(path.stat().st_mode)
            write_atomically(kept, path.read_bytes(), mode=mode, replace=False)
    except FileExistsError:
        if kept.read_bytes() != path.read_bytes():
            raise
    sync_folder(kept.parent)


def sync_folder(folder: Path) -> None:
    """Return when the names in a folder are durable, where the file system can do that."""
    try:
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:  # a folder to write into, not to list
        return
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
    finally:
        os.close(opened)


def is_temporary(name: str) -> bool:
    """Whether a file of this name is one that :func:`write_atomically` writes into."""
    return _TEMPORARY.fullmatch(name) is not None


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writers left behind; a file that is being written now stays."""
    _remove(folder, ".quancrypt-")


def _prefix(name: str) -> str:
    """A hash, for a name may be as long as the file system allows."""
    return f".quancrypt-{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}-"


def _created(folder: Path, prefix: str, mode: int) -> tuple[Path, int]:
    """A new file of our own, locked while it is open."""
    while True:
        path = folder / f"{prefix}{secrets.token_hex(8)}.tmp"
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        if _locked(opened) is not False and os.fstat(opened).st_nlink:
            return path, opened
        # Somebody took it for a leftover before it was locked.
        os.close(opened)
        with suppress(OSError):
            path.unlink()


def _remove(folder: Path, prefix: str) -> None:
    try:
        with os.scandir(folder) as entries:
            found = [folder / e.name for e in entries if e.name.startswith(prefix)]
    except OSError:
        return  # what is wrong with the folder shows in the attempt to write
    for path in found:
        if not is_temporary(path.name):
            continue
        with suppress(OSError):  # gone, or not ours to remove
            opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if _locked(opened) is True:
                    path.unlink()
            finally:
                os.close(opened)


def _locked(opened: int) -> bool | None:
    """Whether this process has the file's lock now; None where there are no locks."""
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _write(opened: int, data: bytes | bytearray | memoryview) -> None:
    """All of it: a call takes at most 2 GiB."""
    view = memoryview(data).cast("B")
    while view:
        view = view[os.write(opened, view) :]


def _link(temporary: Path, path: Path) -> None:
    """Unlike a rename, a link fails if there is a file of that name."""
    try:
        path.hardlink_to(temporary)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        temporary.rename(path)
