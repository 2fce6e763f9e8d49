"""Processes with all that they have started: found, ended, and none left behind (Linux).

Elsewhere only process groups are ended.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Member", "adopt_orphans", "descendants", "end", "is_running", "reap_adopted"]

_PR_SET_CHILD_SUBREAPER = 36
_PROC = Path("/proc")


@dataclass(frozen=True)
class Member:
    """A process; ``born`` tells it from a later one with the same number."""

    pid: int
    born: int


def adopt_orphans() -> None:
    """From now on, processes whose parents end become this process's children, not init's."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def descendants(pid: int) -> list[Member]:
    """Children of a process, their children, and so on."""
    children: dict[int, list[Member]] = defaultdict(list)
    for member, parent, _ in _processes():
        children[parent].append(member)
    found: list[Member] = []
    pending = [pid]
    while pending:
        of_one = children.pop(pending.pop(), [])
        found += of_one
        pending += [member.pid for member in of_one]
    return found


def is_running(member: Member) -> bool:
    """Whether it is still there, and no zombie."""
    stat = _stat(_PROC / str(member.pid))
    return stat is not None and stat[0] == member and stat[2] != "Z"


def end(members: Iterable[Member], number: int = signal.SIGKILL) -> None:
    """Send a signal to those that are still there."""
    for member in members:
        if is_running(member):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(member.pid, number)


def reap_adopted(own: Iterable[int]) -> None:
    """Take note of the ends of adopted children; ``own``: children that somebody waits for."""
    kept = set(own)
    me = os.getpid()
    for member, parent, state in _processes():
        if parent == me and state == "Z" and member.pid not in kept:
            with suppress(ChildProcessError):
                os.waitpid(member.pid, os.WNOHANG)


def _processes() -> Iterable[tuple[Member, int, str]]:
    if sys.platform != "linux":
        return
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (stat := _stat(entry)) is not None:
            yield stat


def _stat(entry: Path) -> tuple[Member, int, str] | None:
    """A process, its parent, and its state."""
    try:
        text = (entry / "stat").read_text(errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name may hold anything
    return Member(int(entry.name), int(fields[19])), int(fields[1]), fields[0]
