"""What a client keeps: whole, and old or new, whatever stops it and whenever."""

from __future__ import annotations

import errno
import logging
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from tests.fl.flower.states import OTHER, TRAINING, bits, held, memory, pending

pytest.importorskip("flwr", reason="needs the [flower] extra")

from flwr.app import ArrayRecord, ConfigRecord
from tests.fl.flower.places import EMPTY, ContextPlace, FolderPlace, Place, seen

from quancrypt_fl.flower.context_store import MODEL
from quancrypt_fl.flower.stores import (
    KEPT_TRAININGS,
    ClientStore,
    FolderStore,
    Store,
    StoreError,
    finished_model,
)
from quancrypt_fl.flower.tensors_file import pack

Operation = Callable[[Store], None]


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a power failure would show whether data reached the disk."""
    monkeypatch.setattr(os, "fsync", os.fstat)


@pytest.fixture
def folder(tmp_path: Path) -> FolderPlace:
    return FolderPlace(tmp_path / "state")


@pytest.fixture(params=["folder", "context"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return FolderPlace(tmp_path / "state") if request.param == "folder" else ContextPlace()


# --- the contract of both stores ---


def test_empty_at_first(place: Place) -> None:
    assert seen(place) == EMPTY
    with place.open() as store:
        store.drop_pending()
    assert seen(place) == EMPTY


@pytest.mark.parametrize("bounds", [True, False])
@pytest.mark.parametrize("residual", [True, False])
def test_round_trip(place: Place, bounds: bool, residual: bool) -> None:
    state, training, kept = held(bounds=bounds), pending(residual=residual), memory()
    with place.open() as store:
        client_store: ClientStore = store
        client_store.hold(state)
        client_store.keep_pending(training)
        client_store.remember(kept)
        inside = bits(store.held()), bits(store.pending()), bits(store.memory())
    assert seen(place) == inside == (bits(state), bits(training), bits(kept))
    with place.open() as store:
        for tensor in (
            *store.held().state.weights.values(),  # type: ignore[union-attr]
            *store.pending().weights.values(),  # type: ignore[union-attr]
            *store.memory().residual.values(),
        ):
            assert tensor.flags.writeable  # torch warns of others
            assert tensor.flags.aligned


def test_replaced_and_dropped(place: Place) -> None:
    for number in (1, 2):
        with place.open() as store:
            store.hold(held(number))
            store.keep_pending(pending(number))
            store.remember(memory(number))
        assert seen(place) == (bits(held(number)), bits(pending(number)), bits(memory(number)))
    with place.open() as store:
        store.drop_pending()
        assert store.pending() is None
    assert seen(place) == (bits(held(2)), None, bits(memory(2)))


def test_an_empty_residual_is_not_none(place: Place) -> None:
    base = pending()
    for residual in (None, {}):
        kept = type(base)(**{**vars(base), "residual": residual})
        with place.open() as store:
            store.keep_pending(kept)
        with place.open() as store:
            found = store.pending()
            assert found is not None
            assert found.residual == residual


def test_numbers_of_metrics_keep_their_type(place: Place) -> None:
    metrics = {"i": 2**62, "f": 1.0, "third": 1 / 3, "is": [1, -2], "fs": [1.0, 1e-300], "e": []}
    kept = type(pending())(**{**vars(pending()), "metrics": metrics})
    with place.open() as store:
        store.keep_pending(kept)
    with place.open() as store:
        found = store.pending()
        assert found is not None
        assert repr(found.metrics) == repr(metrics)


def test_what_the_caller_does_to_its_memory_is_not_remembered(place: Place) -> None:
    with place.open() as store:
        own = memory()
        store.remember(own)
        own.residual = {}
        store.memory().buffers = {}
        assert bits(store.memory()) == bits(memory())


def test_trainings_are_apart(place: Place) -> None:
    with place.open() as store:
        store.hold(held(1))
    with place.open(OTHER) as store:
        assert store.held() is None
        store.hold(held(2))
    assert seen(place, OTHER)[0] == bits(held(2))


@pytest.mark.parametrize("name", ["held", "pending", "memory"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: bytes(len(data)),
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: data.replace(TRAINING.encode(), OTHER.encode()),
        lambda data: bytes(pack({"kind": "another", "version": 1, "training": TRAINING}, {})),
    ],
    ids=["empty", "half", "cut", "longer", "zeros", "flipped", "changed", "another"],
)
def test_what_is_damaged_counts_as_absent(
    place: Place, name: str, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    whole = (bits(held()), bits(pending()), bits(memory()))
    with place.open() as store:
        store.hold(held())
        store.keep_pending(pending())
        store.remember(memory())
    place.set(name, damage(place.get(name)))
    with caplog.at_level(logging.WARNING, "quancrypt_fl"):
        found = seen(place)
    absent = ("held", "pending", "memory").index(name)
    assert found == (*whole[:absent], EMPTY[absent], *whole[absent + 1 :])
    assert len(caplog.records) == 1
    assert name in caplog.text
    assert "counts as absent" in caplog.text
    with place.open() as store:  # and is replaced by the next
        store.hold(held())
        store.keep_pending(pending())
        store.remember(memory())
    assert seen(place) == whole


def test_state_of_another_training_counts_as_absent(place: Place) -> None:
    with place.open() as store:
        store.hold(held())
    data = place.get("held")
    with place.open() as store:
        store.hold(held(4))
    assert data.count(TRAINING.encode()) == 1
    with place.open(OTHER) as store:
        store.hold(held(5))
        other = store._read("held")
    assert other is not None
    with place.open() as store:
        store.hold(held())
    place.set("held", bytes(other))
    assert seen(place)[0] is None


@pytest.mark.parametrize("training", ["", "../" * 10 + "x" * 2, "A" * 32, "0" * 31, "0" * 33])
def test_only_ids_name_trainings(place: Place, training: str) -> None:
    with pytest.raises(StoreError, match="allowed: 32 hexadecimal digits"):
        place.open(training)


def test_finished_models(place: Place) -> None:
    model = {
        "z": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "half": np.ones(2, dtype=np.float16),
        "count": np.array(7, dtype=np.int64),
    }
    with place.open() as store:
        store.hold(held())
        store.finish(model)
        store.finish(model)
    if isinstance(place, FolderPlace):
        found = load_file(finished_model(place.folder, TRAINING))
    else:
        assert isinstance(place, ContextPlace)
        record = place.records[MODEL]
        assert isinstance(record, ArrayRecord)
        found = {name: array.numpy() for name, array in record.items()}
    assert found.keys() == model.keys()
    for name, tensor in model.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        np.testing.assert_array_equal(found[name], tensor)
    assert seen(place)[0] == bits(held())


# --- stopped at any moment ---


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
OLD = (bits(held(3)), bits(pending(3)), bits(memory(3)))


def filled(place: Place) -> None:
    with place.open() as store:
        store.hold(held(3))
        store.keep_pending(pending(3))
        store.remember(memory(3))


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


# --- the folder ---


def test_the_folder_belongs_to_one_store(folder: FolderPlace) -> None:
    with folder.open() as store:
        for training in (TRAINING, OTHER):
            with pytest.raises(
                StoreError, match=rf"{folder.folder}: another process \(pid {os.getpid()}\)"
            ):
                folder.open(training)
        store.hold(held())
    with pytest.raises(StoreError, match="has been closed"):
        store.hold(held(4))
    with pytest.raises(StoreError, match="has been closed"):
        store.held()
    assert seen(folder)[0] == bits(held())


def test_a_lock_that_is_given_back_soon(
    folder: FolderPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = folder.open()
    naps: list[float] = []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            store.close()

    monkeypatch.setattr("quancrypt_fl.flower.stores.time.sleep", sleep)
    with FolderStore(folder.folder, TRAINING, wait=60):
        assert len(naps) == 3


def test_the_lock_goes_back_when_opening_fails(
    folder: FolderPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:

        def refuse(self: FolderStore) -> None:
            raise PermissionError(errno.EACCES, "Permission denied", "some/file")

        patch.setattr(FolderStore, "_clean", refuse)
        with pytest.raises(StoreError, match="some/file: cannot be used: Permission denied"):
            folder.open()
    assert seen(folder) == EMPTY


def test_only_the_owner_may_read(folder: FolderPlace) -> None:
    before = os.umask(0)
    try:
        filled(folder)
        with folder.open() as store:
            store.finish({"a": np.ones(2)})
    finally:
        os.umask(before)
    found = [folder.folder, *folder.folder.rglob("*")]
    assert len(found) == 7
    for path in found:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_where_no_folder_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file.*: cannot be used"):
        FolderStore(tmp_path / "file" / "state", TRAINING)
    with pytest.raises(StoreError, match=r"file.*: cannot be used"):
        FolderStore(tmp_path / "file", TRAINING)


def test_a_file_that_cannot_be_read(folder: FolderPlace) -> None:
    filled(folder)
    path = folder.folder / TRAINING / "held"
    path.unlink()
    path.mkdir()
    with folder.open() as store, pytest.raises(StoreError, match="held: cannot be read"):
        store.held()


def test_old_trainings_are_pruned(folder: FolderPlace) -> None:
    """The newest stay, and so do finished models and files that are not ours."""
    ids = [f"{n:032x}" for n in (5, 1, 4, 2, 3)]  # in this order of time
    for age, training in enumerate(ids):
        with folder.open(training) as store:
            store.hold(held(age))
            store.keep_pending(pending(age))
            if training in ids[:2]:
                store.finish({"a": np.full(2, age, dtype=np.float32)})
        for path in (folder.folder / training).iterdir():
            os.utime(path, (1000 + age, 1000 + age))
    strange = folder.folder / "notes"
    strange.mkdir()
    (strange / "held").write_text("mine")
    with folder.open() as store:
        store.hold(held(9))
    left = {path.name for path in folder.folder.iterdir() if path.is_dir()}
    assert left == {*ids[:2], *ids[-(KEPT_TRAININGS - 1) :], TRAINING, "notes"}
    for training in ids[:2]:
        assert [path.name for path in (folder.folder / training).iterdir()] == ["model.safetensors"]
    assert load_file(finished_model(folder.folder, ids[1]))["a"][0] == 1
    assert (strange / "held").read_text() == "mine"
    for age in (3, 4):
        assert (folder.folder / ids[age] / "held").is_file()
        assert seen(folder, ids[age])[:2] == (bits(held(age)), bits(pending(age)))


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


# --- the context ---


def test_the_context_survives_flowers_serialization() -> None:
    from flwr.common.serde import recorddict_from_proto, recorddict_to_proto

    place = ContextPlace()
    filled(place)
    place.records = recorddict_from_proto(recorddict_to_proto(place.records))
    assert seen(place) == OLD
    assert place.records["the app's own"] == ConfigRecord({"a": 1})


def test_the_context_keeps_one_training() -> None:
    place = ContextPlace()
    filled(place)
    with place.open(OTHER) as store:
        store.hold(held(1))
    assert set(place.records) == {"the app's own", f"quancrypt-state-{OTHER}"}
    assert seen(place) == EMPTY
