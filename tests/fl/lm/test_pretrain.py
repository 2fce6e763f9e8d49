"""Federated pre-training: the formulas beside plain torch, encryption, resuming, bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.fl.lm.pretrain import data_parallel, diloco

from quancrypt_fl.lm.data_parallel import bytes_beside, synchronous_rounds
from quancrypt_fl.lm.pretrain_config import PretrainConfig
from quancrypt_fl.lm.pretrain_run import Pretraining
from quancrypt_fl.method.roles import Tensors


@pytest.fixture
def make(things: Path) -> Any:
    """Three clients with different parts of a text, three rounds of three steps."""

    def config(**choices: Any) -> PretrainConfig:
        return PretrainConfig(
            **{
                "data": things / "text.txt", "partition": "contiguous", "sequence_length": 32,
                "layers": 1, "width": 16, "heads": 2, "clients": 3, "rounds": 3, "local_steps": 3,
                "threads": 1, "lr": 1e-2, "max_test_samples": 6, **choices,
            }
        )  # fmt: skip

    return config


def check_equal(one: Tensors, other: Tensors) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        np.testing.assert_array_equal(tensor, other[name], err_msg=name)


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"bits": 4, "error_feedback": True},
        {"threshold": 2, "rounds": 2},
        {"pruning": True, "outer_momentum": 0.0},
        {"clients": 6, "aggregation": "median-of-groups", "rounds": 2},
        {"dropout": 0.3, "rounding": "stochastic"},
    ],
    ids=lambda choices: "-".join(choices) or "plain",
)
def test_encrypted_equals_plain_integers(make: Any, choices: dict[str, Any]) -> None:
    """Bit for bit: weights, outer momentum, what uploads have left out, AdamW's state."""
    encrypted, plain = Pretraining(make(**choices)), None
    encrypted.run()
    plain = Pretraining(make(**{**choices, "threshold": None}, encryption=False))
    plain.run()
    start = encrypted.task.weights
    assert all((encrypted.state.weights[name] != start[name]).any() for name in start)
    check_equal(encrypted.state.weights, plain.state.weights)
    check_equal(encrypted.state.momentum, plain.state.momentum)
    assert bool(encrypted.state.momentum) == (choices.get("outer_momentum") != 0.0)
    for one, other in zip(encrypted._clients, plain._clients, strict=True):
        check_equal(one.memory.residual, other.memory.residual)
        check_equal(one.memory.buffers, other.memory.buffers)


@pytest.mark.parametrize(
    "choices",
    [
        {"partition": "iid"},
        {"outer_lr": 0.5, "outer_momentum": 0.6, "warmup_steps": 4, "gradient_clip": 0.5},
        {"outer_lr": 1.0, "outer_momentum": 0.0, "clients": 1, "local_steps": 1, "rounds": 6},
    ],
    ids=["defaults", "other figures", "plain local training"],
)
def test_rounds_are_those_of_diloco(make: Any, choices: dict[str, Any]) -> None:
    """In the clear the federation is DiLoCo as plain torch computes it, AdamW's states kept."""
    run = Pretraining(make(method="vanilla", max_train_samples=90, **choices))
    expected = diloco(run.task, run.config)
    run.run()
    for name, tensor in run.state.weights.items():
        np.testing.assert_allclose(tensor, expected[name], rtol=0, atol=2e-5, err_msg=name)
        assert np.abs(tensor - run.task.weights[name]).max() > 1e-3, name


def test_one_client_and_step_is_plain_local_training(make: Any) -> None:
    """H = 1, outer rate 1, no momentum: what one AdamW does that nobody interrupts."""
    run = Pretraining(
        make(method="vanilla", clients=1, local_steps=1, rounds=6, outer_lr=1.0, outer_momentum=0.0)
    )
    expected = data_parallel(run.task, run.config)
    run.run()
    for name, tensor in run.state.weights.items():
        np.testing.assert_allclose(tensor, expected[name], rtol=0, atol=2e-5, err_msg=name)
    assert run._clients[0].memory.buffers["adamw.step"] == 6


def test_noise_and_momentum_go_together(make: Any) -> None:
    """The mean of noisy integers is an outer gradient like any other."""
    pytest.importorskip("dp_accounting", reason="needs the [privacy] extra")
    pytest.importorskip("opendp", reason="needs the [privacy] extra")
    run = Pretraining(make(dp="discrete-gaussian", bits=16, dp_epsilon=200.0, rounds=2))
    results = run.run()
    assert results["privacy"]
    assert run.state.momentum.keys() == run.task.weights.keys()
    influence = results["rounds"][1]["influence"]
    mean_moves = influence["malformed_coordinate"] / (0.7 * 1.9)
    step, q_max = run._parties.method.step, run._parties.method.q_max  # type: ignore[attr-defined]
    assert mean_moves == pytest.approx(step * q_max)


