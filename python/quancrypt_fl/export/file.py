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
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import nn

from quancrypt_fl.errors import CheckpointError, FederatedError
from quancrypt_fl.export.integers import dequantize_weights, quantize_weights
from quancrypt_fl.export.kernels import int8_model
from quancrypt_fl.export.structured import resize
from quancrypt_fl.export.trained import fill
from quancrypt_fl.models import build_model
from quancrypt_fl.training import memory_format

__all__ = [
    "FLOAT_BITS",
    "QUANTIZED_FROM_DIMENSIONS",
    "Header",
    "exported_bytes",
    "load_exported",
    "read_header",
]

FLOAT_BITS = 32
_FORMAT, _VERSION = "quancrypt-export", "1"
_RANGES = "quancrypt.activation_ranges"
_SCALE = ".scale"
QUANTIZED_FROM_DIMENSIONS = 2


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
            "format": _FORMAT,
            "version": _VERSION,
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
        """From strings; KeyError or ValueError where one is missing or wrong."""
        channels, height, width = map(int, metadata["image_shape"].split(","))
        return cls(
            metadata["model"],
            metadata["dataset"],
            int(metadata["classes"]),
            (channels, height, width),
            int(metadata["bits"]),
            metadata["scales"],
            metadata["pruning"],
            float(metadata["rate"]),
        )


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
            tensors[name], tensors[name + _SCALE] = quantize_weights(
                array, header.bits, per_channel=header.scales == "channel"
            )
    if ranges is not None:
        tensors[_RANGES] = ranges
    return save(tensors, metadata=header.metadata())


def read_header(path: Path) -> Header:
    """The metadata of an exported file.

    Raises
    ------
    CheckpointError
        If it is absent, or not an exported file of this version.
    """
    return _read(path)[0]


def load_exported(path: Path, *, int8_kernels: bool = False) -> nn.Module:
    """Load an exported model, ready for inference on the CPU.

    Parameters
    ----------
    path
        A file of ``quancrypt export``.
    int8_kernels
        Compute in int8, three to four times as fast as in float32 on x86; needs a calibrated file
        (``--data-dir``). Otherwise weights become float32, and the model takes ordinary torch
        operations, devices and further training.

    Returns
    -------
    nn.Module
        Maps float32 images (batch, channels, height, width), normalised as in training, to
        (batch, classes) scores.

    Raises
    ------
    CheckpointError
        If the file is absent, damaged, not an exported one, or not calibrated.
    """
    header, tensors = _read(path)
    try:
        ranges = tensors.pop(_RANGES, None)
        weights = {
            name: dequantize_weights(tensor, tensors[name + _SCALE])
            if tensor.dtype == np.int8
            else tensor
            for name, tensor in tensors.items()
            if not name.endswith(_SCALE)
        }
        with torch.random.fork_rng(devices=[]):
            model = build_model(header.model, header.image_shape, header.classes)
        resize(model, {name: tuple(tensor.shape) for name, tensor in weights.items()})
        fill(model, weights)
    except (KeyError, ValueError, FederatedError) as error:
        raise CheckpointError(f"{path}: not an exported model ({error})") from error
    model.eval()
    if not int8_kernels:
        return model.to(memory_format=memory_format(model))  # type: ignore[call-overload,no-any-return]
    if ranges is None:
        raise CheckpointError(
            f"{path}: was exported without images to calibrate with, which int8 kernels need"
        )
    return int8_model(model, header.image_shape, ranges)


def _read(path: Path) -> tuple[Header, dict[str, NDArray[Any]]]:
    try:
        path.open("rb").close()  # its errors say what is wrong
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT or metadata.get("version") != _VERSION:
                raise CheckpointError(
                    f"{path}: not an exported model of version {_VERSION} (format "
                    f"{metadata.get('format')!r}, version {metadata.get('version')!r})"
                )
            header = Header.parse(metadata)
            return header, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: not an exported model ({error})") from error
