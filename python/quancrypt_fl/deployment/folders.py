"""Folders that appear as a whole or not at all, and files whose mode holds from the beginning."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from quancrypt_fl.errors import FederatedError

__all__ = [
    "FOLDER_MODE",
    "ProvisionError",
    "check_place",
    "whole_folder",
    "write_public",
    "write_secret",
]

FOLDER_MODE = 0o700
_SECRET_MODE = 0o600
_PUBLIC_MODE = 0o644
_UNFINISHED = "provisioning"  # in the name of a folder that is not complete


class ProvisionError(FederatedError, ValueError):
    """Kits cannot be made as asked, or not there."""


def check_place(out: Path) -> None:
    """Raise :class:`ProvisionError` unless ``out`` is absent, or an empty folder."""
    if out.is_symlink():
        raise ProvisionError(f"{out}: is a link; name the folder itself")
    if not out.exists():
        for parent in out.absolute().parents:
            if parent.exists():
                if not parent.is_dir():
                    raise ProvisionError(f"{out}: {parent} is a file, not a folder")
                return
    if not out.is_dir():
        raise ProvisionError(f"{out}: is a file; allowed: a new folder")
    if out.absolute() == Path.cwd() or os.path.ismount(out):
        raise ProvisionError(f"{out}: cannot be replaced as a whole; name a new folder in it")
    if any(out.iterdir()):
        raise ProvisionError(
            f"{out}: is not empty; kits and keys are never written over: name a new folder"
        )


@contextlib.contextmanager
def whole_folder(place: Path) -> Iterator[Path]:
    """A hidden folder that becomes ``place`` at the end of the block, or vanishes.

    One that an earlier process could not remove, because it was killed, is removed first.
    """
    parent, prefix = place.absolute().parent, f".{place.name}.{_UNFINISHED}-"
    made = _make_parents(parent)
    try:
        _remove_unfinished(parent, prefix)
        temporary, lock = _locked_folder(parent, prefix)
        try:
            yield temporary
            temporary.rename(place)  # fails unless place is absent or still empty
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        finally:
            os.close(lock)
    except BaseException:
        for folder in reversed(made):
            with contextlib.suppress(OSError):  # somebody else uses it by now
                folder.rmdir()
        raise


def _locked_folder(parent: Path, prefix: str) -> tuple[Path, int]:
    """A new hidden folder, and the descriptor that holds its lock while this process lives."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # a file system without locks: nobody clears up there
            fcntl.flock(lock, fcntl.LOCK_EX)
        if _same(folder, lock):
            return folder, lock
        os.close(lock)  # somebody who cleared up took it for a dead process's


def _same(folder: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(folder.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _remove_unfinished(parent: Path, prefix: str) -> None:
    """Remove what killed processes left: keys lie in it. What a living one makes is locked.

    Raises
    ------
    ProvisionError
        Naming the folder, if it cannot be removed.
    """
    for folder in parent.glob(f"{glob.escape(prefix)}*"):
        if folder.is_symlink() or not folder.is_dir() or folder.stat().st_uid != os.getuid():
            continue
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            if _try_lock(lock):
                shutil.rmtree(folder)
        except OSError as error:
            raise ProvisionError(
                f"{folder}: was left by a quancrypt provision that was killed, holds keys, and "
                f"cannot be removed: {error.strerror or error}; remove it"
            ) from error
        finally:
            os.close(lock)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _make_parents(parent: Path) -> list[Path]:
    missing = [folder for folder in (parent, *parent.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
    return missing[::-1]


def write_public(path: Path, data: bytes) -> None:
    """Make a file that everybody may read."""
    _create(path, data, _PUBLIC_MODE)


def write_secret(path: Path, data: bytes) -> None:
    """Make a file that its owner alone may read."""
    _create(path, data, _SECRET_MODE)


def _create(path: Path, data: bytes, mode: int) -> None:
    """The mode holds from the moment of creation; the umask may take more away."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
