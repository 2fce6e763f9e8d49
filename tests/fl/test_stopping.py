"""Early stopping returns to the best round; the published code never does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from tests.fl.reference import Recorder, assert_same_tensors
from tests.fl.test_simulation import without_times

from quancrypt_fl import QuanCryptConfig, Simulation
from quancrypt_fl.method.stopping import EarlyStopping
from quancrypt_fl.observer import Observer
from quancrypt_fl.training import Evaluation, torch_threads

TinyConfig = Callable[..., QuanCryptConfig]
FEW = {"max_train_samples": 200, "max_test_samples": 100}


@pytest.mark.parametrize(
    ("accuracies", "patience", "stops", "best"),
    [
        ([0.5, 0.6, 0.6, 0.6, 0.9], 2, 4, 2),  # an equal accuracy is not a better one
        ([0.5, 0.6, 0.5, 0.7, 0.6, 0.6, 0.6], 3, 7, 4),
        ([0.9, 0.1], 1, 2, 1),
        ([0.1, 0.2, 0.3], 1, None, 3),
        ([0.0, 0.0, 0.0], 5, None, 1),
    ],
)
def test_the_rule(accuracies: Sequence[float], patience: int, stops: int | None, best: int) -> None:
    stopping = EarlyStopping(patience)
    assert not stopping.should_stop(0)
    stopped = None
    for finished, accuracy in enumerate(accuracies, 1):
        stopping.note(finished, accuracy, 1.5, {"w": np.array([finished], np.float32)})
        if stopped is None and stopping.should_stop(finished):
            stopped = finished
            break
    assert stopped == stops
    assert stopping.best is not None
    assert stopping.best.round == best
    assert stopping.best.accuracy == accuracies[best - 1]
    assert stopping.best.weights["w"][0] == best


def scripted(
    config: QuanCryptConfig,
    accuracies: Sequence[float],
    *,
    resume: bool = False,
    observer: Observer | None = None,
) -> tuple[Simulation, Recorder]:
    """A simulation whose validation accuracy after round n is ``accuracies[n - 1]``."""
    recorder = Recorder() if observer is None else observer
    simulation = Simulation(config, resume=resume, observer=recorder)
    if isinstance(recorder, Recorder):
        recorder.simulation = simulation
    evaluate = simulation.task.trainer.evaluate

    def scripted_evaluation(weights: Any, samples: Any) -> Evaluation:
        if samples is simulation.task.samples["validation"]:
            return Evaluation(accuracies[simulation.state.round - 1], 1.0)
        return evaluate(weights, samples)

    simulation.task.trainer.evaluate = scripted_evaluation  # type: ignore[method-assign]
    return simulation, recorder  # type: ignore[return-value]


SCRIPT = [0.3, 0.7, 0.5, 0.7, 0.6, 0.9, 0.9, 0.9]


def test_a_run_stops_and_returns(tiny: TinyConfig, tmp_path: Path) -> None:
    config = tiny(rounds=8, patience=3, out=tmp_path, **FEW)
    simulation, recorder = scripted(config, SCRIPT)
    results = simulation.run()
    totals = results["totals"]
    assert [r["validation_accuracy"] for r in results["rounds"]] == SCRIPT[:5]
    assert (totals["rounds"], totals["final_round"]) == (5, 2)
    assert totals["test_accuracy"] == results["rounds"][1]["test_accuracy"]
    assert totals["test_loss"] == results["rounds"][1]["test_loss"]
    best = recorder.states[1].weights
    assert_same_tensors(load_file(tmp_path / "model.safetensors"), dict(best))
    assert_same_tensors(dict(simulation.model), dict(best))
    assert any((best[n] != w).any() for n, w in recorder.states[4].weights.items())
    with torch_threads(1):
        tested = Simulation(config).task.trainer.evaluate(best, simulation.task.samples["test"])
    assert tested.accuracy == totals["test_accuracy"]


def test_the_best_may_be_the_last(tiny: TinyConfig, tmp_path: Path) -> None:
    config = tiny(rounds=3, patience=1, out=tmp_path, **FEW)
    simulation, recorder = scripted(config, [0.1, 0.2, 0.3])
    totals = simulation.run()["totals"]
    assert (totals["rounds"], totals["final_round"]) == (3, 3)
    written = load_file(tmp_path / "model.safetensors")
    assert_same_tensors(written, dict(recorder.states[2].weights))


def test_it_is_real_validation_accuracy(tiny: TinyConfig) -> None:
    """Recorded accuracies are those of the weights on the validation set, and decide."""
    simulation = Simulation(tiny(rounds=6, patience=1, seed=4, lr=0.02, **FEW))
    recorder = Recorder()
    recorder.simulation = simulation
    simulation._observer = recorder
    results = simulation.run()
    recorded = [record["validation_accuracy"] for record in results["rounds"]]
    with torch_threads(1):
        for state, accuracy in zip(recorder.states, recorded, strict=True):
            evaluation = simulation.task.trainer.evaluate(
                state.weights, simulation.task.samples["validation"]
            )
            assert evaluation.accuracy == accuracy
    assert results["totals"]["final_round"] == 1 + int(np.argmax(recorded))
    assert results["totals"]["validation_accuracy"] == max(recorded)


def test_without_patience_nothing_is_validated_or_kept(tiny: TinyConfig, tmp_path: Path) -> None:
    simulation = Simulation(tiny(rounds=2, out=tmp_path, **FEW))
    results = simulation.run()
    assert all("validation_accuracy" not in record for record in results["rounds"])
    assert results["totals"]["final_round"] == 2
    assert not list((tmp_path / "checkpoints").glob("best-*"))
    written = load_file(tmp_path / "model.safetensors")
    assert_same_tensors(written, dict(simulation.state.weights))


class _StopAfter(Observer):
    def __init__(self, finished: int) -> None:
        self.finished_rounds = finished

    def round_finished(self, record: Any) -> None:
        if record["round"] == self.finished_rounds:
            raise KeyboardInterrupt


@pytest.mark.parametrize("interrupted", range(1, 6))
def test_resuming_equals_an_uninterrupted_run(
    tiny: TinyConfig, tmp_path: Path, interrupted: int
) -> None:
    whole, _ = scripted(tiny(rounds=8, patience=3, **FEW), SCRIPT)
    expected = whole.run()
    config = tiny(rounds=8, patience=3, out=tmp_path, **FEW)
    cut, _ = scripted(config, SCRIPT, observer=_StopAfter(interrupted))
    with pytest.raises(KeyboardInterrupt):
        cut.run()
    resumed, _ = scripted(config, SCRIPT, resume=True)
    assert without_times(resumed.run()) == without_times(expected)
    assert_same_tensors(dict(resumed.model), dict(whole.model))
    assert_same_tensors(load_file(tmp_path / "model.safetensors"), dict(whole.model))


def test_a_run_that_has_stopped_does_not_go_on(
    tiny: TinyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = scripted(tiny(rounds=8, patience=3, out=tmp_path, **FEW), SCRIPT)[0].run()
    again, _ = scripted(tiny(rounds=30, patience=3, out=tmp_path, **FEW), SCRIPT, resume=True)

    def forbidden(*_: object) -> None:
        raise AssertionError("a stopped run trains no more")

    monkeypatch.setattr(again.task.trainer, "train", forbidden)
    results = again.run()
    assert results["totals"] == expected["totals"]
    assert results["receipt"]["keys"] == expected["receipt"]["keys"]
