"""A client's folder whose process or disk fails at each file operation: old or new, never half."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.fl.flower.states import TRAINING, bits, held, memory, pending

pytest.importorskip("flwr", reason="needs the [flower] extra")

from tests.fl.flower.places import EMPTY, OLD, FolderPlace, filled, seen

from quancrypt_fl.flower.stores import KEPT_TRAININGS, Store, StoreError

Operation = Callable[[Store], None]

pytestmark = pytest.mark.usefixtures("fast_disk")


@pytest.fixture
def folder(tmp_path: Path) -> FolderPlace:
    return FolderPlace(tmp_path / "state")


class Killed(BaseException):
    """The process ends here: no handler of ours runs for it."""


class Disk:
    """Counts the operations that change files, and breaks one of them."""

    NAMES = ("open", "write", "fsync", "replace", "rename", "unlink", "remove", "mkdir", "rmdir")

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.done: list[str] = []
        self.breaks_at: int | None = None
        self.error: Callable[[], BaseException] = Killed
        self.half = False
        for name in self.NAMES:
            patch.setattr(os, name, self._wrapped(name, getattr(os, name)))

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*args: Any, **options: Any) -> Any:
            self.count += 1
            if self.count == self.breaks_at:
                if name == "write" and self.half:
                    real(args[0], args[1][: len(args[1]) // 2])
                raise self.error()
            self.done.append(name)
            return real(*args, **options)

        return operation


OPERATIONS: dict[str, tuple[Operation, tuple[Any, Any, Any]]] = {
    "hold": (lambda s: s.hold(held(4)), (bits(held(4)), None, None)),
    "keep": (lambda s: s.keep_pending(pending(4)), (None, bits(pending(4)), None)),
    "drop": (lambda s: s.drop_pending(), (None, "none", None)),
    "remember": (lambda s: s.remember(memory(4)), (None, None, bits(memory(4)))),
    "finish": (lambda s: s.finish({"a": np.ones(3)}), (None, None, None)),
}


def broken_at(
    folder: FolderPlace, act: Operation, n: int, half: bool, error: Callable[[], BaseException]
) -> tuple[bool, BaseException | None]:
    """Open and act, broken at the n-th change of a file: (whether it broke, what came)."""
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch)
        disk.breaks_at, disk.half, disk.error = n, half, error
        store = None
        try:
            store = folder.open()
            act(store)
        except (Killed, StoreError) as stopped:
            return True, stopped
        finally:
            if store is not None:
                store.close()
    return disk.count >= n, None


@pytest.mark.parametrize("half", [False, True], ids=["before", "halfway"])
@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_killed_between_any_two_operations(folder: FolderPlace, name: str, half: bool) -> None:
    act, changes = OPERATIONS[name]
    new = tuple(
        old if change is None else None if change == "none" else change
        for old, change in zip(OLD, changes, strict=True)
    )
    outcomes = []
    n = 1
    while True:
        filled(folder)
        broke, stopped = broken_at(folder, act, n, half, Killed)
        assert (stopped is None) or isinstance(stopped, Killed)
        found = seen(folder)
        assert found in (OLD, new)
        outcomes.append(found)
        assert not list(folder.folder.rglob("*.tmp"))  # the next start has cleaned up
        if not broke:
            break
        n += 1
    assert n > (3 if name == "drop" else 6)
    assert outcomes[0] == OLD
    assert outcomes[-1] == new


def test_killed_in_the_first_start(tmp_path: Path) -> None:
    n = 1
    while True:
        folder = FolderPlace(tmp_path / str(n) / "deep" / "state")
        broke, _ = broken_at(folder, lambda s: s.hold(held()), n, False, Killed)
        assert seen(folder) in (EMPTY, (bits(held()), *EMPTY[1:]))
        if not broke:
            break
        n += 1
    assert n > 10
    assert seen(folder)[0] == bits(held())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_a_full_or_broken_disk_leaves_the_old_state(
    folder: FolderPlace, name: str, number: int
) -> None:
    """At each operation; and the same store object tells what is there afterwards."""
    act, _ = OPERATIONS[name]
    n = 1
    while True:
        filled(folder)
        with folder.open() as store, pytest.MonkeyPatch.context() as patch:
            assert bits(store.held()) == OLD[0]
            disk = Disk(patch)
            disk.breaks_at, disk.half = n, True
            disk.error = lambda: OSError(number, os.strerror(number))
            error = None
            try:
                act(store)
            except StoreError as raised:
                error = str(raised)
            patch.undo()
            if error is None:
                assert disk.count < n
                break
            assert str(folder.folder) in error
            assert ("Input/output error" if number == errno.EIO else "no space left") in error
            assert not list(folder.folder.rglob("*.tmp"))
            inside = bits(store.held()), bits(store.pending()), bits(store.memory())
        assert seen(folder) == inside
        if n <= 3 and name != "drop":
            assert inside == OLD
        n += 1
    assert n > 2


def test_what_is_kept_survives_a_power_failure(folder: FolderPlace) -> None:
    """Contents are on the disk before they get their name, and names before a call returns."""
    filled(folder)
    with folder.open() as store, pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch)
        store.hold(held(4))
        assert disk.done == ["open", "write", "fsync", "replace", "open", "fsync"]
        disk.done.clear()
        store.drop_pending()
        assert disk.done == ["unlink", "open", "fsync"]


def test_writes_that_take_less_than_all(
    folder: FolderPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the system does above 2 GiB."""
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:100]))
    filled(folder)
    assert seen(folder) == OLD


