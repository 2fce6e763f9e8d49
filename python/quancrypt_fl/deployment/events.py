"""What happens, one line per event: for people with the time in front, or as JSON for programs."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, TextIO

__all__ = ["EventLog", "cleaned", "flower_line"]

_LEVELS = ("debug", "info", "warning", "error")
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_TOKEN = re.compile(r"(--(?:token|passphrase)[ =])\S+")
_FLOWER = re.compile(r"\s*(DEBUG|INFO|WARNING|WARN|ERROR|CRITICAL)\s*:\s?(.*)", re.DOTALL)
_UVICORN = re.compile(r"\d{4}-\d\d-\d\dT\S+\s+(DEBUG|INFO|WARNING|ERROR)\s+\[([\w.]+)\]\s+(.*)")
_LONGEST = 4_000  # characters of a line


class EventLog:
    """Writes events; may be used from several threads.

    Parameters
    ----------
    stream
        Where to; stderr by default.
    json_lines
        JSON objects with ``time``, ``level``, ``source`` and ``text``, and what else is given.
    secrets
        Texts that are never written: they are replaced by ``***``.
    verbose
        Events of level ``debug`` too.
    clock
        Seconds since 1970.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        json_lines: bool = False,
        secrets: Iterable[str] = (),
        verbose: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._stream = stream
        self._json = json_lines
        self._secrets = tuple(secret for secret in secrets if secret)
        self._least = 0 if verbose else 1
        self._clock = clock
        self._lock = threading.Lock()

    def __call__(self, source: str, text: str, *, level: str = "info", **facts: Any) -> None:
        """Write an event.

        Parameters
        ----------
        source
            Who tells it: ``server``, ``superlink``, ``client``, ...
        level
            ``debug``, ``info``, ``warning`` or ``error``.
        **facts
            For programs; people find them in the text.
        """
        if _LEVELS.index(level) < self._least:
            return
        text = self._without_secrets(cleaned(text))
        now = self._clock()
        if self._json:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
            event = {"time": f"{stamp}.{int(now % 1 * 1000):03d}Z", "level": level}
            event |= {"source": source, "text": text, **facts}
            line = self._without_secrets(json.dumps(event, default=str))
        else:
            stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
            mark = "" if level in ("debug", "info") else f"{level}: "
            line = f"{stamp}  {source:<10} {mark}{text}"
        stream = self._stream or sys.stderr
        with self._lock:
            try:
                stream.write(line + "\n")
                stream.flush()
            except (OSError, ValueError):  # the terminal is gone; the work goes on
                pass

    def _without_secrets(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def cleaned(text: str) -> str:
    """One line without control sequences, and without tokens of command lines."""
    text = _TOKEN.sub(r"\1***", _ANSI.sub("", text))
    shown = "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode()
        for c in text.replace("\t", "    ").rstrip()
    )
    return shown if len(shown) <= _LONGEST else shown[:_LONGEST] + "..."


def flower_line(line: str) -> tuple[str, str]:
    """Level and text of a line that a Flower program printed; the text may be empty.

    What is of no use to an operator (each request, each poll) has the level ``debug``.
    """
    text = _ANSI.sub("", line).rstrip()
    if found := _UVICORN.match(text):
        level, source, text = found.groups()
        if "access" in source or level in ("DEBUG", "INFO"):
            return "debug", text
        return level.lower(), text
    if found := _FLOWER.match(text):
        level, text = found.groups()
        level = {"warn": "warning", "critical": "error"}.get(level.lower(), level.lower())
        return level, text.strip()
    return "info", text  # a traceback is indented
