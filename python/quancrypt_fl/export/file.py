"""The exported file: safetensors, with all that is needed to load it in its header.

Metadata (strings): ``format`` = "quancrypt-export", ``version`` = "1", ``model``, ``dataset``,
``classes``, ``image_shape`` ("1,28,28"), ``bits`` ("8"; "32": float32), ``scales`` ("channel",
"tensor" or "none"), ``pruning`` ("unstructured", "structured" or "none"), ``rate``.

Tensors: a weight of two dimensions or more is int8, with ``NAME.scale`` in float32, of shape
(outputs,) or (1,). All others, and all at 32 bits, are float32. ``quancrypt.activation_ranges``,
float32, shape (activations, 2), is there where the model was calibrated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save
from torch import nn

from quancrypt_fl.export.integers import (
    LARGEST_BITS,
    SMALLEST_BITS,
    quantize_weights,
)
from quancrypt_fl.models import MODELS

__all__ = [
    "FLOAT_BITS",
    "FORMAT",
    "QUANTIZED_FROM_DIMENSIONS",
    "RANGES",
    "SCALE",
    "SHOWN",
    "VERSION",
    "Header",
    "exported_bytes",
]

FLOAT_BITS = 32
FORMAT, VERSION = "quancrypt-export", "1"
RANGES = "quancrypt.activation_ranges"
SCALE = ".scale"
QUANTIZED_FROM_DIMENSIONS = 2
_MOST_CLASSES = 100_000
_LARGEST_SIDE = 10_000  # pixels, and channels
_SCALES, _PRUNING = ("channel", "tensor", "none"), ("unstructured", "structured", "none")
SHOWN = 80  # characters of a wrong value


@dataclass(frozen=True)
class Header:
    """What the metadata say; see the module."""

    model: str
    dataset: str
    classes: int
    image_shape: tuple[int, int, int]
    bits: int
    scales: str
    pruning: str
    rate: float

    def metadata(self) -> dict[str, str]:
        """As strings."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "model": self.model,
            "dataset": self.dataset,
            "classes": str(self.classes),
            "image_shape": ",".join(map(str, self.image_shape)),
            "bits": str(self.bits),
            "scales": self.scales,
            "pruning": self.pruning,
            "rate": repr(self.rate),
        }

    @classmethod
    def parse(cls, metadata: Mapping[str, str]) -> Header:
        """From strings; KeyError or ValueError where one is missing or not allowed."""
        image_shape = tuple(
            _whole("image_shape", side, 1, _LARGEST_SIDE)
            for side in metadata["image_shape"].split(",", 3)
        )
        if len(image_shape) != 3:
            raise ValueError("image_shape is not channels,height,width")
        bits = _whole("bits", metadata["bits"], SMALLEST_BITS, FLOAT_BITS)
        if LARGEST_BITS < bits < FLOAT_BITS:
            raise ValueError(f"bits = {bits}; allowed: {SMALLEST_BITS} to {LARGEST_BITS}, and 32")
        scales = _one_of("scales", metadata["scales"], _SCALES)
        if (scales == "none") != (bits == FLOAT_BITS):
            raise ValueError(f"scales = {scales!r} with {bits} bits")
        rate = float(metadata["rate"])
        if not 0 <= rate < 1:
            raise ValueError(f"rate = {rate}; allowed: [0, 1)")
        return cls(
            _one_of("model", metadata["model"], tuple(MODELS)),
            metadata["dataset"],
            _whole("classes", metadata["classes"], 1, _MOST_CLASSES),
            image_shape,
            bits,
            scales,
            _one_of("pruning", metadata["pruning"], _PRUNING),
            rate,
        )


def _whole(name: str, text: str, low: int, high: int) -> int:
    value = int(text)
    if not low <= value <= high:
        raise ValueError(f"{name} = {text[:SHOWN]}; allowed: {low} to {high}")
    return value


def _one_of(name: str, text: str, allowed: tuple[str, ...]) -> str:
    if text not in allowed:
        raise ValueError(f"{name} = {text[:SHOWN]!r}; allowed: {', '.join(allowed)}")
    return text


def exported_bytes(
    header: Header, model: nn.Module, ranges: NDArray[np.float32] | None = None
) -> bytes:
    """The file of a model in float32, whose weights are quantized here if the header says so."""
    tensors: dict[str, NDArray[np.float32] | NDArray[np.int8]] = {}
    state: dict[str, torch.Tensor] = model.state_dict()
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            continue
        array = np.array(tensor.cpu().numpy(), dtype=np.float32, order="C")
        if header.bits == FLOAT_BITS or array.ndim < QUANTIZED_FROM_DIMENSIONS:
            tensors[name] = array
        else:
            tensors[name], tensors[name + SCALE] = quantize_weights(
                array, header.bits, per_channel=header.scales == "channel"
            )
    if ranges is not None:
        tensors[RANGES] = ranges
    return save(tensors, metadata=header.metadata())
