"""Batch-norm statistics: averaged like weights, or kept by each client; counters stay home."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tests.fl.reference import Recorder, assert_same_tensors
from tests.fl.small_nets import batch_norm_net
from tests.fl.spies import watch

from quancrypt_fl import QuanCryptConfig, Simulation
from quancrypt_fl.models import MODELS

MEAN, VAR = "1.running_mean", "1.running_var"
FEW = {"model": "resnet18", "threads": 1, "max_train_samples": 200, "max_test_samples": 50}

Make = Callable[..., QuanCryptConfig]


@pytest.fixture
def small(tiny: Make, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Configurations whose resnet18 is a network of one batch norm."""
    monkeypatch.setitem(MODELS, "resnet18", batch_norm_net)
    return lambda **choices: tiny(**{**FEW, **choices})


@pytest.mark.parametrize("partition", ["iid", "dirichlet"])
def test_averaged_statistics_are_the_mean_of_the_clients(
    small: Make, partition: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within half a step of the quantizer, when no client's change is clipped."""
    config = small(rounds=1, partition=partition, weighting="prescaled", bits=16, clip_factor=50.0)
    simulation = Simulation(config)
    start = simulation.state.weights
    uploads = watch(simulation, monkeypatch)
    simulation.run()
    counts = [client.samples for client in simulation._clients]
    for name in (MEAN, VAR):
        own = [start[name] + uploads.changes[i, 0][name].astype(np.float64) for i in range(4)]
        assert np.ptp(np.array(own), axis=0).max() > 1e-4
        expected = np.average(own, axis=0, weights=counts)
        half_step = uploads.bounds[0, 0][name] / (2**15 - 1) / 2
        after = simulation.state.weights[name]
        np.testing.assert_allclose(after, expected, rtol=0, atol=half_step + 1e-6)


def test_statistics_are_never_pruned(small: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation(small(p_0=0.5, rounds=2))
    uploads = watch(simulation, monkeypatch)
    simulation.run()
    for tensors in uploads.protected.values():
        assert tensors[MEAN].shape == tensors[VAR].shape == (4,)
        assert tensors["0.weight"].size < simulation.state.weights["0.weight"].size


@pytest.mark.parametrize("batch_norm", ["average", "local"])
@pytest.mark.parametrize("method", ["quancrypt", "vanilla"])
def test_what_travels(
    small: Make, batch_norm: str, method: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = small(batch_norm=batch_norm, method=method, rounds=2, out=tmp_path)
    simulation = Simulation(config)
    uploads = watch(simulation, monkeypatch)
    results = simulation.run()
    learned = {"0.weight", "0.bias", "1.weight", "1.bias", "4.weight", "4.bias"}
    expected = learned | ({MEAN, VAR} if batch_norm == "average" else set())
    assert len(uploads.protected) == 8
    for tensors in uploads.protected.values():
        assert set(tensors) - {"quancrypt.mean_magnitudes"} == expected
    assert set(simulation.state.weights) == expected
    assert set(load_file(tmp_path / "model.safetensors")) >= expected
    # Parameters and floating-point buffers; never the counter of batches.
    floats = 40 + 8 + 1440 + 10 + 8
    travelling = floats if batch_norm == "average" else floats - 8
    assert results["totals"]["parameters"] == floats
    assert results["totals"]["float32_update_bytes"] == 4 * travelling


def test_each_client_trains_and_evaluates_with_its_own(
    small: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulation = Simulation(small(batch_norm="local", participation=0.5, rounds=4))
    trainer, own = simulation.task.trainer, dict(simulation.task.own_buffers)
    kept = dict.fromkeys(range(4), own)
    train, evaluate = trainer.train, trainer.evaluate
    evaluated: list[tuple[np.ndarray, Any]] = []

    def trained(weights: Any, samples: Any, t: int, client: int) -> Any:
        for name in (MEAN, VAR):
            np.testing.assert_array_equal(weights[name], kept[client][name])
        after, loss = train(weights, samples, t, client)
        kept[client] = {name: after[name].copy() for name in (MEAN, VAR)}
        return after, loss

    def evaluating(weights: Any, samples: Any) -> Any:
        evaluated.append((weights[MEAN], samples))
        return evaluate(weights, samples)

    monkeypatch.setattr(trainer, "train", trained)
    monkeypatch.setattr(trainer, "evaluate", evaluating)
    results = simulation.run()
    for client in simulation._clients:
        assert_same_tensors(dict(client.memory.buffers) or own, kept[client.index])
    assert len({kept[i][MEAN].tobytes() for i in range(4)}) == 4
    # Round by round the whole test set, then the validation set: a part per client.
    assert len(evaluated) == 4 * 4 + 4
    last_round = evaluated[12:16]
    for client, (mean, _) in enumerate(last_round):
        np.testing.assert_array_equal(mean, kept[client][MEAN])
    seen = np.concatenate([samples.images for _, samples in last_round])
    images = simulation.task.samples["test"].images
    assert sorted(image.tobytes() for image in seen) == sorted(x.tobytes() for x in images)
    right = 0.0
    for client, (_, samples) in enumerate(last_round):
        model = {**simulation.state.weights, **kept[client]}
        right += evaluate(model, samples).accuracy * len(samples)
    assert results["rounds"][-1]["test_accuracy"] == pytest.approx(right / len(images))


@pytest.mark.parametrize("test_samples", [1, 2, 3, 5])
def test_few_samples_are_all_evaluated(small: Make, test_samples: int) -> None:
    simulation = Simulation(small(batch_norm="local", max_test_samples=test_samples, rounds=1))
    accuracy = simulation.run()["rounds"][0]["test_accuracy"]
    assert accuracy * test_samples == pytest.approx(round(accuracy * test_samples))


@pytest.mark.parametrize("batch_norm", ["average", "local"])
def test_a_negative_variance_counts_as_zero(small: Make, batch_norm: str) -> None:
    """Rounding may push a mean of small variances below 0, whose square root would be NaN."""
    simulation = Simulation(small(batch_norm=batch_norm, rounds=1))
    below = np.array([-0.01, 0.5, -1e-9, 0.0], np.float32)
    if batch_norm == "average":
        weights = {**simulation.state.weights, VAR: below}
        simulation.state = replace(simulation.state, weights=weights)
    else:
        for client in simulation._clients:
            client.memory.buffers = {**simulation.task.own_buffers, VAR: below}
    trainer, client = simulation.task.trainer, simulation._clients[0]
    evaluation = trainer.evaluate(
        client.model(simulation.state.weights), simulation.task.samples["test"]
    )
    assert np.isfinite(evaluation.loss)
    layer = trainer._batch_norms[0]
    assert layer.running_var is not None
    np.testing.assert_array_equal(layer.running_var.numpy(), np.maximum(below, 0))
    after = client.train(simulation.state)
    assert np.isfinite(after.loss)
    assert all(np.isfinite(tensor).all() for tensor in after.weights.values())
    results = simulation.run()
    assert np.isfinite(results["rounds"][0]["test_loss"])


@pytest.mark.parametrize("choices", [{}, {"error_feedback": True}, {"update": "weights"}], ids=str)
def test_two_bits_do_not_break_it(small: Make, choices: dict[str, Any]) -> None:
    """Coarse statistics, trained on for many rounds: whatever they become, losses are finite."""
    config = small(bits=2, rounds=12, clip_factor=5.0, **choices)
    recorder = Recorder()
    simulation = recorder.simulation = Simulation(config, observer=recorder)
    results = simulation.run()
    assert all(np.isfinite(record["test_loss"]) for record in results["rounds"])
    assert all(np.isfinite(state.weights[VAR]).all() for state in recorder.states)


def test_resnet18_has_its_buffers_and_no_counters() -> None:
    config = QuanCryptConfig(model="resnet18", clients=2, max_train_samples=20)
    simulation = Simulation(config)
    names = set(simulation.state.weights)
    buffers = {n for n in names if n.endswith(("running_mean", "running_var"))}
    assert (len(names), len(buffers)) == (62 + 40, 40)
    assert simulation.task.trainer.buffer_names == buffers
    counters = [n for n, t in simulation.task.trainer._model.state_dict().items() if n not in names]
    assert len(counters) == 20
    state = simulation.task.trainer._model.state_dict()
    assert all(
        state[n].dtype == torch.int64 and n.endswith("num_batches_tracked") for n in counters
    )
    local = Simulation(config.model_copy(update={"batch_norm": "local"}))
    assert set(local.state.weights) == names - buffers
    assert set(local.task.own_buffers) == buffers
