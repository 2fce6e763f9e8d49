"""A model's folder for where it is to run: an adapter merged in, weights in 8 bits if wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quancrypt_fl.lm.classes import TASKS, task_of_class
from quancrypt_fl.lm.int8 import quantize, save_int8
from quancrypt_fl.lm.loading import ModelError, load_config, load_model
from quancrypt_fl.lm.merging import load_adapted, merged, task_of
from quancrypt_fl.lm.saving import (
    check_new_folder,
    copy_tokenizer,
    folder_bytes,
    new_folder,
    save_plain,
)

__all__ = ["deploy"]


def deploy(base: Path, adapter: Path | None, out: Path, *, int8: bool) -> dict[str, Any]:
    """Write a folder.

    Parameters
    ----------
    base
        Folder of the model.
    adapter
        Folder of its adapter; None: the model as it is.
    out
        A folder that is new or empty. It holds all, or stays as it is.
    int8
        Round the weights of linear layers; see :mod:`quancrypt_fl.lm.int8`.

    Returns
    -------
    dict
        What was written.

    Raises
    ------
    ModelError
        If something is missing, damaged, or does not fit, or ``out`` cannot be written.
    """
    check_new_folder(out, [base, *([] if adapter is None else [adapter])])
    task = _task(base, adapter)
    if int8 and task not in TASKS:
        raise ModelError(
            f"{base if adapter is None else adapter}: is for task {task}; int8 is for models of "
            f"text: {', '.join(TASKS)}"
        )
    model = load_model(base, task) if adapter is None else merged(load_adapted(base, adapter))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    floats = sum(parameter.nbytes for parameter in model.parameters())
    if int8:
        quantize(model)
    with new_folder(out) as folder:
        (save_int8 if int8 else save_plain)(model, folder)
        copy_tokenizer(base, folder)
    return {
        "schema": 1,
        "model": str(base),
        "adapter": None if adapter is None else str(adapter),
        "architecture": type(model).__name__,
        "parameters": parameters,
        "dtype": str(model.dtype).removeprefix("torch."),
        "int8": int8,
        "format": "int8 safetensors" if int8 else "safetensors that transformers loads",
        "float_bytes": floats,
        "weight_bytes": folder_bytes(out),
        "out": str(out),
    }


def _task(base: Path, adapter: Path | None) -> str:
    if adapter is not None:
        return task_of(adapter)
    return task_of_class(next(iter(load_config(base).architectures or ()), ""))
