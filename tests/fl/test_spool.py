"""Updates that wait on disk come back as they were."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.fl.reference import assert_same_tensors, recorded

from quancrypt_fl import QuanCryptConfig
from quancrypt_fl.engines import federation as engine
from quancrypt_fl.method.roles import Update
from quancrypt_fl.method.spool import MEMORY_LIMIT, KeptUploads, spooled
from quancrypt_fl.method.weighting import Share

TinyConfig = Callable[..., QuanCryptConfig]


def updates(count: int, *, whole: bool) -> list[Update]:
    """Shapes of every kind, values with every bit pattern that matters."""
    made = []
    for i in range(count):
        rng = np.random.default_rng(i)
        tensors = {
            "b": rng.standard_normal(i).astype(np.float32),
            "a": np.array([0.0, -0.0, 1e-45, 3e38], np.float32),
            "scalar": np.array(i, np.float32),
            "empty": np.empty((0, 3), np.float32),
            "turned": rng.standard_normal((3, 5)).astype(np.float32).T,
        }
        rest = {name: t + np.float32(1) for name, t in tensors.items()} if whole else None
        made.append(Update(tensors, Share(i + 1, 1 / (i + 1)), rest))
    return made


def assert_same(one: Update, two: Update) -> None:
    assert one.share == two.share
    assert (one.whole is None) == (two.whole is None)
    for left, right in ((one.tensors, two.tensors), (one.whole or {}, two.whole or {})):
        assert list(left) == list(right)
        for name, tensor in left.items():
            assert tensor.shape == right[name].shape
            assert right[name].dtype == np.float32
            assert np.ascontiguousarray(tensor).tobytes() == right[name].tobytes()


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("limit", [0, 1, 100, 300, 1000, MEMORY_LIMIT])
def test_they_come_back_in_order_and_bit_by_bit(limit: int, whole: bool) -> None:
    expected = updates(6, whole=whole)
    with spooled(iter(expected), limit) as held:
        for _ in range(2):
            for one, two in zip(expected, held, strict=True):
                assert_same(one, two)
        interleaved = zip(held, held, strict=True)
        assert all(one.share == two.share for one, two in interleaved)


def test_no_updates() -> None:
    with spooled([], 0) as held:
        assert list(held) == []


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_what_is_over_the_limit_leaves_memory(temporary: Path) -> None:
    alive: list[weakref.ref[np.ndarray]] = []

    def made() -> Iterator[Update]:
        for i in range(5):
            tensor = np.full(100, i, np.float32)
            alive.append(weakref.ref(tensor))
            yield Update({"w": tensor}, Share(1))
            del tensor

    with spooled(made(), limit=2 * 400) as held:
        # The last one may still be the loop's own.
        assert [reference() is not None for reference in alive[:4]] == [True, True, False, False]
        file = held._file  # type: ignore[attr-defined]
        assert file.seek(0, 2) == 3 * 400
        assert [float(update.tensors["w"][0]) for update in held] == [0, 1, 2, 3, 4]
    assert file.closed
    assert list(temporary.iterdir()) == []


def test_nothing_is_left_after_an_error(temporary: Path) -> None:
    def failing() -> Iterator[Update]:
        yield from updates(2, whole=True)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), spooled(failing(), 0):
        raise AssertionError("never reached")
    assert list(temporary.iterdir()) == []


def test_a_file_that_became_shorter_is_an_error() -> None:
    with spooled(updates(2, whole=False), 0) as held:
        held._file.truncate(8)  # type: ignore[attr-defined]
        with pytest.raises(OSError, match="has become shorter"):
            list(held)


@pytest.mark.parametrize("choices", [{}, {"error_feedback": True, "mask": "client"}], ids=str)
@pytest.mark.parametrize("limit", [0, 100_000])
def test_a_run_does_not_depend_on_the_limit(
    tiny: TinyConfig,
    choices: dict[str, Any],
    limit: int,
    monkeypatch: pytest.MonkeyPatch,
    temporary: Path,
) -> None:
    config = tiny(max_train_samples=150, max_test_samples=30, rounds=2, **choices)
    _, _, in_memory = recorded(config)
    monkeypatch.setattr(engine, "spooled", partial(spooled, limit=limit))
    _, _, on_disk = recorded(config)
    for one, two in zip(in_memory.states, on_disk.states, strict=True):
        assert_same_tensors(one.weights, two.weights)
        assert one.bounds == two.bounds
    for left, right in zip(in_memory.residuals, on_disk.residuals, strict=True):
        for client in left:
            assert_same_tensors(left[client], right[client])
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("limit", [1, 7, 25, MEMORY_LIMIT])
def test_uploads_come_back_as_often_as_they_are_needed(limit: int, temporary: Path) -> None:
    uploads = [b"", b"one", bytes(20), b"another one", b""]
    kept = KeptUploads(limit)
    assert list(kept) == []
    for upload in uploads:
        kept.append(upload)
    assert list(kept) == list(kept) == uploads
    kept.append(b"later")
    assert list(kept) == [*uploads, b"later"]
    kept.close()
    assert list(temporary.iterdir()) == []
