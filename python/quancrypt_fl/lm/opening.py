"""A model by its folder, whatever is in it: a whole model, an int8 one, or an adapter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from quancrypt_fl.lm.causality import check_causal
from quancrypt_fl.lm.int8 import is_int8, load_int8
from quancrypt_fl.lm.loading import ModelError, is_adapter, load_model
from quancrypt_fl.lm.merging import load_adapted, task_of
from quancrypt_fl.lm.saving import folder_bytes

__all__ = ["Opened", "open_model", "plain_model"]


@dataclass(frozen=True)
class Opened:
    """A model in evaluation mode, on the CPU.

    Attributes
    ----------
    model
        Of transformers, or as peft wraps one.
    kind
        ``"model"``, ``"int8"`` or ``"adapter"``.
    tokenizer_folder
        Has the tokenizer's files.
    weight_bytes
        Of its files; of the adapter alone, where it is one.
    """

    model: nn.Module
    kind: str
    tokenizer_folder: Path
    weight_bytes: int


def open_model(folder: Path, task: str, base: Path | None = None) -> Opened:
    """Load what is in a folder.

    Parameters
    ----------
    folder
        A local folder.
    task
        ``"causal"`` or ``"classify"``.
    base
        The model that adapters are for.

    Raises
    ------
    ModelError
        If it does not fit the task, or an adapter has no base.
    """
    if is_adapter(folder):
        if base is None:
            raise ModelError(f"{folder}: is an adapter; name the model that it is for by --model")
        if (own := task_of(folder)) != task:
            raise ModelError(f"{folder}: is an adapter for the task {own}, not {task}")
        return Opened(load_adapted(base, folder), "adapter", base, folder_bytes(folder))
    kind, load = ("int8", load_int8) if is_int8(folder) else ("model", load_model)
    model = load(folder, task)
    if task == "causal":
        check_causal(folder, model)
    return Opened(model, kind, folder, folder_bytes(folder))


def plain_model(model: nn.Module) -> PreTrainedModel:
    """The model of transformers that is in what :func:`open_model` loads, adapter and all."""
    plain = model.base_model.model if isinstance(model, PeftModel) else model
    assert isinstance(plain, PreTrainedModel)
    return plain
