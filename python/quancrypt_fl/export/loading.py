"""From an exported file to a model; see :mod:`~quancrypt_fl.export.file` for what it holds.

Files may come from anybody: what the metadata say is bounded, and shapes are compared with those of
a model on torch's ``meta`` device, before a tensor is read or memory is taken for it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from quancrypt_fl.errors import CheckpointError, FederatedError, MethodError
from quancrypt_fl.export.file import (
    FLOAT_BITS,
    FORMAT,
    QUANTIZED_FROM_DIMENSIONS,
    RANGES,
    SCALE,
    SHOWN,
    VERSION,
    Header,
)
from quancrypt_fl.export.integers import dequantize_weights
from quancrypt_fl.export.kernels import int8_model
from quancrypt_fl.export.structured import resize
from quancrypt_fl.export.trained import check_shapes, fill
from quancrypt_fl.models import build_model
from quancrypt_fl.training import memory_format

__all__ = ["load_exported", "read_header"]


def read_header(path: str | Path) -> Header:
    """The metadata of an exported file.

    Raises
    ------
    CheckpointError
        If it is absent, or not an exported file of this version.
    """
    path = _checked(path)
    with _errors_named(path), safe_open(path, framework="np") as file:
        return _header(file)


def load_exported(path: str | Path, *, int8_kernels: bool = False) -> nn.Module:
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
    MethodError
        If ``path`` is no path, or int8 kernels are not to be had: torch has none here.
    """
    path = _checked(path)
    with _errors_named(path):
        with safe_open(path, framework="np") as file:
            header = _header(file)
            shapes, ranges_given = _shapes(file, header)
            model = _without_memory(header, shapes)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        for name, tensor in tensors.items():
            if not np.isfinite(tensor).all():
                raise ValueError(f"tensor {name!r} holds NaN or infinity")
        model.to_empty(device="cpu")
        for buffer in model.buffers():
            buffer.zero_()  # counters are not in the file
        fill(
            model,
            {
                name: dequantize_weights(tensors[name], tensors[name + SCALE])
                if tensors[name].dtype == np.int8
                else tensors[name]
                for name in shapes
            },
        )
    model.eval()
    if not int8_kernels:
        return model.to(memory_format=memory_format(model))  # type: ignore[call-overload,no-any-return]
    if not ranges_given:
        raise CheckpointError(
            f"{path}: was exported without images to calibrate with, which int8 kernels need"
        )
    try:
        return int8_model(model, header.image_shape, tensors[RANGES])
    except (MethodError, RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise MethodError(f"{path}: int8 kernels: {_line(error)}") from error


def _checked(path: str | Path) -> Path:
    """The path of a regular file: opening a pipe would wait for its other end."""
    if not isinstance(path, str | os.PathLike):
        raise MethodError(f"path = {path!r:.{SHOWN}}: a path is a str or a Path")
    try:
        path = Path(path)
        if not stat.S_ISREG(path.stat().st_mode):
            raise CheckpointError(f"{path}: cannot be read: it is not a regular file")
        path.open("rb").close()  # its errors say what is wrong
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path!r}: cannot be read: {error}") from error
    return path


@contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    """Whatever a file makes torch, NumPy and safetensors raise, as one error that names it."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (
        SafetensorError,
        FederatedError,
        LookupError,
        MemoryError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise CheckpointError(f"{path}: not an exported model ({_line(error)})") from error


def _line(error: Exception) -> str:
    """The first line of a message: torch's go on with a trace of its own."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _header(file: Any) -> Header:
    metadata = file.metadata() or {}
    if metadata.get("format") != FORMAT or metadata.get("version") != VERSION:
        raise ValueError(
            f"format {metadata.get('format')!r:.{SHOWN}}, version "
            f"{metadata.get('version')!r:.{SHOWN}}; wanted: {FORMAT!r}, {VERSION!r}"
        )
    return Header.parse(metadata)


def _shapes(file: Any, header: Header) -> tuple[dict[str, tuple[int, ...]], bool]:
    """Shapes of the weights, and whether there are ranges of activations; nothing is read."""
    found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
    shapes = {name: tuple(part.get_shape()) for name, part in found.items()}
    dtypes = {name: part.get_dtype() for name, part in found.items()}
    for name, dtype in dtypes.items():
        if dtype not in ("F32", "I8"):
            raise ValueError(f"tensor {name!r} is {dtype}; allowed: F32, I8")
    ranges = shapes.pop(RANGES, None)
    if ranges is not None and (dtypes[RANGES] != "F32" or len(ranges) != 2 or ranges[1] != 2):
        raise ValueError(f"{RANGES} is {dtypes[RANGES]} of shape {ranges}")
    for name in [name for name in shapes if dtypes[name] == "I8"]:
        shape = shapes[name]
        if header.bits == FLOAT_BITS or len(shape) < QUANTIZED_FROM_DIMENSIONS:
            raise ValueError(
                f"tensor {name!r} of shape {shape} is I8 in a file of {header.bits} bits"
            )
        scale = shapes.pop(name + SCALE)
        wanted = shape[:1] if header.scales == "channel" else (1,)
        if scale != wanted or dtypes[name + SCALE] != "F32":
            raise ValueError(f"tensor {name + SCALE!r} is {scale}; wanted: F32 of shape {wanted}")
    return shapes, ranges is not None


def _without_memory(header: Header, shapes: dict[str, tuple[int, ...]]) -> nn.Module:
    """A model of these shapes on the ``meta`` device, that images go through."""
    with torch.device("meta"), torch.inference_mode(False), torch.no_grad():
        model = build_model(header.model, header.image_shape, header.classes)
        if header.pruning == "structured":
            resize(model, shapes)
        check_shapes(model, shapes)
        model.eval()(torch.empty(1, *header.image_shape))
    return model
