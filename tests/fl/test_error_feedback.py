"""Error feedback: nothing of an update is lost, only late."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from tests.fl.fakes import federation
from tests.fl.reference import Recorder, assert_same_tensors, kept_and_gain
from tests.fl.spies import Uploads, watch

from quancrypt_fl import QuanCryptConfig, Simulation

TinyConfig = Callable[..., QuanCryptConfig]
FEW = {"max_train_samples": 200, "max_test_samples": 40, "error_feedback": True}


def watched(
    config: QuanCryptConfig, monkeypatch: pytest.MonkeyPatch
) -> tuple[Simulation, Uploads, Recorder]:
    recorder = Recorder()
    simulation = recorder.simulation = Simulation(config, observer=recorder)
    uploads = watch(simulation, monkeypatch)
    recorder.states.append(simulation.state)
    recorder.residuals.append({i: {} for i in range(simulation.config.clients)})
    simulation.run()
    return simulation, uploads, recorder


@pytest.mark.parametrize(
    "choices",
    [
        {"bits": 3},
        {"bits": 8, "p_0": 0.5},
        {"bits": 4, "mask": "client", "p_0": 0.5},
        {"bits": 2, "rounding": "stochastic", "mask": "client"},
        {"bits": 4, "clip_factor": 1.0, "pruning": False, "encryption": False},
        {"bits": 4, "dropout": 0.4, "participation": 0.75, "seed": 2},
    ],
    ids=str,
)
def test_what_was_sent_and_what_is_left_add_up(
    tiny: TinyConfig, choices: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over all rounds in which a client's update arrived, as its key holders can see them."""
    config = tiny(rounds=4, **FEW, **choices)
    simulation, uploads, recorder = watched(config, monkeypatch)
    shared = config.mask == "shared"
    rate = config.p_0 if config.pruning and shared else 0.0
    for client in simulation._clients:
        i = client.index
        arrived = [t for t in range(4) if (i, t) in uploads.opened]
        for name, start in recorder.states[0].weights.items():
            sent = np.zeros(start.shape, np.float64)
            for t in arrived:
                kept, _ = kept_and_gain(recorder.states[t].weights[name], rate, t)
                sent[kept] += uploads.opened[i, t][name].reshape(sent[kept].shape)
            made = sum(uploads.changes[i, t][name].astype(np.float64) for t in arrived)
            left = client.memory.residual.get(name, np.zeros(start.shape, np.float32))
            assert np.abs(left).max() > 0 or not arrived
            np.testing.assert_allclose(sent + left, made, rtol=0, atol=2e-6)


def test_a_lost_client_keeps_its_residual(
    tiny: TinyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(rounds=4, dropout=0.5, bits=3, seed=2, **FEW)
    _, uploads, recorder = watched(config, monkeypatch)
    lost = [(i, t) for i, t in uploads.changes if (i, t) not in uploads.opened]
    assert any(t > 0 and recorder.residuals[t][i] for i, t in lost)
    for i, t in uploads.changes:
        before, after = recorder.residuals[t][i], recorder.residuals[t + 1][i]
        if (i, t) in lost:
            assert_same_tensors(before, after)
        else:
            assert any((after[n] != before.get(n, 0)).any() for n in after)


def test_a_sum_that_is_not_opened_leaves_residuals_as_they_were(tiny: TinyConfig) -> None:
    """Too few updates arrive: nothing of those that did has been sent."""
    config = tiny(rounds=3, dropout=0.4, min_arrivals=3, bits=3, seed=8, **FEW)
    recorder = Recorder()
    simulation = recorder.simulation = Simulation(config, observer=recorder)
    arrivals = [record["participants"] for record in simulation.run()["rounds"]]
    unopened = [t for t, count in enumerate(arrivals) if t and 0 < count < 3]
    assert unopened == [1, 2]
    assert any(recorder.residuals[0].values())
    for t in unopened:
        for client, before in recorder.residuals[t - 1].items():
            assert_same_tensors(before, recorder.residuals[t][client])


def test_it_brings_back_what_rounding_loses() -> None:
    """A constant pull of a fifth of a step is rounded away in every round, and is not with it."""
    change = np.full((10, 10), 0.003, np.float32)
    change[0] = 0.3  # mean 0.033, bound 0.098, step 0.014 with 4 bits
    start, rounds = {"w": np.zeros((10, 10), np.float32)}, 60

    def after(**choices: Any) -> np.ndarray:
        run = federation(start, [{"w": change}] * 2, bits=4, pruning=False, **choices)
        for _ in range(rounds):
            run.round()
        return run.state.weights["w"]

    assert not after(error_feedback=False)[1:].any()
    small = after(error_feedback=True)[1:]
    assert small.min() > 0.5 * rounds * 0.003
    assert small.max() < 1.5 * rounds * 0.003


def test_without_it_nothing_is_kept(tiny: TinyConfig) -> None:
    simulation = Simulation(tiny(rounds=1, **{**FEW, "error_feedback": False}))
    simulation.run()
    assert not any(client.memory.residual for client in simulation._clients)


def test_residuals_are_saved(tiny: TinyConfig, tmp_path: Path) -> None:
    simulation = Simulation(tiny(rounds=2, out=tmp_path, bits=3, **FEW))
    simulation.run()
    for client in simulation._clients:
        (file,) = (tmp_path / "checkpoints").glob(f"client-{client.index}-round-*.safetensors")
        saved = {n.removeprefix("residual/"): x for n, x in load_file(file).items()}
        assert_same_tensors(dict(client.memory.residual), saved)
    names = {path.name for path in tmp_path.rglob("*")}
    assert "client-0-round-00002.safetensors" in names
    assert "client-0-round-00001.safetensors" not in names
