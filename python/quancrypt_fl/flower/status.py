"""The state of a run in two files that others may read while it goes on.

``status.json`` is the state of the moment (see :mod:`~quancrypt_fl.flower.run_status`), replaced
in one step, at most a few times a second; ``events.jsonl`` is what happened, one JSON object per
line. They are for people who watch. A training does not depend on them: where they cannot be
written, a warning is logged and the run goes on.
"""

from __future__ import annotations

import json
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from quancrypt_fl.flower.run_status import RunStatus

__all__ = ["EVENTS", "STATUS", "StatusFile"]

STATUS, EVENTS = "status.json", "events.jsonl"
EVENT_BYTES = 4 << 20  # of events.jsonl, before it becomes events.1.jsonl
_INTERVAL = 0.4  # seconds between two writes, unless a phase or a round ends
_SHARE = 0.02  # of the time, at most, goes into writing
_HEARTBEAT = 5.0  # seconds: those who watch can tell a slow round from a dead server

_log = logging.getLogger(__name__)


class StatusFile(RunStatus):
    """Keeps both files in a folder.

    Parameters
    ----------
    folder
        Made if need be. A status that is there already and belongs to the same training is gone
        on with: a server that restarts forgets nothing.
    clock
        For tests.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(clock=clock)
        self._folder = folder
        self._wake = threading.Condition(self._lock)
        self._dirty = False
        self._last_write = -math.inf  # monotonic
        self._cost = 0.0  # seconds that the last write took
        self._warned = False
        self._thread: threading.Thread | None = None
        self._ended = False

    def run_started(
        self, *, training: str, rounds: int, finished: int, facts: Mapping[str, Any]
    ) -> None:
        """Begin, and keep the file fresh from here on."""
        super().run_started(training=training, rounds=rounds, finished=finished, facts=facts)
        with self._lock:
            self._ended = False
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._keep_written, name="quancrypt-status", daemon=True
                )
                self._thread.start()

    def run_finished(self, document: Mapping[str, Any] | None, error: str | None) -> None:
        """The last word; the heartbeat ends."""
        super().run_finished(document, error)
        self.close()

    def run_stopped(self) -> None:
        """The last word, unless the run is gone on with; the heartbeat ends."""
        super().run_stopped()
        self.close()

    def close(self) -> None:
        """Write what is not written yet, and stop the heartbeat."""
        with self._wake:
            self._ended = True
            thread, self._thread = self._thread, None
            self._wake.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        with self._lock:
            if self._dirty:
                self._write()

    def earlier(self) -> Any:
        """The document in the folder, or None."""
        try:
            return json.loads((self._folder / STATUS).read_bytes())
        except (OSError, ValueError):
            return None

    def happened(self, event: Mapping[str, Any]) -> None:
        """Append a line."""
        line = json.dumps(event).encode() + b"\n"
        self._try(lambda: self._append(line))

    def _append(self, line: bytes) -> None:
        path = self._folder / EVENTS
        self._folder.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as stream:
            end = stream.seek(0, os.SEEK_END)
            if end:  # a process that was killed, or a full disk, may have left half a line
                stream.seek(end - 1)
                if stream.read(1) != b"\n":
                    line = b"\n" + line
            stream.write(line)
        if end + len(line) >= EVENT_BYTES:
            path.replace(path.with_name("events.1.jsonl"))

    def changed(self, *, urgent: bool = False) -> None:
        """Write now, or soon."""
        self._dirty = True
        if urgent or time.monotonic() - self._last_write >= self._interval():
            self._write()
        else:
            self._wake.notify_all()

    def _interval(self) -> float:
        return max(_INTERVAL, self._cost / _SHARE)

    def _write(self) -> None:
        """Replace ``status.json``; not synced to the disk, for a lost status costs nothing."""
        start = time.monotonic()
        self._dirty = False
        data = json.dumps(self.document(), allow_nan=False).encode()
        self._try(lambda: self._replace(data))
        self._last_write = time.monotonic()
        self._cost = self._last_write - start

    def _replace(self, data: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        temporary = self._folder / f".{STATUS}.{os.getpid()}"
        try:
            temporary.write_bytes(data)
            temporary.replace(self._folder / STATUS)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    def _try(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            if not self._warned:
                _log.warning("%s: the status cannot be written: %s", self._folder, error)
            self._warned = True
        else:
            self._warned = False

    def _keep_written(self) -> None:
        """Writes what came too soon after the write before, and a heartbeat."""
        with self._wake:
            while not self._ended:
                since = time.monotonic() - self._last_write
                due = self._interval() if self._dirty else max(_HEARTBEAT, self._interval())
                if since >= due:
                    self._write()
                else:
                    self._wake.wait(due - since)
