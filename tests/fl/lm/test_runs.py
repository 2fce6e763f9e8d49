"""Whole fine-tunings: learning, drop-outs, resuming, files, and bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from tests.fl.lm import tiny
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from quancrypt_fl.errors import CheckpointError
from quancrypt_fl.lm.config import FinetuneConfig
from quancrypt_fl.lm.run import Finetuning

Make = Callable[..., FinetuneConfig]

MODES = ("ffa", "sb", "alternate", "both")


def test_perplexity_falls(causal: Make) -> None:
    run = Finetuning(causal(rounds=4, local_steps=8))
    before = run.task.evaluate("test", run.task.weights, [])
    results = run.run()
    values = [record["value"] for record in results["rounds"]]
    assert results["metric"] == "perplexity"
    assert values[-1] == pytest.approx(np.exp(results["rounds"][-1]["test_loss"]))
    assert values[-1] < 0.9 * np.exp(before.loss)
    assert results["totals"]["value"] == values[-1]
    assert results["totals"]["best_value"] == min(values)


def test_a_classifier_learns(classify: Make) -> None:
    longer = classify(
        rounds=5, local_steps=None, local_epochs=3, batch_size=8, target_modules="all-linear"
    )
    results = Finetuning(longer).run()
    assert results["totals"]["value"] > 0.9


def test_rows_are_as_long_as_the_model_allows(causal: Make) -> None:
    run = Finetuning(causal(sequence_length=None))
    assert run.config.sequence_length == 64  # its positions, and fewer than the usual 128
    assert run.task.data.train.inputs.shape[1] == 64
    assert run.identity()["sequence_length"] == 64


@pytest.mark.parametrize("mode", ["ffa", "alternate"])
def test_lost_clients_do_not_count(causal: Make, mode: str) -> None:
    choices: dict[str, Any] = {"mode": mode, "clients": 5, "dropout": 0.4, "rounds": 3}
    encrypted, plain = (Finetuning(causal(**choices, encryption=e)) for e in (True, False))
    results = encrypted.run()
    plain.run()
    assert sum(record["lost"] for record in results["rounds"]) > 0
    for name, tensor in encrypted.state.weights.items():
        np.testing.assert_array_equal(tensor, plain.state.weights[name])
    assert all(record["lora_error"] < 1e-12 for record in results["rounds"])


def test_a_round_without_arrivals_changes_nothing(causal: Make) -> None:
    run = Finetuning(causal(dropout=0.97, rounds=2, clients=2))
    start = run.state.weights
    records = run.run()["rounds"]
    assert [record["participants"] for record in records] == [0, 0]
    assert [record["lora_error"] for record in records] == [None, None]
    assert run.state.weights is start or all(
        (run.state.weights[name] == start[name]).all() for name in start
    )


@pytest.mark.parametrize("weighting", ["integer", "prescaled", "uniform"])
def test_weights_are_those_of_sample_counts(classify: Make, weighting: str) -> None:
    """Dirichlet parts differ in size; plain integers and ciphertexts count them alike."""
    config = classify(partition="dirichlet", dirichlet_alpha=0.3, weighting=weighting, rounds=1)
    run = Finetuning(config)
    counts = [client.samples for client in run._clients]
    assert len(set(counts)) > 1
    task = run.task
    trained = [task.trainer.train(task.weights, p, 0, k)[0] for k, p in enumerate(task.parts)]
    shares = [1] * 3 if weighting == "uniform" else counts
    run.run()
    for name, start in run.task.weights.items():
        deltas = np.array([w[name] - start for w in trained], np.float64)
        mean = np.average(deltas, axis=0, weights=shares)
        moved = run.state.weights[name] - start
        away = np.abs(moved - mean).mean() / np.abs(mean).mean()
        assert away < 0.25, name  # clipping, 8 bits, weights that are small integers
        if weighting != "uniform":
            other = np.average(deltas, axis=0, weights=[1] * 3)
            assert np.abs(moved - mean).sum() < np.abs(moved - other).sum(), name


@pytest.mark.parametrize("mode", MODES)
def test_a_resumed_run_is_the_uninterrupted_one(causal: Make, mode: str, tmp_path: Path) -> None:
    choices: dict[str, Any] = {"mode": mode, "error_feedback": True}
    whole = Finetuning(causal(**choices, rounds=4))
    expected = whole.run()
    Finetuning(causal(**choices, rounds=1, out=tmp_path)).run()
    resumed = Finetuning(causal(**choices, rounds=4, out=tmp_path), resume=True)
    results = resumed.run()
    for name, tensor in whole.state.weights.items():
        np.testing.assert_array_equal(resumed.state.weights[name], tensor)
    assert [r["value"] for r in results["rounds"]] == [r["value"] for r in expected["rounds"]]
    written = json.loads((tmp_path / "results.json").read_text())
    assert written == json.loads(json.dumps(results))


def test_another_base_model_cannot_go_on(causal: Make, tmp_path: Path) -> None:
    Finetuning(causal(rounds=1, out=tmp_path / "out")).run()
    other = tiny.gpt2(tmp_path / "other", width=48)
    with pytest.raises(CheckpointError, match="base model: "):
        Finetuning(causal(rounds=2, out=tmp_path / "out", model=str(other)), resume=True).run()


@pytest.mark.parametrize("mode", MODES)
def test_peft_loads_what_is_written(causal: Make, things: Path, mode: str, tmp_path: Path) -> None:
    run = Finetuning(causal(mode=mode, out=tmp_path))
    run.run()
    base = AutoModelForCausalLM.from_pretrained(things / "gpt2")
    loaded = PeftModel.from_pretrained(base, str(tmp_path)).eval()
    assert loaded.peft_config["default"].base_model_name_or_path == str(things / "gpt2")
    tokens = torch.arange(20)[None] % 30
    run.task.adapter.load(run.model)
    ours = run.task.adapter.model.eval()
    with torch.inference_mode():
        expected = ours(input_ids=tokens).logits
        np.testing.assert_allclose(loaded(input_ids=tokens).logits, expected, atol=1e-5)
        merged = loaded.merge_and_unload()
        np.testing.assert_allclose(merged(input_ids=tokens).logits, expected, atol=1e-4)
    assert (tmp_path / "plot.png").is_file()


def test_peft_loads_a_classifier_with_its_head(
    classify: Make, things: Path, tmp_path: Path
) -> None:
    run = Finetuning(classify(out=tmp_path))
    run.run()
    base = AutoModelForSequenceClassification.from_pretrained(things / "bert", num_labels=2)
    loaded = PeftModel.from_pretrained(base, str(tmp_path)).eval()
    tokens = torch.arange(20)[None] % 30
    run.task.adapter.load(run.model)
    with torch.inference_mode():
        expected = run.task.adapter.model.eval()(input_ids=tokens).logits
        np.testing.assert_allclose(loaded(input_ids=tokens).logits, expected, atol=1e-5)


def test_results_say_what_was_run(causal: Make) -> None:
    results = Finetuning(causal(rounds=1)).run()
    assert {n: results[n] for n in ("schema", "method", "dataset", "model", "task", "mode")} == {
        "schema": 1, "method": "quancrypt", "dataset": "text.txt", "model": "gpt2",
        "task": "causal", "mode": "ffa",
    }  # fmt: skip
    record = results["rounds"][0]
    assert {"value", "lora_error", "bytes", "seconds", "participants", "train_loss"} <= set(record)
    assert set(record["seconds"]) == {"train", "protect", "aggregate", "unprotect", "evaluate"}
    assert results["receipt"]["aggregator_held_secret_key"] is False


@pytest.mark.parametrize("mode", ["ffa", "both"])
def test_eight_bits_are_less_than_half_of_float32(causal: Make, tmp_path: Path, mode: str) -> None:
    """From some 50,000 values on: of fewer, whole ciphertexts may be padded by too much."""
    model = tiny.gpt2(tmp_path / "wide", width=256)
    config = causal(
        model=str(model), mode=mode, rank=40, rounds=2, local_steps=1, max_test_samples=4
    )
    results = Finetuning(config).run()
    float32 = results["totals"]["float32_update_bytes"]
    assert float32 >= 4 * 50_000
    assert results["rounds"][1]["bytes"]["upload"] <= 0.5 * float32


def test_a_joint_key_opens_every_turn(causal: Make) -> None:
    joint, plain = (
        Finetuning(causal(mode="alternate", rounds=3, **choices))
        for choices in ({"threshold": 2}, {"encryption": False})
    )
    joint.run()
    plain.run()
    for name, tensor in joint.state.weights.items():
        np.testing.assert_array_equal(tensor, plain.state.weights[name])
