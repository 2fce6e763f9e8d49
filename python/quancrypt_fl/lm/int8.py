"""Models in 8 bits for small machines: linear layers and embeddings, a scale for each row.

Where a model ties its output layer to the embedding, both have the same int8 rows.

The file, ``model-int8.safetensors``: for each rounded weight ``NAME`` (int8) and ``NAME.scale``
(outputs,), in the model's floating type; all other tensors as they were. Metadata: ``format`` =
"quancrypt-int8", ``version`` = "1". Its name is not the one that transformers looks for: that would
load the integers as weights.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from quancrypt_fl.lm.classes import model_class
from quancrypt_fl.lm.int8_layers import Int8Embedding, Int8Linear, Int8Rows
from quancrypt_fl.lm.loading import INT8_WEIGHTS, ModelError, load_config, quietly

__all__ = ["is_int8", "load_int8", "quantize", "save_int8"]

_FORMAT, _VERSION = "quancrypt-int8", "1"


def quantize(model: PreTrainedModel) -> None:
    """Round the weights of linear layers and embeddings, in place; what is tied stays tied.

    Raises
    ------
    ModelError
        If a weight is not finite.
    """
    made: dict[int, Int8Rows] = {}
    for parent, name, module in _places(model):
        rows, weight = _counterpart(module), module.weight
        assert isinstance(weight, Tensor)
        if not torch.isfinite(weight).all():
            raise ModelError(f"a weight of {name} is not finite; nothing was written")
        if (twin := made.setdefault(id(weight), rows)) is rows:
            rows.round(weight.T if isinstance(module, Conv1D) else weight)
        rows.weight, rows.scale = twin.weight, twin.scale
        setattr(parent, name, rows)


def save_int8(model: PreTrainedModel, folder: Path) -> None:
    """Write a model after :func:`quantize`, with its configuration, into an existing folder."""
    tensors = {names[0]: tensor.detach().contiguous() for names, tensor in _tensors(model)}
    save_file(tensors, folder / INT8_WEIGHTS, {"format": _FORMAT, "version": _VERSION})
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    with quietly(folder):
        config.save_pretrained(folder)


def is_int8(folder: Path) -> bool:
    """Whether a folder is one that :func:`save_int8` wrote."""
    return (folder / INT8_WEIGHTS).is_file()


def load_int8(folder: Path, task: str) -> PreTrainedModel:
    """The model of such a folder, in evaluation mode.

    Raises
    ------
    ModelError
        If it is damaged, or for another task.
    """
    config = load_config(folder)
    kinds = list(config.architectures or ())
    with quietly(folder), init_empty_weights(include_buffers=False):
        model: PreTrainedModel = model_class(task).from_config(
            config, dtype=getattr(config, "dtype", None) or torch.float32
        )
    model.tie_weights()  # the context above takes ties apart
    if kinds != [type(model).__name__]:
        raise ModelError(f"{folder}: is for {', '.join(kinds)}, not for {type(model).__name__}")
    made: dict[int, Int8Rows] = {}
    for parent, name, module in _places(model):
        rows = _counterpart(module)
        twin = made.setdefault(id(module.weight), rows)
        rows.weight, rows.scale = twin.weight, twin.scale
        setattr(parent, name, rows)
    file = folder / INT8_WEIGHTS
    stored = _read(file)
    filled: dict[str, Tensor] = {}
    for names, wanted in _tensors(model):
        found = stored.pop(names[0], None)
        if found is None:
            raise ModelError(f"{file}: has no {names[0]}")
        if (found.shape, found.dtype) != (wanted.shape, wanted.dtype):
            raise ModelError(
                f"{file}: {names[0]} is {found.dtype} of shape {tuple(found.shape)}; the "
                f"configuration beside it says {wanted.dtype} of shape {tuple(wanted.shape)}"
            )
        filled |= dict.fromkeys(names, found)
    if stored:
        raise ModelError(f"{file}: has {next(iter(stored))[:80]}, which the model does not know")
    model.load_state_dict(filled, strict=True, assign=True)
    loaded: PreTrainedModel = model.eval()  # type: ignore[no-untyped-call]
    return loaded


def _read(file: Path) -> dict[str, Tensor]:
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            if (metadata.get("format"), metadata.get("version")) != (_FORMAT, _VERSION):
                raise ModelError(f"{file}: is not of the format {_FORMAT}, version {_VERSION}")
            names = opened.keys()
            return {name: opened.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file}: {error}") from error


def _places(model: nn.Module) -> list[tuple[nn.Module, str, nn.Module]]:
    """Modules to replace, each with what it is in and its name there."""
    return [
        (parent, name, module)
        for parent in model.modules()
        for name, module in parent.named_children()
        if isinstance(module, nn.Linear | nn.Embedding | Conv1D)
    ]


def _counterpart(module: nn.Module) -> Int8Rows:
    weight = module.weight
    assert isinstance(weight, Tensor)
    if isinstance(module, nn.Embedding):
        return Int8Embedding(len(weight), weight.shape[1], weight.dtype)
    assert isinstance(module, nn.Linear | Conv1D)
    outputs, inputs = weight.T.shape if isinstance(module, Conv1D) else weight.shape
    return Int8Linear(outputs, inputs, weight.dtype, module.bias)


def _tensors(model: nn.Module) -> list[tuple[list[str], Tensor]]:
    """All that is stored, each tensor once, with its names in the order of ``state_dict``."""
    names: dict[int, list[str]] = {}
    tensors: dict[int, Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        names.setdefault(id(tensor), []).append(name)
        tensors[id(tensor)] = tensor
    return [(names[key], tensors[key]) for key in tensors]
