"""What the encrypted baselines send: a JSON header that says what follows, and the ciphertexts.

::

    4 bytes   magic, one for each method
    4 bytes   length of the header, big-endian, at most MAX_HEADER
    header    JSON object, UTF-8
    body      ciphertexts, of exactly the length that the header implies

The receiver knows the format's fields and checks every one. Nothing is allocated on a sender's
word.
"""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from quancrypt_fl.errors import MethodError

__all__ = ["MAX_HEADER", "TensorHeader", "join", "required", "split", "tensor_headers"]

MAX_HEADER = 1 << 22
"""Bytes: a thousand tensors of long names take a tenth of it."""

_MAX_VALUES = 1 << 34
_MAX_TENSORS = 1 << 16
_LENGTH_BYTES = 4


@dataclass(frozen=True)
class TensorHeader:
    """One tensor of an update, in the order in which its values follow.

    Attributes
    ----------
    name
        Of the tensor.
    shape
        Of the tensor; its product is the number of values.
    clip
        Clip bound, finite and positive; 1 where the method has none.
    """

    name: str
    shape: tuple[int, ...]
    clip: float = 1.0

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    def as_list(self) -> list[Any]:
        """As it stands in a header."""
        return [self.name, list(self.shape), self.clip]


def required(*modules: str, extra: str = "baselines") -> list[ModuleType]:
    """Import optional modules, which the package's ``extra`` installs.

    Raises
    ------
    MethodError
        If one is not installed: says what to install.
    """
    found = []
    for name in modules:
        try:
            found.append(importlib.import_module(name))
        except ModuleNotFoundError as error:
            raise MethodError(
                f"this method needs {error.name!r}, which is not installed: "
                f"pip install 'quancrypt-native[{extra}]'"
            ) from error
    return found


def join(magic: bytes, header: Mapping[str, Any], body: bytes) -> bytes:
    """Serialize."""
    text = json.dumps(header, allow_nan=False, separators=(",", ":")).encode()
    if len(text) > MAX_HEADER:
        raise MethodError(f"a header of {len(text)} bytes; allowed: at most {MAX_HEADER}")
    return b"".join((magic, len(text).to_bytes(_LENGTH_BYTES, "big"), text, body))


def split(
    magic: bytes, data: bytes, fields: Mapping[str, type | tuple[type, ...]]
) -> tuple[dict[str, Any], memoryview]:
    """The header, with exactly the given fields and types, and the body.

    Raises
    ------
    MethodError
        If the data are anything else.
    """
    start = len(magic) + _LENGTH_BYTES
    if len(data) < start or data[: len(magic)] != magic:
        raise MethodError(f"not an update of this method: it begins with {data[: len(magic)]!r}")
    length = int.from_bytes(data[len(magic) : start], "big")
    if length > min(MAX_HEADER, len(data) - start):
        raise MethodError(f"a header of {length} bytes in {len(data)} bytes of data")
    try:
        header = json.loads(data[start : start + length])
    except (ValueError, RecursionError) as error:
        raise MethodError(f"the header of an update is not JSON: {error}") from None
    if not isinstance(header, dict) or set(header) != set(fields):
        given = sorted(header) if isinstance(header, dict) else type(header).__name__
        raise MethodError(f"the header of an update holds {given}; allowed: {sorted(fields)}")
    for name, kind in fields.items():
        if not isinstance(header[name], kind) or isinstance(header[name], bool):
            raise MethodError(f"{name!r} in the header of an update is {header[name]!r:.80}")
    return header, memoryview(data)[start + length :]


def tensor_headers(given: list[Any]) -> tuple[TensorHeader, ...]:
    """The tensors that a header lists, checked: names once, shapes and clip bounds possible."""
    if len(given) > _MAX_TENSORS:
        raise MethodError(f"{len(given)} tensors in an update; allowed: at most {_MAX_TENSORS}")
    tensors = tuple(_tensor_headers(given))
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise MethodError("an update names a tensor twice")
    total = sum(tensor.size for tensor in tensors)
    if total > _MAX_VALUES:
        raise MethodError(f"{total} values in an update; allowed: at most {_MAX_VALUES}")
    return tensors


def _tensor_headers(given: list[Any]) -> Iterator[TensorHeader]:
    for entry in given:
        match entry:
            case [str(name), list(shape), float(clip)] if (
                len(shape) <= 32
                and all(type(side) is int and 0 <= side <= _MAX_VALUES for side in shape)
                and math.isfinite(clip)
                and clip > 0
            ):
                yield TensorHeader(name, tuple(shape), clip)
            case _:
                raise MethodError(
                    f"a tensor in the header of an update is {entry!r:.80}; "
                    "allowed: [name, shape, finite positive clip bound]"
                )
