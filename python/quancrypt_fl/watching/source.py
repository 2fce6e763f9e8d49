"""Where the status of a run lies, and its latest readable state."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from quancrypt_fl.errors import FederatedError
from quancrypt_fl.report.reading import read_json
from quancrypt_fl.report.values import UntrustedError, shorten
from quancrypt_fl.watching.status import Status, parse_status

__all__ = ["StatusSource", "WatchError"]

STATUS = "status.json"
_MAX_DEPTH = 4  # folders below the one that was named
_MAX_FOLDERS = 2_000
_SEARCH_EVERY = 3.0  # seconds


class WatchError(FederatedError, ValueError):
    """There is nothing to watch, or nowhere to show it."""


class StatusSource:
    """The newest ``status.json`` in a folder, at any of four depths; it need not be there yet.

    Parameters
    ----------
    place
        A server's kit, the folder of a run, or the file itself.

    Attributes
    ----------
    problem
        Why the file cannot be read at the moment, or None.

    Raises
    ------
    WatchError
        If ``place`` does not exist.
    """

    def __init__(self, place: Path) -> None:
        if not place.exists():
            raise WatchError(f"{place}: does not exist; name a server's kit or the folder of a run")
        self.place = place
        self.problem: str | None = None
        self._found: Path | None = None
        self._searched = float("-inf")
        self._seen: tuple[Path, int, int, int] | None = None
        self._status: Status | None = None

    @property
    def folder(self) -> Path:
        """The folder that was named."""
        return self.place if self.place.is_dir() else self.place.parent

    def read(self) -> Status | None:
        """The present state; while the file is unreadable the last one that was not, or None."""
        path = self._path()
        if path is None:
            return self._status
        try:
            facts = path.stat()
            seen = (path, facts.st_ino, facts.st_mtime_ns, facts.st_size)
            if seen != self._seen:
                self._status = parse_status(read_json(path))
                self._seen, self.problem = seen, None
        except FileNotFoundError:
            self._searched = float("-inf")
        except OSError as error:
            self.problem = f"{shorten(path.name)}: {error.strerror or error}"
        except UntrustedError as error:
            self.problem = f"{shorten(path.name)}: {error}"
        return self._status

    def _path(self) -> Path | None:
        if not self.place.is_dir():
            return self.place
        now = time.monotonic()
        if now - self._searched >= _SEARCH_EVERY:
            self._searched = now
            dated = [(when, path) for path in self._files() if (when := _changed(path))]
            self._found = max(dated)[1] if dated else None
        return self._found

    def _files(self) -> Iterator[Path]:
        for seen, (root, folders, files) in enumerate(os.walk(self.place)):
            if seen >= _MAX_FOLDERS:
                return
            if len(Path(root).relative_to(self.place).parts) >= _MAX_DEPTH:
                folders.clear()
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            if STATUS in files:
                yield Path(root, STATUS)


def _changed(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None
