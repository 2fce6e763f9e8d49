"""Adapters merged into their models: the weights of peft's own merge and of the formula."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tests.fl.lm import tiny
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from quancrypt_fl.cli.app import run
from quancrypt_fl.lm.loading import ModelError
from quancrypt_fl.lm.merging import load_adapted, merged, task_of

RANK, ALPHA = 3, 6.0
TARGETS = {"gpt2": ["c_attn", "c_proj"], "llama": ["q_proj", "v_proj", "down_proj"]}


def adapter(base: Path, folder: Path, kind: str) -> Path:
    """An adapter with no zero in it, as peft writes one."""
    if kind == "bert":
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
        config = LoraConfig(
            task_type="SEQ_CLS", r=RANK, lora_alpha=ALPHA, target_modules=["query", "value"],
            modules_to_save=["classifier", "bert.pooler"],
        )  # fmt: skip
    else:
        model = AutoModelForCausalLM.from_pretrained(base)
        config = LoraConfig(
            task_type="CAUSAL_LM", r=RANK, lora_alpha=ALPHA, target_modules=TARGETS[kind],
            fan_in_fan_out=kind == "gpt2",
        )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(2)
        adapted = get_peft_model(model, config)
        for name, parameter in adapted.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.data.copy_(torch.randn_like(parameter) * 0.2)
    adapted.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_merged_weights_are_those_of_the_formula_and_of_peft(
    tiny_model: Callable[[str], Path], tmp_path: Path, kind: str
) -> None:
    base, tuned = tiny_model(kind), adapter(tiny_model(kind), tmp_path / "adapter", kind)
    command = ["lm", "merge", "--model", str(base), "--adapter", str(tuned)]
    assert run([*command, "--out", str(tmp_path / "out")]) == 0
    written = load_file(tmp_path / "out" / "model.safetensors")
    original = load_file(base / "model.safetensors")
    factors = load_file(tuned / "adapter_model.safetensors")
    changed = set()
    for name, tensor in original.items():
        stem = "base_model.model." + name.removesuffix(".weight")
        if (a := factors.get(f"{stem}.lora_A.weight")) is None:
            assert torch.equal(written[name], tensor)
            continue
        changed.add(name)
        b = factors[f"{stem}.lora_B.weight"]
        added = (ALPHA / RANK) * (b.numpy().astype(np.float64) @ a.numpy().astype(np.float64))
        expected = tensor.numpy() + (added.T if kind == "gpt2" else added)
        np.testing.assert_allclose(written[name].numpy(), expected, rtol=0, atol=1e-6)
    assert len(changed) == len(factors) // 2 > 5
    by_peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tuned)
    theirs = by_peft.merge_and_unload().state_dict()
    for name, tensor in AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict().items():
        assert torch.equal(tensor, theirs[name])


def test_the_merged_model_says_what_the_adapted_one_says(
    tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    tuned = adapter(tiny_model("gpt2"), tmp_path / "adapter", "gpt2")
    adapted = load_adapted(tiny_model("gpt2"), tuned)
    ids = torch.arange(20)[None]
    with torch.no_grad():
        plain = AutoModelForCausalLM.from_pretrained(tiny_model("gpt2")).eval()(ids).logits
        expected = adapted(input_ids=ids).logits
        actual = merged(adapted)(input_ids=ids).logits
    assert (expected - plain).abs().max() > 0.1
    assert (actual - expected).abs().max() <= 1e-5


def test_a_classifier_with_a_head_of_its_own(tmp_path: Path) -> None:
    """The base has no head; the adapter has it, and knows how many classes there are."""
    base = tiny.bert(tmp_path / "bert")
    tuned = adapter(base, tmp_path / "adapter", "bert")
    assert task_of(tuned) == "classify"
    command = ["lm", "merge", "--model", str(base), "--adapter", str(tuned)]
    assert run([*command, "--out", str(tmp_path / "out")]) == 0
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    assert model.config.num_labels == 3
    ids = torch.arange(4, 14)[None]
    with torch.no_grad():
        expected = load_adapted(base, tuned)(input_ids=ids).logits
        assert (model(input_ids=ids).logits - expected).abs().max() <= 1e-5
    factors = load_file(tuned / "adapter_model.safetensors")
    head = factors["base_model.model.classifier.weight"]
    assert torch.equal(model.classifier.weight, head)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer("abc")["input_ids"] == AutoTokenizer.from_pretrained(base)("abc")["input_ids"]


def test_a_classifier_without_a_head_is_refused(tmp_path: Path) -> None:
    from quancrypt_fl.lm.loading import load_model

    with pytest.raises(ModelError, match=r"has no weights for bert\.pooler.*, classifier\.bias of"):
        load_model(tiny.bert(tmp_path / "bert"), "classify")


def test_what_does_not_fit_is_refused(
    tiny_model: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tiny_model("llama")
    tuned = adapter(base, tmp_path / "adapter", "llama")

    def refused(given: Path, out: str = "out", model: Path = base) -> str:
        command = ["lm", "merge", "--model", str(model), "--adapter", str(given)]
        assert run([*command, "--out", str(tmp_path / out)]) == 2
        assert not (tmp_path / "out").exists()
        assert not list(tmp_path.glob(".out-*"))
        return capsys.readouterr().err

    def changed(**entries: object) -> Path:
        folder = tmp_path / "changed"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tuned, folder)
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps({**config, **entries}))
        return folder

    assert "there is no such folder" in refused(tmp_path / "nowhere")
    assert "has no adapter_config.json" in refused(base)
    assert "'LOHA'; allowed: LORA" in refused(changed(peft_type="LOHA"))
    assert "'TOKEN_CLS'; allowed: CAUSAL_LM" in refused(changed(task_type="TOKEN_CLS"))
    assert "names a Python module to import" in refused(changed(megatron_config={"a": 1}))
    (tmp_path / "full" / "inner").mkdir(parents=True)
    assert "exists already" in refused(tuned, out="full")
    assert "is, or is in" in refused(tuned, out="adapter")
    (tmp_path / "adapter" / "inner").mkdir()
    assert "is, or is in" in refused(tuned, out="adapter/inner/more")
    assert "there is no folder" in refused(tuned, out="a/b")
    assert "size mismatch" in refused(tuned, model=other_width(tmp_path / "wide"))

    folder = changed()
    factors = load_file(folder / "adapter_model.safetensors")
    first = next(iter(factors))
    save_file(
        {**factors, first: factors[first] * float("nan")}, folder / "adapter_model.safetensors"
    )
    assert "does not merge" in refused(folder)
    del factors[first]
    save_file(factors, folder / "adapter_model.safetensors")
    assert "weights are missing" in refused(folder)
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(b"")
    assert "adapter_model.bin, a pickle, which runs what is in it" in refused(folder)


def other_width(folder: Path) -> Path:
    from transformers import LlamaConfig

    config = LlamaConfig(
        vocab_size=259, hidden_size=32, intermediate_size=40, num_hidden_layers=5,
        num_attention_heads=4, num_key_value_heads=2,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder
