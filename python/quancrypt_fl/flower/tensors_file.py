"""Named float32 tensors and a JSON document as one run of bytes, which keeps the tensors' order.

The bytes are a safetensors file that any reader of that format opens. Reading here differs in three
ways: tensors come back in the order in which they were given, the SHA-256 over all bytes is
checked, and no length is believed before it is compared with the bytes that are there.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.errors import FederatedError
from quancrypt_fl.method.roles import Tensors

__all__ = ["MAX_HEADER_BYTES", "TensorsFileError", "pack", "unpack"]

MAX_HEADER_BYTES = 2**24
"""Enough for tens of thousands of tensors."""

_LENGTH = struct.Struct("<Q")
_START = b'{"__metadata__":{"sha256":"'
_HEX = slice(_LENGTH.size + len(_START), _LENGTH.size + len(_START) + 64)
"""Where the digest lies, which counts as 64 zeros in its own computation."""
_FLOAT = np.dtype("<f4")


class TensorsFileError(FederatedError, ValueError):
    """Bytes are not what :func:`pack` made: damaged, truncated, or of another kind."""


def pack(document: Mapping[str, Any], tensors: Tensors) -> bytearray:
    """Serialize.

    Parameters
    ----------
    document
        What JSON can hold, NaN and infinity among it.
    tensors
        Float32 tensors of any shape, by name.

    Raises
    ------
    ValueError
        If a tensor has another type, is named ``__metadata__``, or the header is above
        :data:`MAX_HEADER_BYTES`.
    """
    header: dict[str, Any] = {
        "__metadata__": {"sha256": "0" * 64, "document": json.dumps(document)}
    }
    end = 0
    for name, tensor in tensors.items():
        if tensor.dtype != np.float32 or name in header:
            raise ValueError(
                f"tensor {name!r} of type {tensor.dtype}; allowed: float32, and any name but "
                "'__metadata__'"
            )
        start, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": "F32",
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors are aligned
    if len(text) > MAX_HEADER_BYTES:
        raise ValueError(f"the header takes {len(text)} bytes; allowed: {MAX_HEADER_BYTES}")
    body = _LENGTH.size + len(text)
    data = bytearray(body + end)
    data[:body] = _LENGTH.pack(len(text)) + text
    flat = np.frombuffer(data, _FLOAT, offset=body)
    place = 0
    for tensor in tensors.values():
        flat[place : place + tensor.size] = tensor.reshape(-1)
        place += tensor.size
    data[_HEX] = hashlib.sha256(data).hexdigest().encode()
    return data


def unpack(data: bytearray) -> tuple[Any, dict[str, NDArray[np.float32]]]:
    """Document and tensors of :func:`pack`'s output, as it stands in ``data``.

    Parameters
    ----------
    data
        The tensors that come back are views of it, and leave ``data`` unchanged.

    Raises
    ------
    TensorsFileError
        Saying what is wrong.
    """
    header, body = _header(data)
    metadata = header.pop("__metadata__")
    places: dict[str, tuple[int, tuple[int, ...]]] = {}
    end = 0
    for name, entry in header.items():
        shape = _shape(name, entry)
        size = math.prod(shape) * _FLOAT.itemsize
        if entry["data_offsets"] != [end, end + size]:
            raise TensorsFileError(f"tensor {name!r:.80} does not lie where the one before ends")
        places[name] = end // _FLOAT.itemsize, shape
        end += size
    if end != len(data) - body:
        raise TensorsFileError(f"{len(data) - body} bytes of tensors; the header says {end}")
    flat = np.frombuffer(data, _FLOAT, offset=body)
    try:
        tensors = {
            name: flat[start : start + math.prod(shape)].reshape(shape)
            for name, (start, shape) in places.items()
        }
        return _json(metadata["document"]), tensors
    except (ValueError, KeyError, TypeError) as error:  # a shape of 0 values and absurd numbers
        raise TensorsFileError(f"not a file of tensors ({error!s:.80})") from None


def _header(data: bytearray) -> tuple[dict[str, Any], int]:
    """The header, and where it ends; the checksum holds."""
    if len(data) < _HEX.stop:
        raise TensorsFileError(f"truncated: {len(data)} bytes are less than the smallest file")
    (length,) = _LENGTH.unpack_from(data)
    room = len(data) - _LENGTH.size
    if length > MAX_HEADER_BYTES:
        raise TensorsFileError(f"a header of {length} bytes; allowed: {MAX_HEADER_BYTES}")
    if length > room:
        raise TensorsFileError(f"truncated: a header of {length} bytes, {room} present")
    if length % 8 or data[_LENGTH.size : _HEX.start] != _START:
        raise TensorsFileError("not a file of tensors")
    computed = hashlib.sha256(memoryview(data)[: _HEX.start])
    computed.update(b"0" * 64)
    computed.update(memoryview(data)[_HEX.stop :])
    if computed.hexdigest().encode() != data[_HEX]:
        raise TensorsFileError("the SHA-256 over the bytes is not the one in them")
    body = _LENGTH.size + length
    header = _json(data[_LENGTH.size : body].decode("utf-8", "replace"))
    if not isinstance(header, dict) or not isinstance(header.get("__metadata__"), dict):
        raise TensorsFileError("not a file of tensors")
    return header, body


def _shape(name: str, entry: object) -> tuple[int, ...]:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise TensorsFileError(f"tensor {name!r:.80} is not described as it must be")
    if entry["dtype"] != "F32":
        raise TensorsFileError(f"tensor {name!r:.80} has the type {entry['dtype']!r:.20}")
    shape = entry["shape"]
    if not isinstance(shape, list) or not all(type(n) is int and 0 <= n < 2**48 for n in shape):
        raise TensorsFileError(f"tensor {name!r:.80} has the shape {shape!r:.40}")
    if len(shape) > 32:  # NumPy 1 has no more dimensions
        raise TensorsFileError(f"tensor {name!r:.80} has {len(shape)} dimensions; allowed: 32")
    return tuple(shape)


def _json(text: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise ValueError("a name stands twice")
        return result

    try:
        return json.loads(text, object_pairs_hook=unique)
    except (ValueError, TypeError, RecursionError) as error:
        raise TensorsFileError(f"not valid JSON ({error!s:.80})") from None
