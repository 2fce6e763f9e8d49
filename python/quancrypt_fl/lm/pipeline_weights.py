"""Weights of a stage: read one by one from safetensors, none that another stage has."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import PreTrainedConfig

from quancrypt_fl.lm.loading import ModelError, weight_files
from quancrypt_fl.lm.pipeline_split import CutModel, Span, anatomy

__all__ = ["load_weights", "weight_bytes"]

_HEAD = "lm_head"


def load_weights(model: CutModel, config: PreTrainedConfig, folder: Path) -> None:
    """Fill a cut model.

    Parameters
    ----------
    model
        Of :func:`~quancrypt_fl.lm.pipeline_split.cut`.
    config
        Of the whole model.
    folder
        Has its safetensors.

    Raises
    ------
    ModelError
        If a tensor is missing, damaged, or of another shape.
    """
    wanted = dict(model.named_parameters())
    found: dict[str, Tensor] = {}
    by_file: dict[Path, list[tuple[str, str]]] = defaultdict(list)
    for stored, file in weight_files(folder).items():
        for own in _own_names(stored, config, model):
            if own in wanted:
                by_file[file].append((stored, own))
    for file, pairs in by_file.items():
        try:
            with safe_open(file, framework="pt") as opened:
                for stored, own in pairs:
                    found[own] = _fitting(opened.get_tensor(stored), wanted[own], file, stored)
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{file}: {error}") from error
    if missing := sorted(wanted.keys() - found.keys()):
        raise ModelError(f"{folder}: has no tensor for {missing[0]} ({len(missing)} are missing)")
    model.load_state_dict(found, strict=False, assign=True)
    for parameter in model.parameters():
        parameter.requires_grad_(False)


def weight_bytes(model: CutModel) -> int:
    """Bytes of the parameters that this process holds."""
    return sum(p.numel() * p.element_size() for p in model.parameters())


def _own_names(stored: str, config: PreTrainedConfig, model: CutModel) -> list[str]:
    """Names in the cut model of a tensor of the file; two for an embedding that is tied."""
    names, span = anatomy(config), model.span
    prefix = model.base.base_model_prefix + "."
    if stored.startswith(_HEAD + "."):
        return [] if _is_tied(config) else ["head" + stored.removeprefix(_HEAD)]
    inner = stored.removeprefix(prefix)  # some files have the base model alone
    own = []
    if match := re.fullmatch(rf"{names.layers}\.(\d+)\.(.+)", inner):
        if (index := _place(int(match[1]), span)) is not None:
            own.append(f"base.{names.layers}.{index}.{match[2]}")
        return own
    own.append(f"base.{inner}")
    if inner == f"{names.embedding}.weight" and _is_tied(config):
        own.append("head.weight")
    return own


def _place(layer: int, span: Span) -> int | None:
    return layer - span.first if span.first <= layer < span.last else None


def _is_tied(config: PreTrainedConfig) -> bool:
    return bool(getattr(config, "tie_word_embeddings", False))


def _fitting(tensor: Tensor, parameter: Any, file: Path, name: str) -> Tensor:
    if tensor.shape != parameter.shape:
        raise ModelError(
            f"{file}: {name} has shape {tuple(tensor.shape)}; the configuration says "
            f"{tuple(parameter.shape)}"
        )
    copied: Tensor = torch.empty(tensor.shape, dtype=parameter.dtype).copy_(tensor)
    return copied  # not a view of the mapped file: its pages would count as the process's
