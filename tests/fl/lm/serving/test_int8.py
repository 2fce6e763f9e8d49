"""Models in 8 bits: small, near the original, and read back as they were written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.fl.lm import tiny
from tests.fl.lm.serving.test_merging import adapter
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from quancrypt_fl.cli.app import run
from quancrypt_fl.lm import int8_layers
from quancrypt_fl.lm.int8 import load_int8, quantize, save_int8
from quancrypt_fl.lm.int8_layers import Int8Embedding, Int8Linear, has_kernels
from quancrypt_fl.lm.loading import INT8_WEIGHTS, ModelError, load_config, load_model
from quancrypt_fl.lm.merging import load_adapted, merged
from quancrypt_fl.lm.rounding import dequantize_rows, quantize_rows

METADATA = {"format": "quancrypt-int8", "version": "1"}


@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("inputs", "outputs"), [(64, 48), (24, 7), (5, 3), (130, 65)])
def test_a_layer_is_the_product_with_rounded_weights(
    monkeypatch: pytest.MonkeyPatch,
    inputs: int,
    outputs: int,
    dtype: torch.dtype,
    bias: bool,
    kernels: bool,
) -> None:
    """Within half a step of each row of activations; without kernels, exactly."""
    if kernels and not has_kernels():
        pytest.skip("this torch has no int8 kernels")
    monkeypatch.setattr(int8_layers, "has_kernels", lambda: kernels)
    torch.manual_seed(4)
    layer = nn.Linear(inputs, outputs, bias=bias).to(dtype)
    int8 = Int8Linear(outputs, inputs, dtype, layer.bias)
    int8.round(layer.weight)
    weight = int8.weight.double() * int8.scale.double()[:, None]
    error = (weight - layer.weight.double()).abs()
    assert (error <= int8.scale.double()[:, None] * (0.501 if dtype == torch.float32 else 1)).all()
    x = torch.randn(2, 3, inputs).to(dtype) * torch.tensor([1e-4, 1.0, 1e3])[:, None].to(dtype)
    x[1, 1] = 0
    expected = x.double() @ weight.T + (layer.bias.double() if bias else 0)
    with torch.no_grad():
        actual = int8(x)
        assert torch.equal(int8(x), actual)
    assert actual.dtype == dtype
    assert actual.shape == (2, 3, outputs)
    step = x.double().abs().amax(dim=-1, keepdim=True) / 63 if kernels else torch.zeros(2, 3, 1)
    allowed = step / 2 * weight.abs().sum(dim=1) * 1.01 + 1e-5 * expected.abs().max(-1, True)[0]
    if dtype == torch.bfloat16:
        allowed = allowed + 2**-6 * expected.abs().amax(dim=-1, keepdim=True)
    assert ((actual.double() - expected).abs() <= allowed).all()
    assert kernels == (int8._packed is not None)


def test_an_embedding_gives_rounded_rows() -> None:
    torch.manual_seed(4)
    table = nn.Embedding(30, 8)
    int8 = Int8Embedding(30, 8, torch.float32)
    int8.round(table.weight)
    tokens = torch.tensor([[3, 29, 3]])
    expected = dequantize_rows(*quantize_rows(table.weight.detach()), torch.float32)
    assert torch.equal(int8(tokens), expected[tokens])


@pytest.mark.parametrize("kind", ["gpt2", "llama", "llama-tied", "mistral", "qwen2", "qwen3"])
def test_written_and_read_back(
    tiny_model: Callable[[str], Path], tmp_path: Path, kind: str
) -> None:
    model = load_model(tiny_model(kind))
    ids = torch.arange(30)[None]
    with torch.no_grad():
        original = model(input_ids=ids).logits
    quantize(model)
    save_int8(model, tmp_path)
    with torch.no_grad():
        rounded = model(input_ids=ids).logits
        read = load_int8(tmp_path, "causal")
        assert torch.equal(read(input_ids=ids).logits, rounded)
    assert 0 < (rounded - original).abs().max() < 0.1 * original.abs().max()
    stored = load_file(tmp_path / INT8_WEIGHTS)
    assert {tensor.dtype for tensor in stored.values()} == {torch.int8, torch.float32}
    assert "lm_head.weight" in stored or kind in ("gpt2", "llama-tied")
    rows = [name for name in stored if name.endswith(".scale")]
    assert len({id(tensor) for tensor in stored.values()}) == len(stored)
    assert sum(name.startswith(("lm_head", "model.embed", "transformer.wte")) for name in rows) == (
        1 if kind in ("gpt2", "llama-tied") else 2
    )


def test_bytes_of_a_larger_model(tmp_path: Path) -> None:
    """A little more than a quarter of float32: scales and norms."""
    config = GPT2Config(vocab_size=500, n_embd=128, n_layer=2, n_head=2, n_positions=64)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "float")
    command = ["lm", "merge", "--model", str(tmp_path / "float"), "--int8", "--json"]
    assert run([*command, "--out", str(tmp_path / "out")]) == 0
    before = (tmp_path / "float" / "model.safetensors").stat().st_size
    assert 0.25 < (tmp_path / "out" / INT8_WEIGHTS).stat().st_size / before < 0.28


def test_an_adapter_is_merged_before_rounding(
    tiny_model: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tiny_model("gpt2")
    tuned = adapter(base, tmp_path / "adapter", "gpt2")
    command = ["lm", "merge", "--model", str(base), "--adapter", str(tuned), "--int8", "--json"]
    assert run([*command, "--out", str(tmp_path / "out")]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["weight_bytes"] == (tmp_path / "out" / INT8_WEIGHTS).stat().st_size
    expected = merged(load_adapted(base, tuned))
    quantize(expected)
    ids = torch.arange(30)[None]
    with torch.no_grad():
        found = load_int8(tmp_path / "out", "causal")(input_ids=ids).logits
        assert torch.equal(found, expected(input_ids=ids).logits)


def test_int8_folders_generate_and_are_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, text = tiny.gpt2(tmp_path / "base"), tiny.text(tmp_path / "text.txt")
    small = tmp_path / "int8"
    assert run(["lm", "merge", "--model", str(base), "--out", str(small), "--int8"]) == 0
    assert "x than in float32" in capsys.readouterr().out
    command = ["lm", "generate", "--model", str(small), "--prompt", "ab", "--json"]
    assert run([*command, "--max-new-tokens", "20"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "int8"
    entries = [f"float={base}", f"int8={small}", "--data", str(text), "--sequence-length", "32"]
    assert run(["lm", "evaluate", *entries, "--json"]) == 0
    floats, int8 = json.loads(capsys.readouterr().out)["rows"]
    assert int8["kind"] == "int8"
    assert int8["value"] == pytest.approx(floats["value"], rel=0.01)
    assert int8["value"] != floats["value"]
    assert int8["weight_bytes"] < 0.5 * floats["weight_bytes"]
    assert run(["lm", "pipeline", "--model", str(small), "--prompt", "ab"]) == 2
    assert (
        "has weights in int8, which quancrypt lm generate and evaluate" in capsys.readouterr().err
    )


def test_a_classifier_in_8_bits(tmp_path: Path) -> None:
    base = tiny.bert(tmp_path / "bert")
    tuned = adapter(base, tmp_path / "adapter", "bert")
    command = ["lm", "merge", "--model", str(base), "--adapter", str(tuned), "--int8"]
    assert run([*command, "--out", str(tmp_path / "out")]) == 0
    ids = torch.arange(4, 14)[None]
    with torch.no_grad():
        expected = load_adapted(base, tuned)(input_ids=ids).logits
        actual = load_int8(tmp_path / "out", "classify")(input_ids=ids).logits
    assert (actual - expected).abs().max() < 0.1 * expected.abs().max()
    with pytest.raises(ModelError, match="is for BertForSequenceClassification, not for"):
        load_int8(tmp_path / "out", "causal")


def test_damaged_files_are_refused(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    model = load_model(tiny_model("llama"))
    quantize(model)
    whole = tmp_path / "whole"
    whole.mkdir()
    save_int8(model, whole)
    stored = load_file(whole / INT8_WEIGHTS)

    def refused(tensors: dict[str, torch.Tensor], metadata: dict[str, str] = METADATA) -> str:
        folder = tmp_path / "damaged"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        save_file(tensors, folder / INT8_WEIGHTS, metadata)
        with pytest.raises(ModelError) as caught:
            load_int8(folder, "causal")
        return str(caught.value)

    name = "model.layers.1.mlp.up_proj.weight"
    rest = {key: tensor for key, tensor in stored.items() if key != name}
    assert f"has no {name}" in refused(rest)
    assert "is torch.float32 of shape" in refused({**stored, name: stored[name].float()})
    assert "of shape (3,)" in refused({**stored, name: stored[name][0, :3].clone()})
    assert "which the model does not know" in refused({**stored, "other": torch.zeros(1)})
    assert "is not of the format" in refused(stored, {"format": "pt"})
    assert "version 1" in refused(stored, {**METADATA, "version": "2"})
    assert load_config(whole).architectures == ["LlamaForCausalLM"]


def test_weights_that_are_not_finite_are_refused() -> None:
    model = AutoModelForCausalLM.from_config(
        LlamaConfig(
            vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
            num_attention_heads=1, num_key_value_heads=1,
        )
    )  # fmt: skip
    model.lm_head.weight.data[0, 0] = float("inf")
    with pytest.raises(ModelError, match="a weight of lm_head is not finite"):
        quantize(model)
