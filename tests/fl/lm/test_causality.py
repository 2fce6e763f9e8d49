"""Models that see what they should predict are refused, wherever a text is judged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.fl.lm import tiny
from transformers import BertConfig, BertLMHeadModel

from quancrypt_fl.lm.causality import check_causal
from quancrypt_fl.lm.config import FinetuneConfig
from quancrypt_fl.lm.loading import ModelError
from quancrypt_fl.lm.opening import open_model
from quancrypt_fl.lm.pretrain_config import PretrainConfig
from quancrypt_fl.lm.pretrain_run import Pretraining
from quancrypt_fl.lm.run import Finetuning

Make = Callable[..., FinetuneConfig]

SEES = "sees the tokens that it should predict"


def encoder(folder: Path, *, decoder: bool) -> Path:
    """A BERT with a language-model head, that reads in both directions or in one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        config = BertConfig(
            vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=48, max_position_embeddings=64, is_decoder=decoder,
        )  # fmt: skip
        BertLMHeadModel(config).save_pretrained(folder)
    tiny._tokenizer(for_sentences=False).save_pretrained(folder)
    return folder


def test_encoders_are_refused(causal: Make, things: Path, tmp_path: Path) -> None:
    folder = encoder(tmp_path / "bert", decoder=False)
    with pytest.raises(ModelError, match=SEES):
        Finetuning(causal(model=str(folder)))
    with pytest.raises(ModelError, match=SEES):
        open_model(folder, "causal")
    with pytest.raises(ModelError, match=SEES):
        Pretraining(
            PretrainConfig(
                data=things / "text.txt", model=folder, sequence_length=32, clients=2, rounds=1
            )
        )


def test_an_encoder_that_reads_from_left_to_right_is_not(causal: Make, tmp_path: Path) -> None:
    folder = encoder(tmp_path / "bert", decoder=True)
    assert open_model(folder, "causal").kind == "model"
    assert Finetuning(causal(model=str(folder))).task.metric == "perplexity"


def test_the_check_leaves_a_model_in_its_mode(tmp_path: Path) -> None:
    model = open_model(tiny.gpt2(tmp_path / "gpt2"), "causal").model
    for training in (True, False):
        model.train(training)
        check_causal(tmp_path, model)
        assert model.training is training
