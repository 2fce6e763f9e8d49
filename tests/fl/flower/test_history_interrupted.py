"""A history whose process, power or disk fails at each of its file operations in turn."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fl.flower.histories import (
    Disk,
    KilledError,
    assert_leads_on,
    begun,
    core,
    grown,
    sealed,
    view,
)

from quancrypt_fl.flower.history import History, HistoryError

LIMIT = 350


def _append(size: int, round: int) -> Callable[[History], Any]:
    """Append unless a round has been finished meanwhile, as a server does after a restart."""
    return lambda h: grown(h, size) if h.finished == round else None


STEPS: list[Callable[[History], Any]] = [
    lambda h: h.note("round", {"asked": [1, 2]}),
    _append(100, 0),
    lambda h: h.note("nodes", {"1": "a"}),
    _append(0, 1),
    lambda h: h.amend(0, {"round": 1, "test_accuracy": 0.5}),
    _append(120, 2),
    lambda h: sealed(h, 2),
    lambda h: h.note("round", None),
    _append(100, 3),
    _append(90, 4),  # over the limit: the way from the initial model is given up for room
    lambda h: sealed(h, 4),
    lambda h: h.note("nodes", {"1": "a", "2": "b"}),
    _append(100, 5),
    lambda h: h.snapshot_used(4),
    lambda h: sealed(h, 6),
    lambda h: h.drop_snapshot(6),
    _append(100, 6),
]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that ends no process has no use for a slow disk."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


def run(folder: Path | None, after: Callable[[int, History], None]) -> History:
    history = begun(folder, LIMIT)
    after(0, history)
    for number, step in enumerate(STEPS, start=1):
        step(history)
        after(number, history)
    return history


@pytest.fixture(scope="module")
def expected() -> list[tuple[Any, ...]]:
    """Cores after each step, and last the whole view."""
    cores: list[tuple[Any, ...]] = []
    history = run(None, lambda _, h: cores.append(core(h)))
    assert history.catch_up(None).snapshot
    assert history.catch_up(0).snapshot
    return [*cores, view(history)]


def operations(tmp_path: Path) -> int:
    """How many there are when nothing fails."""
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch, 1 << 30, "kill")
        run(tmp_path / "counted", lambda *_: None).close()
        return (1 << 30) - disk.left


@pytest.mark.parametrize("fails", ["kill", "power"])
def test_killed_at_each_operation(
    tmp_path: Path, expected: list[tuple[Any, ...]], fails: str
) -> None:
    total = operations(tmp_path)
    assert total > 100
    for survives in range(total):
        folder, done = tmp_path / str(survives), [-1]
        opened: list[History] = []

        def remember(
            number: int, h: History, done: list[int] = done, opened: list[History] = opened
        ) -> None:
            done[0], opened[:] = number, [h]

        with pytest.MonkeyPatch.context() as patch:
            Disk(patch, survives, fails)
            with pytest.raises(KilledError):
                run(folder, remember)
        for history in opened:
            history.close()  # as the end of a process does
        finished = done[0]
        if not History.exists(folder):
            assert finished == -1
            begun(folder, LIMIT).close()
        with History.resume(folder) as resumed:
            assert core(resumed) in expected[max(finished, 0) : finished + 2]
            for have in {None, resumed.finished, max(resumed.finished - 1, 0)}:
                assert_leads_on(resumed, have)
            assert not list(folder.glob("*.tmp"))
            for step in STEPS[max(finished, 0) :]:
                step(resumed)
            assert view(resumed) == expected[-1]
        with History.resume(folder) as again:
            assert view(again) == expected[-1]


def test_full_disk_at_each_operation(tmp_path: Path, expected: list[tuple[Any, ...]]) -> None:
    """The error names the file, the old state stays, and the same step succeeds with room."""
    for survives in range(operations(tmp_path)):
        folder = tmp_path / str(survives)
        steps: list[Callable[[History], Any]] = [lambda h: None, *STEPS]
        failures = 0
        with pytest.MonkeyPatch.context() as patch:
            Disk(patch, survives, "full")
            try:
                history = begun(folder, LIMIT)
            except HistoryError as error:
                failures += 1
                assert str(folder) in str(error) or folder.name in str(error)
                if History.exists(folder):
                    history = History.resume(folder)
                else:
                    history = begun(folder, LIMIT)
            for number, step in enumerate(steps):
                before = set(folder.iterdir())
                try:
                    step(history)
                except HistoryError as error:
                    failures += 1
                    assert "no space left" in str(error)
                    assert str(folder) in str(error)
                    assert core(history) in expected[number - 1 : number + 1]
                    assert not list(folder.glob("*.tmp"))
                    new = set(folder.iterdir()) - before
                    history.close()
                    with History.resume(folder) as other:
                        assert core(other) == core(history)
                    assert new <= set(folder.iterdir())  # nothing that fills the disk in vain
                    history = History.resume(folder) if survives % 2 else history
                    step(history)
        assert failures == 1
        assert view(history) == expected[-1]
        history.close()
        with History.resume(folder) as resumed:
            assert view(resumed) == expected[-1]


def test_a_round_may_be_appended_again(tmp_path: Path) -> None:
    """Durable although the first call failed where it made the folder's names durable."""
    with begun(tmp_path) as history, pytest.MonkeyPatch.context() as patch:
        Disk(patch, 9, "full")  # the sum's 3, the line's 2, folder, index 3, then the folder
        with pytest.raises(HistoryError, match="no space left"):
            grown(history, 100)
        assert history.finished == 1
