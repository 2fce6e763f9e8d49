"""Where a client keeps what must outlive a message: its global state, and training not yet counted.

Each of three things (held, pending, memory) is replaced as a whole. What is damaged counts as
absent: a client without a state catches up from the server, one without a finished training trains
again.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from quancrypt_fl.atomic_files import (
    is_temporary,
    remove_leftovers,
    sync_folder,
    write_atomically,
)
from quancrypt_fl.errors import FederatedError
from quancrypt_fl.flower.held import (
    Held,
    Pending,
    held_bytes,
    memory_bytes,
    pending_bytes,
    read_held,
    read_memory,
    read_pending,
)
from quancrypt_fl.flower.tensors_file import TensorsFileError
from quancrypt_fl.method.roles import ClientMemory

__all__ = [
    "KEPT_TRAININGS",
    "ClientStore",
    "FolderStore",
    "Held",
    "Pending",
    "Store",
    "StoreError",
    "finished_model",
]

KEPT_TRAININGS = 3
"""Trainings whose state stays in a folder; finished models all stay."""

LOCK_SECONDS = 30.0
"""How long to wait for a process that has the folder: an orphaned one takes a while to end."""

_HELD, _PENDING, _MEMORY = "held", "pending", "memory"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_log = logging.getLogger(__name__)

Value = TypeVar("Value")


class StoreError(FederatedError):
    """A client's state cannot be kept or read: a full disk, a permission, another process."""


class ClientStore(Protocol):
    """What a client keeps of one training. Use it in a ``with`` block."""

    def held(self) -> Held | None:
        """The global state, None if there is none."""

    def hold(self, held: Held) -> None:
        """Replace the global state. It is durable when this returns."""

    def pending(self) -> Pending | None:
        """The finished training, None if there is none."""

    def keep_pending(self, pending: Pending) -> None:
        """Replace the finished training. It is durable when this returns."""

    def drop_pending(self) -> None:
        """Forget the finished training."""

    def memory(self) -> ClientMemory:
        """Residual and buffers, both empty at first."""

    def remember(self, memory: ClientMemory) -> None:
        """Replace residual and buffers. They are durable when this returns."""

    def finish(self, model: Mapping[str, NDArray[Any]]) -> None:
        """Put the final global model, tensors of any type, where the user finds it."""

    def __enter__(self) -> Self:
        """The store."""

    def __exit__(self, *_: object) -> None:
        """Let others use the place."""


class Store(ABC):
    """A :class:`ClientStore` over named byte strings.

    Parameters
    ----------
    training
        Id of the training, 32 hexadecimal digits.
    """

    def __init__(self, training: str) -> None:
        if not re.fullmatch("[0-9a-f]{32}", training):
            raise StoreError(f"training {training!r:.60}; allowed: 32 hexadecimal digits")
        self._training = training
        self._known: dict[str, Any] = {}

    def held(self) -> Held | None:
        """The global state, None if there is none."""
        return self._get(_HELD, read_held)

    def hold(self, held: Held) -> None:
        """Replace the global state."""
        self._put(_HELD, held, held_bytes(held, self._training))

    def pending(self) -> Pending | None:
        """The finished training, None if there is none."""
        return self._get(_PENDING, read_pending)

    def keep_pending(self, pending: Pending) -> None:
        """Replace the finished training."""
        self._put(_PENDING, pending, pending_bytes(pending, self._training))

    def drop_pending(self) -> None:
        """Forget the finished training."""
        self._known.pop(_PENDING, None)
        self._delete(_PENDING)
        self._known[_PENDING] = None

    def memory(self) -> ClientMemory:
        """Residual and buffers, both empty at first."""
        memory = self._get(_MEMORY, read_memory) or ClientMemory({}, {})
        return ClientMemory(memory.residual, memory.buffers)  # the caller may change its own

    def remember(self, memory: ClientMemory) -> None:
        """Replace residual and buffers."""
        kept = ClientMemory(memory.residual, memory.buffers)
        self._put(_MEMORY, kept, memory_bytes(memory, self._training))

    @abstractmethod
    def finish(self, model: Mapping[str, NDArray[Any]]) -> None:
        """Put the final global model where the user finds it."""

    def close(self) -> None:
        """Let others use the place."""
        self._known.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def _read(self, name: str) -> bytearray | None:
        """The bytes of ``name``, None if there are none; the caller may keep them."""

    @abstractmethod
    def _write(self, name: str, data: bytearray) -> None:
        """Replace the bytes of ``name``, all or nothing."""

    @abstractmethod
    def _delete(self, name: str) -> None:
        """Remove ``name``, which may be absent."""

    @abstractmethod
    def _where(self, name: str) -> str:
        """``name`` for a message."""

    def _get(self, name: str, read: Callable[[bytearray, str], Value]) -> Value | None:
        if name not in self._known:
            data = self._read(name)
            try:
                self._known[name] = None if data is None else read(data, self._training)
            except TensorsFileError as error:
                _log.warning("%s: damaged, so it counts as absent: %s", self._where(name), error)
                self._known[name] = None
        found: Value | None = self._known[name]
        return found

    def _put(self, name: str, value: object, data: bytearray) -> None:
        self._known.pop(name, None)  # after an error either value may be there
        self._write(name, data)
        self._known[name] = value


