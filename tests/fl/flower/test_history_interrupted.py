"""A history whose process, power or disk fails at each of its file operations in turn."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
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


@pytest.fixture
def many() -> Iterator[Path]:
    """Where folders by the hundred cost little: memory, if the system has such a place."""
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as folder:
        yield Path(folder)


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


def operations(many: Path) -> int:
    """How many there are when nothing fails."""
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch, 1 << 30, "kill")
        run(many / "counted", lambda *_: None).close()
        return (1 << 30) - disk.left


@pytest.mark.parametrize("fails", ["kill", "power"])
def test_killed_at_each_operation(many: Path, expected: list[tuple[Any, ...]], fails: str) -> None:
    total = operations(many)
    assert total > 100
    for survives in range(total):
        folder, done = many / str(survives), [-1]
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


def attempt(action: Callable[..., Any], *arguments: Any) -> tuple[Any, HistoryError | None]:
    try:
        return action(*arguments), None
    except HistoryError as error:
        return None, error


def test_full_disk_at_each_operation(many: Path, expected: list[tuple[Any, ...]]) -> None:
    """The error names the file, the old state stays, and the same step succeeds with room."""
    for survives in range(operations(many)):
        folder = many / str(survives)
        failures: list[HistoryError] = []
        with pytest.MonkeyPatch.context() as patch:
            Disk(patch, survives, "full")
            history, error = attempt(begun, folder, LIMIT)
            if error:
                failures.append(error)
                history = History.resume(folder) if History.exists(folder) else begun(folder, LIMIT)
            assert history
            for number, step in enumerate(STEPS, start=1):
                before = set(folder.iterdir())
                _, error = attempt(step, history)
                if error:
                    failures.append(error)
                    assert core(history) in expected[number - 1 : number + 1]
                    assert not list(folder.glob("*.tmp"))
                    new = set(folder.iterdir()) - before
                    history.close()
                    with History.resume(folder) as other:
                        assert core(other) == core(history)
                    assert new <= set(folder.iterdir())  # nothing that fills the disk in vain
                    history = History.resume(folder) if survives % 2 else history
                    step(history)
        assert len(failures) == 1
        assert "no space left" in str(failures[0])
        assert str(folder) in str(failures[0])
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
