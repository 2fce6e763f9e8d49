"""Where a history's bytes lie: files of one folder, durable and locked, or memory.

Both kinds have the same methods. Whoever calls orders them: :meth:`Folder.write` makes one file old
or new but never half, :meth:`Folder.sync` makes the folder's names durable.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from quancrypt_fl.atomic_files import remove_leftovers, sync_folder, write_atomically
from quancrypt_fl.errors import FederatedError
from quancrypt_fl.flower.chain import digest

__all__ = [
    "Files",
    "Folder",
    "HistoryDamageError",
    "HistoryError",
    "Memory",
    "StoredBytes",
    "checked_json",
    "parse_checked_json",
]

_log = logging.getLogger(__name__)
_LOCK = "lock"
_FULL = (errno.ENOSPC, errno.EDQUOT)


class HistoryError(FederatedError):
    """The server's history cannot be written or read, or is asked for something impossible."""


class HistoryDamageError(HistoryError):
    """A file of the history is missing or does not hold what was written."""


class Files(Protocol):
    """Named byte strings."""

    def write(self, name: str, data: bytes) -> None:
        """Replace ``name`` by ``data``, all or nothing."""

    def extend(self, name: str, at: int, data: bytes) -> None:
        """Cut ``name`` at ``at`` bytes and write ``data`` there; an error may leave part of it."""

    def read(self, name: str) -> bytes:
        """All of ``name``."""

    def size(self, name: str) -> int | None:
        """Bytes of ``name``, None if there is none."""

    def names(self) -> Iterable[str]:
        """What there is."""

    def remove(self, name: str) -> None:
        """Remove ``name``; where that fails, a warning says so."""

    def sync(self) -> None:
        """Return when names are durable."""

    def where(self, name: str) -> str:
        """``name`` for a message."""

    def close(self) -> None:
        """Let others use the place."""


class Memory:
    """A history that ends with its process."""

    def __init__(self) -> None:
        self._data: dict[str, bytes] = {}

    def write(self, name: str, data: bytes) -> None:
        self._data[name] = bytes(data)

    def extend(self, name: str, at: int, data: bytes) -> None:
        self._data[name] = self._data[name][:at] + data

    def read(self, name: str) -> bytes:
        if name not in self._data:
            raise HistoryDamageError(f"{self.where(name)}: missing")
        return self._data[name]

    def size(self, name: str) -> int | None:
        return len(self._data[name]) if name in self._data else None

    def names(self) -> Iterable[str]:
        return list(self._data)

    def remove(self, name: str) -> None:
        self._data.pop(name, None)

    def sync(self) -> None:
        pass

    def where(self, name: str) -> str:
        return f"{name} (in memory)"

    def close(self) -> None:
        pass


class Folder:
    """Files in ``path``, which this process alone uses until :meth:`close` or its own end.

    Parameters
    ----------
    path
        The folder.
    create
        Make it where it is absent, readable by its owner alone.

    Raises
    ------
    HistoryError
        If another process has it, or it cannot be made or opened.
    """

    def __init__(self, path: Path, *, create: bool) -> None:
        self._path = path
        with self._explained(path, "used"):
            if create and not path.is_dir():
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
                sync_folder(path.parent)
            lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        self._unlock: Callable[[], object] = weakref.finalize(self, os.close, lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise HistoryError(f"{path}: another server is using this folder") from None
        remove_leftovers(path)

    def write(self, name: str, data: bytes) -> None:
        with self._explained(self._path / name, "written"):
            write_atomically(self._path / name, data, durable_name=False)

    def extend(self, name: str, at: int, data: bytes) -> None:
        with self._explained(self._path / name, "written"):
            opened = os.open(self._path / name, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.ftruncate(opened, at)
                os.lseek(opened, at, os.SEEK_SET)
                view = memoryview(data)
                while view:
                    view = view[os.write(opened, view) :]
                os.fsync(opened)
            finally:
                os.close(opened)

    def read(self, name: str) -> bytes:
        with self._explained(self._path / name, "read"):
            return (self._path / name).read_bytes()

    def size(self, name: str) -> int | None:
        with self._explained(self._path / name, "read"):
            path = self._path / name
            return path.stat().st_size if path.is_file() else None

    def names(self) -> Iterable[str]:
        with self._explained(self._path, "read"):
            return [path.name for path in self._path.iterdir() if path.is_file()]

    def remove(self, name: str) -> None:
        try:
            (self._path / name).unlink(missing_ok=True)
        except OSError as error:
            _log.warning("%s: cannot be removed: %s", self._path / name, error.strerror)

    def sync(self) -> None:
        with self._explained(self._path, "made durable"):
            sync_folder(self._path)

    def where(self, name: str) -> str:
        return str(self._path / name)

    def close(self) -> None:
        self._unlock()

    @contextmanager
    def _explained(self, path: Path, done: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if done == "read" and isinstance(error, FileNotFoundError):
                raise HistoryDamageError(f"{path}: missing") from None
            if error.errno in _FULL:
                raise HistoryError(f"{path}: no space left on the disk") from error
            raise HistoryError(f"{path}: cannot be {done}: {error.strerror}") from error


@dataclass(frozen=True)
class StoredBytes:
    """Bytes of a history that are read when they are needed, one round at a time.

    Attributes
    ----------
    name, size, digest
        File name, bytes, and SHA-256 in hexadecimal.
    """

    files: Files
    name: str
    size: int
    digest: str

    def load(self) -> bytes:
        """Read and check them.

        Raises
        ------
        HistoryDamageError
            If the file is missing (a later snapshot may have replaced it: ask for the catch-up
            again) or does not hold what was written.
        HistoryError
            If it cannot be read.
        """
        data = self.files.read(self.name)
        if len(data) != self.size:
            raise HistoryDamageError(
                f"{self.files.where(self.name)}: damaged ({len(data)} bytes, not {self.size})"
            )
        if digest(data) != self.digest:
            raise HistoryDamageError(
                f"{self.files.where(self.name)}: damaged (its SHA-256 is not the recorded one)"
            )
        return data


def checked_json(document: Any) -> bytes:
    """A JSON document together with its SHA-256."""
    text = json.dumps(json.loads(json.dumps(document)))  # as the parser will find it: keys are text
    return f'{{"sha256": "{digest(text.encode())}",\n"document": {text}}}\n'.encode()


def parse_checked_json(data: bytes, where: str) -> Any:
    """The document of :func:`checked_json`; otherwise HistoryDamageError naming ``where``."""
    try:
        outer = json.loads(data)
        document, expected = outer["document"], outer["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise HistoryDamageError(f"{where}: damaged ({error!r:.80})") from None
    if digest(json.dumps(document).encode()) != expected:
        raise HistoryDamageError(f"{where}: damaged (its SHA-256 is not the one in it)")
    return document
