"""Adapters: put onto a model, or merged into its weights for good."""

from __future__ import annotations

import warnings
from pathlib import Path

from peft import PeftModel
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from quancrypt_fl.lm.classes import task_of_class
from quancrypt_fl.lm.loading import (
    ADAPTER_WEIGHTS,
    ModelError,
    adapter_config,
    load_model,
    quietly,
)

__all__ = ["load_adapted", "merged", "task_of"]

_TASKS = {"CAUSAL_LM": "causal", "SEQ_CLS": "classify"}
_PREFIX = "base_model.model."  # of names in files of peft
_HEADS = ("classifier", "score")  # what transformers calls a classifier's output
_INCOMPLETE = "missing adapter keys"  # in peft's warning


def task_of(adapter: Path) -> str:
    """What an adapter is for, as its configuration says: ``causal``, ``clip`` and so on."""
    config = adapter_config(adapter)
    kind = config.get("task_type")
    if kind is None:
        mapping = config.get("auto_mapping")
        name = mapping.get("base_model_class") if isinstance(mapping, dict) else None
        return task_of_class(str(name))
    if kind not in _TASKS:
        raise ModelError(
            f"{adapter}: is for the task {str(kind)[:40]!r}; allowed: CAUSAL_LM and SEQ_CLS"
        )
    return _TASKS[kind]


def load_adapted(base: Path, adapter: Path) -> PeftModel:
    """A base model with an adapter on it, in evaluation mode, on the CPU.

    Raises
    ------
    ModelError
        If either cannot be loaded, or they do not fit each other.
    """
    task = task_of(adapter)
    whole = _whole_modules(adapter)
    heads = [outputs for name, outputs in whole.items() if name.partition(".")[0] in _HEADS]
    labels = min(heads) if task == "classify" and heads else None
    model = load_model(base, task, labels=labels, given=whole.keys())
    with warnings.catch_warnings(record=True) as caught, quietly(adapter):
        warnings.simplefilter("always")
        adapted = PeftModel.from_pretrained(model, adapter, local_files_only=True)
    for warning in caught:
        if _INCOMPLETE in str(warning.message):
            raise ModelError(f"{adapter}: does not fit {base}: weights are missing")
    loaded: PeftModel = adapted.eval()
    return loaded


def merged(adapted: PeftModel) -> PreTrainedModel:
    """The plain model with ``W + s B A`` in place of each adapted weight, by peft's own merge.

    Raises
    ------
    ModelError
        If a merged weight is not finite.
    """
    try:
        model: PreTrainedModel = adapted.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise ModelError(f"the adapter does not merge: {error}") from error
    plain: PreTrainedModel = model.eval()  # type: ignore[no-untyped-call]
    return plain


def _whole_modules(adapter: Path) -> dict[str, int]:
    """Modules that an adapter has whole, such as a classifier's head, and their outputs."""
    found = {}
    file = adapter / ADAPTER_WEIGHTS
    try:
        with safe_open(file, framework="pt") as opened:
            for key in opened.keys():  # noqa: SIM118  # no mapping
                if ".lora_" not in key:
                    name = key.removeprefix(_PREFIX).rpartition(".")[0]
                    found[name] = int(opened.get_slice(key).get_shape()[0])
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file}: {error}") from error
    return found
