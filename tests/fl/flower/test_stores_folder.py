"""A client's folder: one process at a time, its owner's alone, pruned, and honest errors."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tests.fl.flower.states import OTHER, TRAINING, bits, held, pending

pytest.importorskip("flwr", reason="needs the [flower] extra")

from tests.fl.flower.places import EMPTY, FolderPlace, filled, seen

from quancrypt_fl.flower.stores import KEPT_TRAININGS, FolderStore, StoreError, finished_model

pytestmark = pytest.mark.usefixtures("fast_disk")


@pytest.fixture
def folder(tmp_path: Path) -> FolderPlace:
    return FolderPlace(tmp_path / "state")


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
