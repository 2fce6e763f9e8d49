"""Event files hold what results.json holds, once, however often a run was interrupted."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from quancrypt_fl import QuanCryptConfig, Simulation
from quancrypt_fl.errors import FederatedError
from quancrypt_fl.observer import Observer
from quancrypt_fl.tensorboard import TensorBoardObserver, scalars_of

Make = Callable[..., QuanCryptConfig]

needs_tensorboard = pytest.mark.skipif(
    find_spec("tensorboard") is None,
    reason="needs the [tensorboard] extra",
)


class Stop(Exception):  # noqa: N818 - not an error
    pass


class Interrupted(Observer):
    """Writes rounds like its target and stops the run after some of them."""

    def __init__(self, target: Observer, after: int) -> None:
        self._target, self._after = target, after

    def started(self, config: QuanCryptConfig, finished_rounds: int) -> None:
        self._target.started(config, finished_rounds)

    def round_finished(self, record: Mapping[str, Any]) -> None:
        self._target.round_finished(record)
        if record["round"] == self._after:
            raise Stop


def read(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def assert_equal(folder: Path, results: Mapping[str, Any]) -> None:
    """Every figure of every round stands in the event files, once, in order."""
    events = read(folder)
    expected: dict[str, list[tuple[int, float]]] = {}
    for record in results["rounds"]:
        for tag, value in scalars_of(record):
            expected.setdefault(tag, []).append((record["round"], value))
    assert {"test/accuracy", "train/loss", "seconds/protect", "bytes/upload"} <= set(expected)
    scalars = set(events.Tags()["scalars"])
    assert set(expected) == {tag for tag in scalars if not tag.startswith("final/")}
    for tag, values in expected.items():
        found = events.Scalars(tag)
        assert [event.step for event in found] == [step for step, _ in values], tag
        assert [event.value for event in found] == pytest.approx([v for _, v in values], rel=1e-6)
    (final,) = events.Scalars("final/test_accuracy")
    assert final.value == pytest.approx(results["totals"]["test_accuracy"])


@needs_tensorboard
def test_event_files_hold_the_figures_of_the_rounds(tiny: Make, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = Simulation(tiny(), observer=TensorBoardObserver(tmp_path / "events")).run()
    assert_equal(tmp_path / "events", results)


@needs_tensorboard
def test_the_configuration_is_text_without_folders(tiny: Make, tmp_path: Path) -> None:
    config = tiny(out=tmp_path / "secret-place")
    observer = TensorBoardObserver(tmp_path / "events")
    observer.started(config.resolved(), 0)
    (event,) = read(tmp_path / "events").Tensors("config/text_summary")
    (text,) = event.tensor_proto.string_val
    assert b"| bits | 8 |" in text
    assert b"secret-place" not in text


@needs_tensorboard
def test_a_resumed_run_repeats_no_step(tiny: Make, tmp_path: Path) -> None:
    out, events = tmp_path / "run", tmp_path / "run" / "tensorboard"
    stopping = Interrupted(TensorBoardObserver(events), after=2)
    with pytest.raises(Stop):
        Simulation(tiny(out=out, rounds=4), observer=stopping).run()
    # As if the process had been killed after writing a round that no checkpoint holds.
    ahead = TensorBoardObserver(events)
    ahead.started(tiny().resolved(), 2)
    ahead.round_finished({"round": 3, "test_accuracy": 0.0, "seconds": {}, "bytes": {}})

    observer = TensorBoardObserver(events)
    first = Simulation(tiny(out=out, rounds=4), resume=True, observer=observer).run()
    assert_equal(events, first)
    longer = Simulation(
        tiny(out=out, rounds=5), resume=True, observer=TensorBoardObserver(events)
    ).run()
    assert_equal(events, longer)


@needs_tensorboard
def test_a_fresh_run_replaces_an_earlier_one(tiny: Make, tmp_path: Path) -> None:
    Simulation(tiny(rounds=2), observer=TensorBoardObserver(tmp_path)).run()
    (tmp_path / "notes.txt").write_text("kept")
    results = Simulation(tiny(rounds=1, seed=2), observer=TensorBoardObserver(tmp_path)).run()
    assert_equal(tmp_path, results)
    assert (tmp_path / "notes.txt").exists()


def test_without_the_package_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [m for m in sys.modules if m.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(FederatedError, match=r"pip install 'quancrypt-native\[tensorboard\]'"):
        TensorBoardObserver(tmp_path)
    assert list(tmp_path.iterdir()) == []
