"""Base models in 4 bits: frozen, smaller, and the same adapters on top of them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.fl.lm import tiny
from transformers import AutoModelForCausalLM

from quancrypt_fl.lm.config import FinetuneConfig
from quancrypt_fl.lm.loading import ModelError, load_model
from quancrypt_fl.lm.quantized import floating_weight, quantization, settle
from quancrypt_fl.lm.run import Finetuning

Make = Callable[..., FinetuneConfig]

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="needs the [qlora] extra"
)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a ``gpt2`` whose layers have multiples of 64 inputs."""
    folder = tmp_path_factory.mktemp("wide")
    tiny.gpt2(folder / "gpt2", width=64)
    return folder


@needs_bitsandbytes
@pytest.mark.parametrize("mode", ["ffa", "sb", "alternate", "both"])
def test_adapters_on_4_bits_travel_like_others(causal: Make, wide: Path, mode: str) -> None:
    choices = {"model": str(wide / "gpt2"), "mode": mode}
    encrypted, plain = (
        Finetuning(causal(**choices, base_precision="nf4", encryption=e)) for e in (True, False)
    )
    results, twin = encrypted.run(), plain.run()
    for name, tensor in encrypted.model.items():
        np.testing.assert_array_equal(tensor, plain.model[name])
        assert tensor.dtype == np.float32
    floating = Finetuning(causal(**choices))
    assert encrypted.model.keys() == floating.task.weights.keys()
    assert results["rounds"][-1]["value"] < results["rounds"][0]["value"]
    values = [record["value"] for record in results["rounds"]]
    assert values == [record["value"] for record in twin["rounds"]]
    assert values != [record["value"] for record in floating.run()["rounds"]]


@needs_bitsandbytes
def test_a_classifiers_fresh_head_stays_in_floating_point(classify: Make, wide: Path) -> None:
    run = Finetuning(classify(model=str(wide / "gpt2"), base_precision="nf4"))
    before = dict(run.task.weights)
    run.run()
    heads = [name for name in before if "score" in name]
    assert heads
    for name in heads:
        assert (run.model[name] != before[name]).any()


@needs_bitsandbytes
def test_weights_take_an_eighth_and_are_near_what_they_were(wide: Path) -> None:
    folder = wide / "gpt2"
    exact = AutoModelForCausalLM.from_pretrained(folder)
    small = load_model(folder, "causal", torch.float32, **quantization("nf4"))
    settle(small)
    name = "transformer.h.0.mlp.c_fc"
    one, two = exact.get_submodule(name), small.get_submodule(name)
    assert two.weight.numel() * two.weight.element_size() * 8 == one.weight.numel() * 4
    wanted, found = one.weight.detach(), floating_weight(two)
    found = found.T if found.shape != wanted.shape else found
    error = float((found - wanted).norm() / wanted.norm())
    assert 0.05 < error < 0.12, "NF4's error of normal weights is some 9 %"
    x = torch.randn(4, 7, 64)
    with torch.no_grad():
        for _ in range(2):  # the first evaluation of a layer would pack it anew
            torch.testing.assert_close(two.eval()(x) - two.bias, x @ found)
    assert torch.equal(floating_weight(two), found.T), "an evaluation leaves the model as it was"


@needs_bitsandbytes
def test_layers_of_broken_blocks_are_refused(causal: Make) -> None:
    with pytest.raises(ModelError, match="has 32 inputs; allowed: layers with a multiple of 64"):
        Finetuning(causal(base_precision="nf4"))


def test_the_package_is_named_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"needs the package bitsandbytes: pip install"):
        quantization("nf4")
    assert quantization("float32") == {}
