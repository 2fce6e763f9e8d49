"""A kit in use: its state folder, and the lock that keeps a second process away from it."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quancrypt_fl.errors import FederatedError

__all__ = ["StateError", "free_port", "in_use", "state_folder", "superexec_secret"]

_LOCK = "process.lock"
_SECRET = "superexec.secret"


class StateError(FederatedError):
    """A kit's state folder is in use, or cannot be used."""


def state_folder(state: Path) -> Path:
    """Make the folder, readable for its owner alone."""
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        state.chmod(0o700)
    except OSError as error:
        raise StateError(f"{state}: cannot be used: {error.strerror or error}") from error
    return state


@contextmanager
def in_use(state: Path, program: str) -> Iterator[None]:
    """Hold the kit while the block runs.

    Raises
    ------
    StateError
        If another process holds it, with that process's number.
    """
    path = state_folder(state) / _LOCK
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN):
                raise
            holder = os.read(descriptor, 200).decode("ascii", "replace").strip()
            raise StateError(
                f"{state.parent}: is in use by {holder or 'another process'}"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{program}, process {os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def superexec_secret(state: Path) -> Path:
    """A fresh secret by which a program that starts tasks is known to this kit's own SuperLink or
    SuperNode: other users of the machine cannot fetch its tasks.
    """
    path = state_folder(state) / _SECRET
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(secrets.token_bytes(32))
    return path


def free_port() -> int:
    """A TCP port of loopback that is free at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
