"""The model of a pre-training: an architecture with random weights, and what makes its tokens."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from quancrypt_fl.lm.causality import check_causal
from quancrypt_fl.lm.encoders import ByteEncoder, TokenizerEncoder, encoder_of
from quancrypt_fl.lm.loading import load_config, quietly
from quancrypt_fl.lm.pretrain_config import PretrainConfig
from quancrypt_fl.lm.saving import copy_tokenizer, save_plain
from quancrypt_fl.lm.texts import Encoder, read_file
from quancrypt_fl.seeds import derive_seed

__all__ = ["FreshModel", "fresh_model"]

_BYTES = 256
_UNKNOWN = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class FreshModel:
    """A model that has learned nothing.

    Attributes
    ----------
    model
        In float32, on the CPU.
    encoder
        Makes its tokens.
    tokenizer
        A folder that has the tokenizer's files, or the tokenizer, or None where bytes are tokens.
    """

    model: PreTrainedModel
    encoder: Encoder
    tokenizer: Path | PreTrainedTokenizerFast | None

    def save(self, folder: Path) -> None:
        """Write model and tokenizer for ``from_pretrained``, each file whole or not at all."""
        with tempfile.TemporaryDirectory(prefix=".model-", dir=folder) as scratch:
            whole = Path(scratch)
            save_plain(self.model, whole)
            if isinstance(self.tokenizer, Path):
                copy_tokenizer(self.tokenizer, whole)
            elif self.tokenizer is not None:
                self.tokenizer.save_pretrained(whole)
            for file in sorted(whole.iterdir()):
                file.replace(folder / file.name)


def fresh_model(config: PretrainConfig) -> FreshModel:
    """The model that a resolved configuration asks for.

    Raises
    ------
    ModelError, DataError
        If there is no such folder, or it has no model that predicts text, or no text to take
        characters from.
    """
    if config.model is not None:
        folder = config.model.expanduser()
        architecture = load_config(folder)
        vocabulary = int(architecture.get_text_config().vocab_size)
        encoder = encoder_of(folder, vocabulary, "causal")
        model = _random(architecture, folder, config.seed)
        check_causal(folder, model)
        return FreshModel(model, encoder, folder)
    here = config.data.expanduser()
    tokenizer = None if config.vocabulary == "bytes" else _characters(read_file(here))
    assert config.layers is not None
    assert config.width is not None
    assert config.heads is not None
    small = GPT2Config(
        vocab_size=_BYTES if tokenizer is None else len(tokenizer),
        n_positions=config.sequence_length,
        n_embd=config.width,
        n_layer=config.layers,
        n_head=config.heads,
        resid_pdrop=0.0,  # a text is read about once: there is nothing to hold back from
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = _random(small, here, config.seed)
    return FreshModel(
        model, ByteEncoder() if tokenizer is None else TokenizerEncoder(tokenizer), tokenizer
    )


def _random(architecture: PreTrainedConfig, source: Path, seed: int) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]), quietly(source):
        torch.default_generator.manual_seed(derive_seed(seed, "initial-weights"))
        model: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            architecture, dtype=torch.float32, trust_remote_code=False
        )
    return model


def _characters(text: str) -> PreTrainedTokenizerFast:
    """One token per character of a text, in order, after one for all others."""
    known = {character: number for number, character in enumerate(sorted(set(text)), start=1)}
    inner = Tokenizer(models.WordLevel({_UNKNOWN: 0, **known}, unk_token=_UNKNOWN))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=inner, unk_token=_UNKNOWN, clean_up_tokenization_spaces=False
    )
