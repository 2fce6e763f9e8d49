"""Named tensors in safetensors files, as float32 or float64 arrays."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from quancrypt_fl.cli.errors import CommandError

__all__ = ["read_tensors", "tensors_to_bytes"]

_FLOATS = ("F32", "F64")
_WIDENED = ("F16", "BF16")  # every value of theirs is a float32


def read_tensors(path: Path) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """All tensors of a file, in the order of their names.

    The order is part of what must be equal for updates to add up, and the order in a file depends
    on dtypes.

    Returns
    -------
    tensors, widened
        float32 and float64 arrays by name; the names of those that were half precision in the file.

    Raises
    ------
    CommandError
        If the file is no safetensors file, holds no tensor, or one of another dtype (named).
    """
    tensors: dict[str, NDArray[Any]] = {}
    widened = []
    try:
        path.open("rb").close()  # its errors say what is wrong
        with safe_open(path, framework="np") as file:
            for name in sorted(file.keys()):
                dtype = file.get_slice(name).get_dtype()
                if dtype not in _FLOATS + _WIDENED:
                    raise CommandError(
                        f"{path}: tensor '{name}' has dtype {dtype}; allowed: "
                        f"{', '.join(_FLOATS)} (and {', '.join(_WIDENED)}, widened to F32)"
                    )
                if dtype in _WIDENED:
                    widened.append(name)
                if dtype == "BF16":
                    tensors[name] = _read_bfloat16(path, name)
                else:
                    array = file.get_tensor(name)
                    tensors[name] = array.astype(np.float32) if dtype == "F16" else array
    except OSError as error:
        raise CommandError(f"{path}: cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise CommandError(f"{path}: no valid safetensors file: {error}") from error
    if not tensors:
        raise CommandError(f"{path}: holds no tensor")
    return tensors, widened


def _read_bfloat16(path: Path, name: str) -> NDArray[np.float32]:
    """A BF16 tensor, which NumPy has no dtype for: the upper half of a float32.

    The caller's ``safe_open`` has validated the header: its length (8 bytes, little-endian), then
    JSON with the byte range of each tensor behind the header.
    """
    with path.open("rb") as stream:
        header_bytes = int.from_bytes(stream.read(8), "little")
        entry = json.loads(stream.read(header_bytes))[name]
        start, end = entry["data_offsets"]
        stream.seek(8 + header_bytes + start)
        halves = np.frombuffer(stream.read(end - start), dtype="<u2")
    return (halves.astype(np.uint32) << 16).view(np.float32).reshape(entry["shape"])


def tensors_to_bytes(
    tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None = None
) -> bytes:
    """A safetensors file; ``metadata`` are strings that any reader shows."""
    return save(
        {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in tensors.items()},
        metadata=dict(metadata or {}),
    )
