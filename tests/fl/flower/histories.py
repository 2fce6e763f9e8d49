"""Rounds to fill histories with, what a history shows, and a disk that fails at a chosen moment."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from quancrypt_fl.flower.chain import digest, next_link
from quancrypt_fl.flower.history import CatchUp, History, HistoryGapError, RoundSum

INITIAL = b"initial model" * 10
FACTS = {"agreement": {"bits": 8, "clip": 0.1}, "params": "abcd"}
START = digest(b"start")


def begun(folder: Path | None, limit_bytes: int = 10_000) -> History:
    return History.begin(
        folder,
        training="ab" * 16,
        facts=FACTS,
        chain=START,
        initial=INITIAL,
        limit_bytes=limit_bytes,
    )


def sum_of(round: int, size: int = 100) -> bytes:
    return (b"sum %d " % round * size)[:size]


def sealed_of(round: int, size: int = 60) -> bytes:
    return (b"snapshot %d " % round * size)[:size]


def following(history: History, size: int = 100) -> tuple[RoundSum, bytes, dict[str, Any]]:
    """Arguments that append the next round; ``size`` 0: a failed one."""
    t = history.finished
    data = sum_of(t, size)
    weight, sum_digest = (3 + t, digest(data)) if size else (0, "")
    chain = next_link(history.chain, round=t, weight=weight, scale=1.0, sum_digest=sum_digest)
    link = RoundSum(
        t, chain, weight, 1.0, size, sum_digest, None if size else "too few clients answered"
    )
    return link, data, {"round": t + 1, "train_loss": 1 / (t + 1), "clients": {"1": [t, 0.5]}}


def grown(history: History, *sizes: int) -> History:
    for size in sizes:
        history.append(*following(history, size))
    return history


def sealed(history: History, round: int, size: int = 60) -> bool:
    chain = history.chain_at(round)
    assert chain is not None
    return history.keep_snapshot(round, chain, sealed_of(round, size))


def way(path: CatchUp) -> tuple[Any, ...]:
    """A catch-up with all its bytes."""
    start = path.snapshot and (*path.snapshot[:2], path.snapshot[2].load())
    return start, path.initial, [(link, data and data.load()) for link, data in path.sums]


def ways(history: History) -> dict[int | None, Any]:
    """Where every possible client is led, None where there is no way."""
    found: dict[int | None, Any] = {}
    for have in (None, *range(history.finished + 1)):
        try:
            found[have] = way(history.catch_up(have))
        except HistoryGapError:
            found[have] = None
    return found


def assert_leads_on(history: History, have: int | None) -> None:
    """What a client gets is what it needs, whichever way was chosen."""
    path = history.catch_up(have)
    start, initial, sums = way(path)
    base = have or 0
    if start:
        base = start[0]
        assert start[1] == history.chain_at(base)
        assert start[2] == sealed_of(base, len(start[2]))
    assert initial == (start is None and (have is None or (initial and base == 0)))
    base = 0 if initial else base
    assert [link for link, _ in sums] == history.rounds[base:]
    for link, data in sums:
        assert data == (sum_of(link.round, link.size) if link.weight else None)


def core(history: History) -> tuple[Any, ...]:
    """What must be as before or as after, whenever the process ends."""
    return (
        history.training, history.facts, history.initial, history.chain,
        history.rounds, history.records, history.read("round"), history.read("nodes"),
    )  # fmt: skip


def view(history: History) -> tuple[Any, ...]:
    return (*core(history), ways(history), history.wants_snapshot(3), history.wants_snapshot(0))


def files(folder: Path, pattern: str = "*") -> set[str]:
    return {path.name for path in folder.glob(pattern)}


def kept(folder: Path) -> set[int]:
    return {int(name[4:9]) for name in files(folder, "sum-*.bin")}


class KilledError(BaseException):
    """The process ends here."""


class Disk:
    """Counts file operations; the one after ``survives`` others does not take place.

    Parameters
    ----------
    fails
        ``kill``: the process ends there, a write half done; ``power``: what was not made durable is
        lost too; ``full``: the disk has no room, once, for a write or what makes one durable.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, survives: int, fails: str) -> None:
        self.left, self.fails = survives, fails
        self._real = os.replace, os.unlink, os.open, os.write
        self._renamed: list[tuple[Path, bytes | None]] = []  # with what was there before
        self._written: dict[str, int] = {}  # with the bytes that are durable
        monkeypatch.setattr(os, "fsync", self._fsync)
        monkeypatch.setattr(os, "replace", self._replace)
        monkeypatch.setattr(os, "unlink", self._unlink)
        monkeypatch.setattr(os, "open", self._open)
        monkeypatch.setattr(os, "write", self._write)

    def step(self, *, takes_room: bool = True) -> None:
        self.left -= 1
        if self.left != -1:
            return
        if self.fails == "full":
            if takes_room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.left = 0  # the next one that does
            return
        if self.fails == "power":
            for name, durable in self._written.items():
                size = Path(name).stat().st_size
                os.truncate(name, (size + min(size, durable)) // 2)
            for path, before in reversed(self._renamed):
                self._real[1](path)
                if before is not None:
                    path.write_bytes(before)
        raise KilledError

    def _fsync(self, fd: int) -> None:
        self.step()
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            self._renamed.clear()
        else:
            self._written.pop(_name_of(fd), None)

    def _replace(self, source: Path, target: Path) -> None:
        self.step(takes_room=False)
        before = target.read_bytes() if target.exists() else None
        self._renamed.append((target, before))
        if str(source) in self._written:
            self._written[str(target)] = self._written.pop(str(source))
        self._real[0](source, target)

    def _unlink(self, path: Path, **options: Any) -> None:
        self.step(takes_room=False)
        self._written.pop(str(path), None)
        self._real[1](path, **options)

    def _open(self, path: Path, flags: int, *mode: int, **options: Any) -> int:
        opened = self._real[2](path, flags, *mode, **options)
        if flags & (os.O_WRONLY | os.O_RDWR):
            self._written.setdefault(str(path), os.fstat(opened).st_size)
        return opened

    def _write(self, fd: int, data: bytes) -> int:
        if self.left == 0:
            self._real[3](fd, data[: len(data) // 2])
        self.step()
        return self._real[3](fd, data)


def _name_of(fd: int) -> str:
    return str(Path(f"/proc/self/fd/{fd}").readlink())