def test_encryption_is_close_to_the_clear(make: Any) -> None:
    encrypted, clear = Pretraining(make(rounds=4)), Pretraining(make(rounds=4, method="vanilla"))
    losses = [run.run()["totals"]["test_loss"] for run in (encrypted, clear)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_a_resumed_run_is_the_uninterrupted_one(make: Any, tmp_path: Path) -> None:
    """Momentum, AdamW's moments and steps, and what uploads left out come from the checkpoint."""
    choices: dict[str, Any] = {"error_feedback": True, "bits": 4, "participation": 0.7}
    whole = Pretraining(make(**choices, rounds=5))
    expected = whole.run()
    for rounds in (1, 3):
        out = {"out": tmp_path, "rounds": rounds}
        Pretraining(make(**choices, **out), resume=rounds > 1).run()
    resumed = Pretraining(make(**choices, rounds=5, out=tmp_path), resume=True)
    results = resumed.run()
    check_equal(resumed.state.weights, whole.state.weights)
    check_equal(resumed.state.momentum, whole.state.momentum)
    for one, other in zip(resumed._clients, whole._clients, strict=True):
        check_equal(one.memory.buffers, other.memory.buffers)
        check_equal(one.memory.residual, other.memory.residual)
    assert [r["value"] for r in results["rounds"]] == [r["value"] for r in expected["rounds"]]
    assert results["totals"]["tokens"] == expected["totals"]["tokens"]
    assert json.loads((tmp_path / "results.json").read_text()) == json.loads(json.dumps(results))


def test_a_client_that_sits_out_keeps_its_state(make: Any) -> None:
    run = Pretraining(make(participation=0.34, rounds=4))
    run.run()
    steps = [int(c.memory.buffers.get("adamw.step", np.zeros(()))) for c in run._clients]
    assert sum(steps) == 4 * 3
    assert all(count % 3 == 0 for count in steps)
    assert max(steps) > 3


def test_a_round_without_arrivals_changes_nothing(make: Any) -> None:
    run = Pretraining(make(min_arrivals=3, dropout=0.9, rounds=2))
    results = run.run()
    assert max(record["participants"] for record in results["rounds"]) < 3
    check_equal(run.state.weights, run.task.weights)
    assert run.state.momentum == {}


def test_batches_are_full_and_read_every_row_alike(make: Any) -> None:
    trainer = Pretraining(make(batch_size=4, local_steps=5)).task.trainer
    batches = trainer.batches(7, 0, 0)
    assert [len(batch) for batch in batches] == [4] * 5
    assert sorted(np.bincount(np.concatenate(batches), minlength=7)) == [2] + [3] * 6
    assert sorted(np.concatenate(batches)[:7]) == list(range(7))
    for other in (trainer.batches(7, 1, 0), trainer.batches(7, 0, 1)):
        assert (np.concatenate(other) != np.concatenate(batches)).any()
    np.testing.assert_array_equal(trainer.batches(7, 0, 0), batches)


# --- beside data parallelism ---


def test_the_baseline_is_data_parallelism(make: Any) -> None:
    """One model that sees the batches of all workers at once, at equal tokens."""
    run = Pretraining(make(baseline="ddp", max_train_samples=90, warmup_steps=2))
    expected = data_parallel(run.task, run.config)
    trainer, task = run.task.trainer, run.task
    records = synchronous_rounds(trainer, task.weights, task.parts, task.samples["test"], 3)
    for name, tensor in trainer.weights().items():
        np.testing.assert_allclose(tensor, expected[name], rtol=0, atol=2e-5, err_msg=name)
    results = run.run()
    assert results["data_parallel"]["rounds"] == records
    assert results["data_parallel"]["value"] == records[-1]["value"]
    assert [r["tokens"] for r in results["rounds"]] == [r["tokens"] for r in records]
    assert results["data_parallel"]["tokens"] == results["totals"]["tokens"] == 3 * 3 * 3 * 8 * 32


def test_bytes_are_counted_and_compared(make: Any) -> None:
    results = Pretraining(make()).run()
    totals, beside = results["totals"], results["data_parallel"]
    assert beside["steps"] == 3 * 3
    assert beside["bytes"]["upload"] == beside["bytes"]["download"] == 9 * 4 * totals["parameters"]
    sent = sum(record["bytes"]["upload"] for record in results["rounds"])
    assert beside["times_ours"]["upload"] == beside["bytes"]["upload"] / sent
    both = sum(totals["bytes"].values())
    assert beside["times_ours"]["both"] == 2 * beside["bytes"]["upload"] / both
    assert "value" not in beside


def test_hundreds_of_times_fewer_bytes(make: Any) -> None:
    """With the 500 steps of the paper and a model that fills ciphertexts: measured on one round."""
    results = Pretraining(make(rounds=2, width=64, layers=2, local_steps=1, partition="iid")).run()
    last, parameters = results["rounds"][1]["bytes"], results["totals"]["parameters"]
    assert parameters > 100_000
    assert bytes_beside(last, parameters, 500)["times_ours"]["both"] > 400


def test_nothing_sent_is_no_ratio() -> None:
    beside = bytes_beside({"upload": 0, "download": 0}, 10, 2)
    assert beside["bytes"] == {"upload": 80, "download": 80}
    assert beside["times_ours"] == {"upload": None, "download": None, "both": None}
