"""A model cut by layers gives the numbers of the whole one; a process holds its part alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BloomConfig, GPT2Config

from quancrypt_fl.errors import ConfigError
from quancrypt_fl.lm.loading import ModelError, load_config
from quancrypt_fl.lm.pipeline_split import ARCHITECTURES, CutModel, Span, cut, spans
from quancrypt_fl.lm.pipeline_weights import load_weights, weight_bytes
from quancrypt_fl.lm.rounding import dequantize_rows, quantize_rows

KINDS = ("gpt2", "llama", "llama-tied", "mistral", "qwen2", "qwen3")
TOKENS = [5, 80, 3, 200, 41, 7, 7, 99, 150, 12, 31]


def parts(folder: Path, stages: int) -> list[CutModel]:
    config = load_config(folder)
    found = []
    for span in spans(config.num_hidden_layers, stages):
        model = cut(config, span)
        load_weights(model, config, folder)
        found.append(model)
    return found


def through(models: list[CutModel], pieces: list[list[int]]) -> torch.Tensor:
    """Logits after each piece, by caches."""
    caches = [model.new_cache() for model in models]
    rows = []
    with torch.no_grad():
        for piece in pieces:
            values = torch.tensor([piece])
            for model, cache in zip(models, caches, strict=True):
                values = model(values, cache)
            rows.append(values[0, -1])
    return torch.stack(rows)


@pytest.mark.parametrize("stages", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_the_whole_model(
    tiny_model: Callable[[str], Path], kind: str, stages: int
) -> None:
    folder = tiny_model(kind)
    with torch.no_grad():
        whole = AutoModelForCausalLM.from_pretrained(folder).eval()
        expected = whole(torch.tensor([TOKENS]), use_cache=False).logits[0, 3:]
    pieces = [TOKENS[:4], *([token] for token in TOKENS[4:])]
    actual = through(parts(folder, stages), pieces)
    assert expected.std() > 0.1
    assert (actual - expected).abs().max() <= 1e-5


def test_every_known_architecture_is_tested() -> None:
    assert {kind.partition("-")[0] for kind in KINDS} == set(ARCHITECTURES)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_stage_holds_its_own_weights_alone(tiny_model: Callable[[str], Path], kind: str) -> None:
    folder = tiny_model(kind)
    stored = load_file(folder / "model.safetensors")
    total = sum(tensor.nbytes for tensor in stored.values())
    models = parts(folder, 3)
    embedding = stored.get("transformer.wte.weight", stored.get("model.embed_tokens.weight"))
    copied = embedding.nbytes if kind == "gpt2" else 0  # tied: the last stage has a copy
    assert sum(weight_bytes(model) for model in models) == total + copied
    names = [{name.partition(".")[2] for name, _ in model.named_parameters()} for model in models]
    assert not any(
        "wte" in name or "embed" in name or "wpe" in name for name in names[1] | names[2]
    )
    assert all(parameter.device.type == "cpu" for m in models for parameter in m.parameters())


def test_names_of_the_base_model_alone_are_known_too(
    tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    """As in the hub's gpt2: no prefix, and buffers of masks that nobody needs any more."""
    folder = tiny_model("gpt2")
    tensors = {
        name.removeprefix("transformer."): tensor
        for name, tensor in load_file(folder / "model.safetensors").items()
    }
    tensors["h.0.attn.bias"] = torch.ones(1, 1, 64, 64)
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    pieces = [TOKENS]
    assert torch.equal(through(parts(tmp_path, 2), pieces), through(parts(folder, 2), pieces))


def test_weights_in_several_files(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tiny_model("llama")
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert torch.equal(through(parts(tmp_path, 2), [TOKENS]), through(parts(folder, 2), [TOKENS]))
    index = tmp_path / "model.safetensors.index.json"
    document = json.loads(index.read_text())
    name = next(iter(document["weight_map"]))
    document["weight_map"][name] = "../other.safetensors"
    index.write_text(json.dumps(document))
    with pytest.raises(ModelError, match="outside of its folder"):
        parts(tmp_path, 2)


def test_a_missing_tensor_is_named(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tiny_model("llama")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.4.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(ModelError, match=r"mlp\.up_proj\.weight \(1 are missing\)"):
        parts(tmp_path, 2)
    tensors["model.layers.4.mlp.up_proj.weight"] = torch.zeros(3, 3)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"shape \(3, 3\); the configuration says \(40, 24\)"):
        parts(tmp_path, 2)


@pytest.mark.parametrize(
    ("layers", "stages", "expected"),
    [
        (5, 2, [(0, 3), (3, 5)]),
        (5, 3, [(0, 2), (2, 4), (4, 5)]),
        (4, 4, [(0, 1), (1, 2), (2, 3), (3, 4)]),
    ],
)
def test_spans_are_even(layers: int, stages: int, expected: list[tuple[int, int]]) -> None:
    assert [(span.first, span.last) for span in spans(layers, stages)] == expected


def test_impossible_splits_are_refused() -> None:
    for stages in (0, 6):
        with pytest.raises(ConfigError, match=f"stages = {stages}: the model has 5 layers"):
            spans(5, stages)
    with pytest.raises(ModelError, match="type 'bloom' are not split; allowed: gpt2, llama"):
        cut(BloomConfig(n_layer=2), Span(0, 1, 2))
    with pytest.raises(ModelError, match="cross-attention"):
        cut(GPT2Config(n_layer=2, add_cross_attention=True), Span(0, 1, 2))


def test_rows_in_8_bits() -> None:
    torch.manual_seed(3)
    x = torch.randn(2, 5, 64) * torch.logspace(-6, 6, 5)[None, :, None]
    x[0, 2] = 0
    values, scales = quantize_rows(x)
    assert values.dtype == torch.int8
    assert scales.shape == (2, 5, 1)
    assert values.abs().max() == 127
    back = dequantize_rows(values, scales, torch.float32)
    assert ((back - x).abs() <= scales / 2 * (1 + 1e-5)).all()
    assert torch.equal(back[0, 2], x[0, 2])
    for dtype in (torch.bfloat16, torch.float16):
        assert dequantize_rows(*quantize_rows(x[:, :2].to(dtype)), dtype).dtype == dtype