class FolderStore(Store):
    """State in a folder, readable by its owner alone, that this object has to itself until closed.

    A process that is killed between any two operations leaves each of the three things as it was or
    as it was to become. Files are safetensors (``FOLDER/<training>/held`` and so on) with a
    checksum.

    Parameters
    ----------
    folder
        Made if absent. Of older trainings it keeps the newest, :data:`KEPT_TRAININGS` in all.
    training
        Id of the training.
    wait
        Seconds to wait while another process has the folder.

    Raises
    ------
    StoreError
        If another process keeps the folder, or it cannot be made or opened.
    """

    def __init__(self, folder: Path, training: str, *, wait: float = LOCK_SECONDS) -> None:
        super().__init__(training)
        self._folder = Path(folder)
        self._own = self._folder / training
        self._lock: int | None = None
        with self._explained("used"):
            if not self._folder.is_dir():
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                sync_folder(self._folder.parent)
        self._lock = self._locked(wait)
        try:
            with self._explained("used"):
                if not self._own.is_dir():
                    self._own.mkdir(0o700)
                    sync_folder(self._folder)
                self._clean()
        except BaseException:
            self.close()
            raise

    def finish(self, model: Mapping[str, NDArray[Any]]) -> None:
        """Write the final global model; see :func:`finished_model`."""
        path = finished_model(self._folder, self._training)
        # safetensors takes memory as it lies
        self._write(path.name, save({n: np.asarray(t, order="C") for n, t in model.items()}))
        _log.info("%s: the global model", path)

    def close(self) -> None:
        """Let others use the folder."""
        super().close()
        if self._lock is not None:
            lock, self._lock = self._lock, None
            try:
                fcntl.flock(lock, fcntl.LOCK_UN)  # a forked child may have it open too
            finally:
                os.close(lock)

    def _read(self, name: str) -> bytearray | None:
        with self._explained("read"):
            try:
                with self._path(name).open("rb", buffering=0) as stream:
                    data = bytearray(os.fstat(stream.fileno()).st_size)
                    view = memoryview(data)
                    done = 0
                    while done < len(data) and (count := stream.readinto(view[done:])):
                        done += count
                    return data
            except FileNotFoundError:
                return None

    def _write(self, name: str, data: bytes | bytearray) -> None:
        path = self._path(name)
        with self._explained("written"):
            write_atomically(path, data, mode=0o600)

    def _delete(self, name: str) -> None:
        with self._explained("written"):
            self._path(name).unlink(missing_ok=True)
            sync_folder(self._own)

    def _where(self, name: str) -> str:
        return str(self._own / name)

    def _path(self, name: str) -> Path:
        if self._lock is None:
            raise StoreError(f"{self._folder}: this store has been closed")
        return self._own / name

    def _locked(self, wait: float) -> int:
        path = self._folder / "lock"
        with self._explained("locked"):
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            until = time.monotonic() + wait
            with self._explained("locked"):
                while not _try_lock(lock):
                    if time.monotonic() >= until:
                        owner = os.pread(lock, 20, 0).decode("ascii", "replace").strip()
                        raise StoreError(
                            f"{self._folder}: another process (pid {owner or 'unknown'}) uses this "
                            "state folder; each client needs one of its own"
                        )
                    time.sleep(0.05)
            with suppress(OSError):  # only for the message above: a full disk must not matter here
                os.ftruncate(lock, 0)
                os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        except BaseException:
            os.close(lock)
            raise
        return lock

    def _clean(self) -> None:
        """Remove what killed processes left half-written, and the state of old trainings."""
        remove_leftovers(self._own)
        others = []
        for folder in self._folder.iterdir():
            if folder != self._own and re.fullmatch("[0-9a-f]{32}", folder.name):
                times = [p.stat().st_mtime_ns for p in folder.iterdir() if _is_state(p)]
                if times or not any(folder.iterdir()):
                    others.append((max(times, default=0), folder))
        for _, folder in sorted(others, reverse=True)[KEPT_TRAININGS - 1 :]:
            for path in folder.iterdir():
                if _is_state(path):
                    path.unlink(missing_ok=True)
            with suppress(OSError):  # a finished model stays
                folder.rmdir()

    @contextmanager
    def _explained(self, done: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            place = error.filename or self._own
            if error.errno in _FULL:
                raise StoreError(
                    f"{self._folder}: no space left for the client's state; what it held before "
                    "is still there"
                ) from error
            raise StoreError(f"{place}: cannot be {done}: {error.strerror}") from error


def finished_model(folder: Path, training: str) -> Path:
    """Where :meth:`FolderStore.finish` puts the final global model, as safetensors."""
    return folder / training / "model.safetensors"


def _is_state(path: Path) -> bool:
    return path.name in (_HELD, _PENDING, _MEMORY) or is_temporary(path.name)


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
