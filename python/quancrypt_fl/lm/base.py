"""The base model of a fine-tuning: loaded in float32, with a fresh head where it needs one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from quancrypt_fl.errors import DataError
from quancrypt_fl.lm.causality import check_causal
from quancrypt_fl.lm.loading import ModelError, load_config, load_model, quietly, weight_files
from quancrypt_fl.lm.quantized import quantization, settle
from quancrypt_fl.lm.texts import LanguageData
from quancrypt_fl.seeds import derive_seed

__all__ = ["USUAL_LENGTH", "Base", "base_model", "check_fit", "pretrained", "row_length"]

USUAL_LENGTH = 128
"""Tokens of a row where nobody says another number, and the model has as many positions."""

_HEADS = ("classifier", "score")
"""What transformers calls the head of a classifier, which peft has trained in any case."""


@dataclass(frozen=True)
class Base:
    """A model to be tuned.

    Attributes
    ----------
    model
        As it came; it stays frozen.
    whole
        Names of modules that are trained whole: those that the model did not come with (its head
        aside, which peft knows), and those that the task trains so.
    targets
        The adapted modules as peft takes them; None: those that are usual for the model.
    """

    model: PreTrainedModel
    whole: Sequence[str]
    targets: Sequence[str] | str | None = None


def base_model(
    folder: Path,
    name: str,
    task: str,
    data: LanguageData,
    length: int,
    seed: int,
    precision: str = "float32",
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
    precision
        Of the frozen weights; see :func:`.quantization`.

    Raises
    ------
    ModelError, DataError
        If it is no model for the task, or the data do not fit it.
    """
    if task == "causal":
        base = Base(pretrained(folder, name, task, precision), ())
        check_causal(folder, base.model)
    else:
        base = _classifier(folder, data.classes, seed, precision)
        settle(base.model)
        base.model.name_or_path = name
        if base.model.config.pad_token_id is None:  # some read the end of a row off it
            base.model.config.pad_token_id = data.pad
    check_fit(folder, base.model, data, length)
    return base


def pretrained(folder: Path, name: str, task: str, precision: str) -> PreTrainedModel:
    """A whole model in a folder, on the CPU; see :func:`base_model`."""
    model = load_model(folder, task, torch.float32, **quantization(precision))
    settle(model)
    model.name_or_path = name
    return model


def _classifier(folder: Path, classes: Sequence[str], seed: int, precision: str) -> Base:
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
            **quantization(precision),
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
