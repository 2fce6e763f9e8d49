"""The base model of a fine-tuning: loaded in float32, with a fresh head where it needs one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from quancrypt_fl.errors import DataError
from quancrypt_fl.lm.loading import ModelError, load_config, load_model, quietly, weight_files
from quancrypt_fl.lm.texts import LanguageData
from quancrypt_fl.seeds import derive_seed

__all__ = ["USUAL_LENGTH", "Base", "base_model", "check_fit", "row_length"]

USUAL_LENGTH = 128
"""Tokens of a row where nobody says another number, and the model has as many positions."""

_HEADS = ("classifier", "score")
"""What transformers calls the head of a classifier, which peft has trained in any case."""


@dataclass(frozen=True)
class Base:
    """A model, and its modules beside the head whose weights are fresh, by their names in it."""

    model: PreTrainedModel
    fresh: Sequence[str]


def base_model(
    folder: Path, name: str, task: str, data: LanguageData, length: int, seed: int
) -> Base:
    """The model in a folder, on the CPU.

    Parameters
    ----------
    folder
        The model's.
    name
        What the user calls it: the adapter refers to it by that.
    task
        ``"causal"`` or ``"classify"``.
    data
        What it is for.
    length
        Tokens of a row at most.
    seed
        Decides the weights of a fresh head.

    Raises
    ------
    ModelError, DataError
        If it is no model for the task, or the data do not fit it.
    """
    if task == "causal":
        base = Base(load_model(folder, "causal", torch.float32), ())
    else:
        base = _classifier(folder, data.classes, seed)
        if base.model.config.pad_token_id is None:  # some read the end of a row off it
            base.model.config.pad_token_id = data.pad
    base.model.name_or_path = name
    check_fit(folder, base.model, data, length)
    return base


def _classifier(folder: Path, classes: Sequence[str], seed: int) -> Base:
    load_config(folder)
    weight_files(folder)
    with torch.random.fork_rng(devices=[]), quietly(folder):
        torch.default_generator.manual_seed(derive_seed(seed, "initial-weights"))
        model, report = AutoModelForSequenceClassification.from_pretrained(
            folder,
            dtype=torch.float32,
            id2label=dict(enumerate(classes)),
            label2id={label: number for number, label in enumerate(classes)},
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # a head of another number of classes is replaced
        )
    missing = {key.rpartition(".")[0] for key in report["missing_keys"]}
    return Base(model, sorted(name for name in missing if name.partition(".")[0] not in _HEADS))


def row_length(wanted: int | None, folder: Path) -> int:
    """Tokens of a row for the model in a folder: as many as wanted, or a usual number."""
    if wanted is not None:
        return wanted
    most = getattr(load_config(folder).get_text_config(), "max_position_embeddings", None)
    return USUAL_LENGTH if most is None else min(USUAL_LENGTH, most)


def check_fit(folder: Path, model: PreTrainedModel, data: LanguageData, length: int) -> None:
    """Raise an error where a model lacks tokens or positions that rows of ``length`` need."""
    config = model.config.get_text_config()
    largest = max(int(texts.inputs.max()) for texts in (data.train, data.test))
    if largest >= config.vocab_size:
        raise ModelError(
            f"{folder}: its tokenizer gives the token {largest}; the model knows "
            f"{config.vocab_size}"
        )
    most = getattr(config, "max_position_embeddings", None)
    longest = max(texts.inputs.shape[1] for texts in (data.train, data.test))
    if most is not None and min(longest, length) > most:
        raise DataError(
            f"sequence_length = {length}: the model has {most} positions; allowed: up to {most}"
        )
