"""Files are old or new, never broken: killed, without room, without the right to write."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the [fl] extra")
pytest.importorskip("typer", reason="needs the [fl] extra")

ROOT = Path(__file__).resolve().parents[3]
PATIENCE = 1800  # seconds, on a machine that is busy
FEWEST = 6  # operations of one file: make, write, sync, rename, open and sync its folder

Attempt = dict[str, Any]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """Where folders by the hundred cost little: memory, if the system has such a place."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


def outcomes(place: Path, fault: str) -> dict[str, list[Attempt]]:
    """What came of each attempt, by scenario; each left the old state or the new."""
    folder = place / fault
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "tests.fl.atomic_files.faulty", fault, str(folder)],
        cwd=ROOT,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[Attempt]] = json.loads(done.stdout)
    assert len(found) == 19
    for name, attempts in found.items():
        for attempt in attempts:
            place_of = f"{name}, {fault} at {attempt['at']}: {attempt}"
            assert attempt["found"] in ("old", "new"), place_of
            assert attempt["then"] == "new", place_of
            # The next writer of the file removes what a killed one left. A file that was made, not
            # replaced, has no next one: then it is a second name of the whole file. An answer's
            # next one comes with another sum.
            if name not in ("sum: new", "joint key: an answer"):
                assert attempt["leftovers_then"] == 0, place_of
    return found


def states(attempts: list[Attempt]) -> list[str]:
    return [attempt["found"] for attempt in attempts]


def test_killed_at_each_operation(place: Path) -> None:
    for name, attempts in outcomes(place, "kill").items():
        assert [attempt["came"] for attempt in attempts[:-1]] == ["killed"] * (len(attempts) - 1)
        assert attempts[-1]["came"] == "done", name
        assert len(attempts) >= FEWEST, name
        found = states(attempts)
        turn = found.index("new")
        assert found == ["old"] * turn + ["new"] * (len(found) - turn), name
        assert 3 <= turn < len(found) - 1, name  # make, half a write, sync at least: still old
        assert any(attempt["leftovers"] for attempt in attempts), name  # there was what to remove


def test_no_room_from_each_operation_on(place: Path) -> None:
    for name, attempts in outcomes(place, "full").items():
        *failed, last = attempts
        assert last["came"] == "done", name
        assert {attempt["came"] for attempt in failed} == {"refused"}, name
        assert failed[0]["found"] == "old", name
        assert [attempt["leftovers"] for attempt in attempts] == [0] * len(attempts), name


def test_files_that_the_kernel_keeps_small(place: Path) -> None:
    for name, attempts in outcomes(place, "limit").items():
        assert attempts[0]["came"] == "refused", name
        for attempt in attempts:
            assert attempt["came"] in ("refused", "done"), name
            assert attempt["leftovers"] == 0, name
            assert attempt["found"] == "new" or attempt["came"] == "refused", name


def test_nothing_may_be_changed(place: Path) -> None:
    for name, attempts in outcomes(place, "frozen").items():
        assert [(a["came"], a["found"]) for a in attempts] == [("refused", "old")], name


def may_mount() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]
        if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
            return False
        subprocess.run(["umount", folder], check=True)
    return True


@pytest.mark.parametrize("fault", ["small", "read-only"])
def test_a_file_system_that_takes_no_more(place: Path, fault: str) -> None:
    if not may_mount() and (fault == "small" or os.geteuid() == 0):
        pytest.skip("needs a user who may mount file systems")
    for name, attempts in outcomes(place, fault).items():
        assert [(a["came"], a["found"]) for a in attempts] == [("refused", "old")], name
        assert attempts[0]["leftovers"] == 0, name