CHILD = """
import sys
from pathlib import Path
from tests.fl.flower.states import TRAINING, held, pending
from quancrypt_fl.flower.stores import FolderStore

with FolderStore(Path(sys.argv[1]), TRAINING) as store:
    for round in range(int(sys.argv[2]), 10**6):
        store.keep_pending(pending(round))
        store.hold(held(round))
        print(round, flush=True)
"""


@pytest.fixture
def child(folder: FolderPlace) -> Iterator[Callable[[int], subprocess.Popen[str]]]:
    """Starts a process that holds state after state."""
    started = []

    def start(first: int) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(folder.folder), str(first)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parents[3],
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()


def test_a_process_that_is_killed(
    folder: FolderPlace, child: Callable[[int], subprocess.Popen[str]]
) -> None:
    """It has the folder alone, and nothing that it acknowledged is lost."""
    first = 0
    for acknowledged in (1, 17):
        process = child(first)
        assert process.stdout
        lines = [int(process.stdout.readline()) for _ in range(acknowledged)]
        assert lines[0] == first
        with pytest.raises(StoreError, match=rf"another process \(pid {process.pid}\) uses this"):
            folder.open()
        process.kill()
        last = [*lines, *map(int, process.stdout.read().split())][-1]
        process.wait()
        with folder.open() as store:
            state = store.held()
            assert state is not None
            assert state.state.round in (last, last + 1)
            assert bits(state) == bits(held(state.state.round))
            training = store.pending()
            assert training is not None
            assert training.round in (state.state.round, state.state.round + 1)
            assert bits(training) == bits(pending(training.round))
        first = state.state.round + 1


def test_killed_while_pruning(folder: FolderPlace) -> None:
    def prepare() -> None:
        for n in range(KEPT_TRAININGS + 1):
            path = folder.folder / f"{n:032x}"
            path.mkdir(exist_ok=True)
            for name in ("held", "pending", "memory"):
                (path / name).write_bytes(b"old")
                os.utime(path / name, (n, n))

    filled(folder)
    n = 1
    broke = True
    while broke:
        prepare()
        broke, _ = broken_at(folder, lambda s: None, n, False, Killed)
        assert seen(folder) == OLD
        left = {path.name for path in folder.folder.iterdir() if path.is_dir()}
        assert left == {*(f"{n:032x}" for n in range(2, KEPT_TRAININGS + 1)), TRAINING}
        n += 1
    assert n > 6
