"""The four modes: what travels, what is exact, and that encryption changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quancrypt_fl.lm.config import FinetuneConfig
from quancrypt_fl.lm.run import Finetuning, LanguageTask
from quancrypt_fl.method.roles import Tensors

Make = Callable[..., FinetuneConfig]

MODES = ("ffa", "sb", "alternate", "both")
EXACT = 1e-12


def assert_same(one: Tensors, two: Tensors) -> None:
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])


@pytest.mark.parametrize("mode", MODES)
def test_encrypted_equals_plain_integers(causal: Make, mode: str) -> None:
    encrypted, plain = (Finetuning(causal(mode=mode, encryption=e)) for e in (True, False))
    results, twin = encrypted.run(), plain.run()
    assert_same(encrypted.state.weights, plain.state.weights)
    assert encrypted.state.bounds == plain.state.bounds
    for one, two in zip(results["rounds"], twin["rounds"], strict=True):
        assert {k: one[k] for k in ("value", "lora_error", "train_loss")} == {
            k: two[k] for k in ("value", "lora_error", "train_loss")
        }
    assert results["receipt"]["protected"]
    assert not twin["receipt"]["protected"]


@pytest.mark.parametrize("mode", MODES)
def test_a_classifier_and_its_head_are_encrypted_too(classify: Make, mode: str) -> None:
    choices: dict[str, Any] = {"mode": mode, "partition": "dirichlet", "rounding": "stochastic"}
    encrypted, plain = (Finetuning(classify(**choices, encryption=e)) for e in (True, False))
    results, twin = encrypted.run(), plain.run()
    assert_same(encrypted.state.weights, plain.state.weights)
    assert results["metric"] == "accuracy"
    assert [r["value"] for r in results["rounds"]] == [r["value"] for r in twin["rounds"]]
    assert [r["value"] for r in results["rounds"]] == [
        r["test_accuracy"] for r in results["rounds"]
    ]
    start = encrypted.task.weights
    heads = [name for name in start if "classifier" in name]
    assert len(heads) == 2
    changed = {name for name in start if (start[name] != encrypted.state.weights[name]).any()}
    assert changed == set(start)


@pytest.mark.parametrize("make", ["causal", "classify"])
@pytest.mark.parametrize("mode", MODES)
def test_only_both_averages_factors_inexactly(
    mode: str, make: str, request: pytest.FixtureRequest
) -> None:
    config = request.getfixturevalue(make)(mode=mode, rounds=2)
    errors = [r["lora_error"] for r in Finetuning(config).run()["rounds"]]
    if mode == "both":
        assert all(1e-3 < error < 1 for error in errors)
    else:
        assert all(0 <= error < EXACT for error in errors)


def test_the_error_is_that_of_whole_products(causal: Make) -> None:
    """Against products formed here, of factors trained here, with clients that count unequally."""
    run = Finetuning(causal(mode="both", rounds=1, method="vanilla"))
    task, counts = run.task, np.array([client.samples for client in run._clients], np.float64)
    parts = counts / counts.sum()
    trained = [task.trainer.train(task.weights, p, 0, k)[0] for k, p in enumerate(task.parts)]
    wrong = wanted = 0.0
    for name in task.weights:
        if "lora_A" not in name:
            continue
        a = np.array([w[name] for w in trained], np.float64)
        b = np.array([w[name.replace("lora_A", "lora_B")] for w in trained], np.float64)
        product = np.einsum("k,kor,kri->oi", parts, b, a)
        mean = np.einsum("k,kor->or", parts, b) @ np.einsum("k,kri->ri", parts, a)
        wrong += np.square(product - mean).sum()
        wanted += np.square(product).sum()
    reported = run.run()["rounds"][0]["lora_error"]
    assert reported == pytest.approx(np.sqrt(wrong / wanted), rel=0.15)


@pytest.mark.parametrize("mode", MODES)
def test_plaintext_federation_is_federated_averaging(causal: Make, mode: str) -> None:
    """Against weighted means written here, of clients one of which has a block more."""
    config = causal(mode=mode, method="vanilla", clients=4)
    run = Finetuning(config)
    run.run()
    task = LanguageTask(config.resolved())
    weights = dict(task.weights)
    counts = [len(part) for part in task.parts]
    assert len(set(counts)) > 1
    for t in range(2):
        trained = [task.trainer.train(weights, p, t, k)[0] for k, p in enumerate(task.parts)]
        for name in weights:
            mean = sum(n * w[name].astype(np.float64) for n, w in zip(counts, trained, strict=True))
            weights[name] = np.float32(mean / sum(counts))
    for name, tensor in weights.items():
        np.testing.assert_allclose(run.state.weights[name], tensor, rtol=1e-4, atol=1e-6)


def test_encrypted_rounds_are_those_of_a_reference(causal: Make) -> None:
    """Differences, bounds of three mean magnitudes, rounding and weights, written here."""
    config = causal(mode="alternate", rounds=3, max_weight=64)
    run = Finetuning(config)
    run.run()
    task = LanguageTask(config.resolved())
    weights, bounds = dict(task.weights), {}
    shares = run._parties.method.shares([len(part) for part in task.parts])
    total = sum(share.weight for share in shares)
    next_bounds: dict[str, float] = {}
    for t in range(3):
        trained = [task.trainer.train(weights, p, t, k)[0] for k, p in enumerate(task.parts)]
        for name in sorted(name for name in weights if f"lora_{'BA'[t % 2]}" in name):
            deltas = [w[name] - weights[name] for w in trained]
            means = [float(np.abs(delta).mean(dtype=np.float64)) for delta in deltas]
            own = 3.0 * sum(s.weight * m for s, m in zip(shares, means, strict=True)) / total
            bounds[name] = next_bounds.get(name, own)  # the first time: agreed on before
            next_bounds[name] = own
            scaled = [np.clip(d / np.float32(bounds[name]), -1, 1) * 127 for d in deltas]
            summed = sum(s.weight * np.rint(q) for s, q in zip(shares, scaled, strict=True))
            weights[name] = weights[name] + np.float32(summed / 127 / total * bounds[name])
    for name, tensor in weights.items():
        step = bounds[name] / 127
        np.testing.assert_allclose(run.state.weights[name], tensor, rtol=1e-5, atol=1e-3 * step)


def test_what_is_frozen_stays_and_is_the_same_for_all(causal: Make) -> None:
    one, two = Finetuning(causal(mode="ffa")), Finetuning(causal(mode="ffa"))
    assert one.task.fingerprints == two.task.fingerprints
    assert Finetuning(causal(mode="ffa", seed=2)).task.fingerprints != one.task.fingerprints
    assert all("lora_B" in name for name in one.state.weights)
    one.run()
    assert one.task.adapter.fingerprint() == two.task.adapter.fingerprint()


def test_alternate_sends_one_factor_in_turn(causal: Make) -> None:
    run = Finetuning(causal(mode="alternate", rounds=1))
    before = run.state.weights
    run.run()
    for name, tensor in run.state.weights.items():
        assert (tensor is before[name]) == ("lora_A" in name)
    whole = Finetuning(causal(mode="both", rounds=3)).run()
    half = Finetuning(causal(mode="alternate", rounds=3)).run()
    assert half["totals"]["float32_update_bytes"] < 0.6 * whole["totals"]["float32_update_bytes"]


def test_sb_sends_a_square_per_weight(causal: Make) -> None:
    run = Finetuning(causal(mode="sb", rank=6))
    assert {tensor.shape for tensor in run.state.weights.values()} == {(6, 6)}
    for factors in run.task.adapter.factors({n: np.eye(6) for n in run.state.weights}):
        np.testing.assert_allclose(factors.b.T @ factors.b, np.eye(6), atol=1e-5)
        np.testing.assert_allclose(factors.a @ factors.a.T, np.eye(6), atol=1e-5)


@pytest.mark.parametrize("start", ["svd", "random"])
def test_sb_starts_from_the_base_model(things: Path, causal: Make, start: str) -> None:
    task = LanguageTask(causal(mode="sb", sb_init=start).resolved())
    ffa = LanguageTask(causal(mode="ffa").resolved())
    begun = task.evaluate("test", task.weights, [])
    assert begun.loss == pytest.approx(ffa.evaluate("test", ffa.weights, []).loss, rel=1e-6)
    first = next(task.adapter.factors({n: np.eye(4) for n in task.weights}))
    weight = next(
        p
        for n, p in task.adapter.model.named_parameters()
        if n.endswith("c_attn.base_layer.weight")
    )
    values = np.linalg.svd(weight.detach().numpy(), compute_uv=False)[:4]
    found = np.abs(np.diag(first.b.T @ weight.detach().numpy().T @ first.a.T))
    assert np.allclose(found, values, rtol=1e-2) == (start == "svd")
