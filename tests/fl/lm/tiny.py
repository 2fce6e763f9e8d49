"""Tiny models of real architectures, made from their configurations, and texts to train them on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def _tokenizer(*, for_sentences: bool) -> PreTrainedTokenizerFast:
    """One token per character."""
    characters = [*SPECIAL, *LETTERS, " ", ".", "\n"]
    inner = Tokenizer(models.WordLevel({c: i for i, c in enumerate(characters)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    if for_sentences:
        inner.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]")


def gpt2(folder: Path, *, width: int = 32, tokenizer: bool = True, vocabulary: int = 64) -> Path:
    """A GPT-2 of two layers with 64 positions."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        config = GPT2Config(
            vocab_size=vocabulary, n_positions=64, n_embd=width, n_layer=2, n_head=2,
            bos_token_id=None, eos_token_id=None,
        )  # fmt: skip
        GPT2LMHeadModel(config).save_pretrained(folder)
    if tokenizer:
        _tokenizer(for_sentences=False).save_pretrained(folder)
    return folder


def bert(folder: Path) -> Path:
    """A BERT of two layers with 64 positions, without a classifier's head."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        config = BertConfig(
            vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=48, max_position_embeddings=64,
        )  # fmt: skip
        BertForMaskedLM(config).save_pretrained(folder)
    _tokenizer(for_sentences=True).save_pretrained(folder)
    return folder


def text(path: Path, words: int = 900) -> Path:
    """Lines of a few words that follow each other in part by rule."""
    rng = np.random.default_rng(1)
    known = ["".join(rng.choice(list(LETTERS), size=rng.integers(2, 6))) for _ in range(12)]
    at, lines = 0, []
    for number in range(words):
        at = (at + 1) % len(known) if rng.random() < 0.8 else int(rng.integers(len(known)))
        lines.append(known[at] + (".\n" if number % 8 == 7 else " "))
    path.write_text("".join(lines))
    return path


def sentences(folder: Path, train: int = 60, dev: int = 30) -> Path:
    """Sentences with or without many an ``x``, labelled 1 and 0."""
    rng = np.random.default_rng(2)
    folder.mkdir(parents=True, exist_ok=True)
    for name, count in (("train.tsv", train), ("dev.tsv", dev)):
        lines = ["sentence\tlabel"]
        for _ in range(count):
            label = int(rng.integers(2))
            letters = list("abcd" if label == 0 else "xxcd")
            lines.append("".join(rng.choice(letters, size=rng.integers(6, 20))) + f"\t{label}")
        (folder / name).write_text("\n".join(lines) + "\n")
    return folder
