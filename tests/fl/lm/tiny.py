"""Tiny models of real architectures, made from their configurations, and texts to train them on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForMaskedLM,
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def _tokenizer(
    *, for_sentences: bool, first: bool = False, **special: str
) -> PreTrainedTokenizerFast:
    """One token per character."""
    characters = [*SPECIAL, *LETTERS, " ", ".", "\n"]
    inner = Tokenizer(models.WordLevel({c: i for i, c in enumerate(characters)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    if for_sentences:
        inner.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    if first:
        inner.post_processor = processors.TemplateProcessing(
            single="[CLS] $A", special_tokens=[("[CLS]", 2)]
        )
        special = {**special, "bos_token": "[CLS]"}
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", **special
    )


def tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer that was written there."""
    return PreTrainedTokenizerFast.from_pretrained(folder)


def gpt2(
    folder: Path, *, width: int = 32, tokenizer: bool = True, vocabulary: int = 64, seed: int = 1
) -> Path:
    """A GPT-2 of two layers with 64 positions."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
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


def clip(folder: Path, *, width: int = 32, **text: int) -> Path:
    """A CLIP of two layers in each tower: images of 16 pixels, prompts of up to 40 tokens."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        config = CLIPConfig(
            text_config=_layers(
                width, vocab_size=64, max_position_embeddings=40, bos_token_id=2, pad_token_id=0,
                **{"eos_token_id": 3, **text},
            ),
            vision_config=_layers(width, image_size=16, patch_size=8),
            projection_dim=16,
        )  # fmt: skip
        CLIPModel(config).save_pretrained(folder)
    _tokenizer(for_sentences=True).save_pretrained(folder)
    return folder


def llava(folder: Path, *, width: int = 32, image_token_id: int = 63) -> Path:
    """A LLaVA of CLIP's vision tower and a LLaMA, both of two layers: 4 tokens for an image."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        config = LlavaConfig(
            vision_config=CLIPVisionConfig(**_layers(width, image_size=16, patch_size=8)),
            text_config=LlamaConfig(
                **_layers(width, vocab_size=64, max_position_embeddings=64, num_key_value_heads=2),
                initializer_range=0.3,  # the output layer stays: it must be able to say much
            ),
            image_token_id=image_token_id,
        )
        LlavaForConditionalGeneration(config).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path, *, first: bool = False) -> None:
    """A tokenizer with an end and, with ``first``, a token that every text begins with."""
    _tokenizer(for_sentences=False, first=first, eos_token="[SEP]").save_pretrained(folder)


def _layers(width: int, **more: int) -> dict[str, int]:
    return {
        "hidden_size": width, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 2 * width, **more,
    }  # fmt: skip


def pictures(folder: Path, train: int = 90, test: int = 40) -> Path:
    """CIFAR-10's files with four of its classes, told apart by the colour of their upper half."""
    rng = np.random.default_rng(3)
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]])
    folder.mkdir(parents=True, exist_ok=True)
    for name, count in (("data_batch_1.bin", train), ("test_batch.bin", test)):
        labels = rng.permutation(np.arange(count) % 4)
        pixels = rng.integers(0, 256, (count, 3, 32, 32))
        pixels[:, :, :16] = (pixels[:, :, :16] + 3 * colours[labels][:, :, None, None]) // 4
        records = np.column_stack([labels, pixels.reshape(count, -1)]).astype(np.uint8)
        (folder / name).write_bytes(records.tobytes())
    return folder


def captions(folder: Path, files: int = 30) -> Path:
    """PNG and JPEG files in two colours, of different sizes, and ``captions.tsv``."""
    rng = np.random.default_rng(4)
    (folder / "some").mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(files):
        name = f"some/{number}.{('png', 'jpg')[number % 2]}"
        height, width = rng.integers(16, 40, 2)
        colour, said = (((255, 0, 0), "red"), ((0, 0, 255), "blue"))[int(rng.integers(2))]
        Image.new("RGB", (int(width), int(height)), colour).save(folder / name)
        lines += [f"{name}\t{said} square", f"{name}\tall is {said}"][: 1 + number % 2]
    (folder / "captions.tsv").write_text("\n".join(lines) + "\n")
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
