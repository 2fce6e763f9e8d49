"""Tiny models from configurations: random weights, no download."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="needs the [lm] extra")
pytest.importorskip("peft", reason="needs the [lm] extra")

import torch
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from quancrypt_fl.training import torch_threads

VOCABULARY = 259  # bytes, and three more
LAYERS = 5  # no multiple of 2 or 3

_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "max_position_embeddings": 64,
    "bos_token_id": 256,
    "eos_token_id": 257,
    "pad_token_id": 258,
}


def config_of(kind: str) -> PreTrainedConfig:
    if kind == "gpt2":
        return GPT2Config(
            vocab_size=VOCABULARY, n_embd=24, n_layer=LAYERS, n_head=4, n_positions=64,
            bos_token_id=256, eos_token_id=257, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
            scale_attn_by_inverse_layer_idx=True,
        )  # fmt: skip
    if kind == "llama":
        return LlamaConfig(**_SIZES)
    if kind == "endless":  # knows no end, and positions for a long time
        endless = {"eos_token_id": None, "max_position_embeddings": 1 << 20}
        return LlamaConfig(**{**_SIZES, **endless})
    if kind == "llama-tied":
        return LlamaConfig(**_SIZES, tie_word_embeddings=True)
    if kind == "mistral":
        return MistralConfig(**_SIZES, sliding_window=7)
    if kind == "qwen2":
        return Qwen2Config(**_SIZES, use_sliding_window=True, sliding_window=7, max_window_layers=2)
    assert kind == "qwen3"
    return Qwen3Config(**_SIZES)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny causal model, by kind; made once."""
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in made:
            with torch.random.fork_rng():
                torch.manual_seed(7)
                model = AutoModelForCausalLM.from_config(config_of(kind))
                for parameter in model.parameters():  # far from zero: errors show
                    parameter.data.add_(torch.randn_like(parameter) * 0.1)
            made[kind] = tmp_path_factory.mktemp("models") / kind
            model.save_pretrained(made[kind])
        return made[kind]

    return folder


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny classifier of three classes, without a tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "bert"
    with torch.random.fork_rng():
        torch.manual_seed(7)
        config = BertConfig(
            vocab_size=64, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=24, max_position_embeddings=32, num_labels=3,
        )  # fmt: skip
        BertForSequenceClassification(config).save_pretrained(folder)
    return folder
