"""Framing of serialized objects: everything is checked here before anything else sees it.

::

    offset  size
    0       8     magic "QUANCRPT"
    8       2     format version, little-endian (1)
    10      2     kind (1 update, 2 parameters, 3 public key, 4 secret key, 5 to 10 :class:`Kind`)
    12      8     header length h, little-endian, at most 16 MiB (kind 1) or 64 KiB
    20      h     header, a flat JSON object in UTF-8
    20 + h  b     body; b is the header's "body_bytes"
    ...     4     CRC-32C of all bytes before it, little-endian

The checksum finds accidents, not attackers: sign what a stranger could have changed.
"""

import json
import struct
from collections.abc import Callable
from enum import IntEnum
from typing import Any, NoReturn

from quancrypt_native import _core
from quancrypt_native.errors import WireFormatError

BytesLike = bytes | bytearray | memoryview

MAGIC = b"QUANCRPT"
VERSION = 1
MAX_HEADER_BYTES = 16 * 2**20
MAX_SMALL_HEADER_BYTES = 2**16  # of what has no tensors
MAX_BODY_BYTES = 2**48
_PREFIX = struct.Struct("<8sHHQ")
_TRAILER = struct.Struct("<I")
TRAILER_BYTES = _TRAILER.size
_JSON = json.JSONEncoder(separators=(",", ":"))


class Kind(IntEnum):
    """What a frame holds."""

    UPDATE = 1
    PARAMETERS = 2
    PUBLIC_KEY = 3
    SECRET_KEY = 4
    PUBLIC_SHARE = 5
    DEAL = 6
    PARTIAL_DECRYPTION = 7
    PARTY = 8
    ANSWERED = 9
    CHANNEL_KEY = 10


def prefix(kind: Kind, header: dict[str, Any], body_bytes: int) -> bytes:
    """All bytes before the body."""
    text = _JSON.encode({**header, "body_bytes": body_bytes}).encode()
    if len(text) > MAX_HEADER_BYTES:
        raise WireFormatError(f"header would take {len(text)} bytes; allowed: {MAX_HEADER_BYTES}")
    return _PREFIX.pack(MAGIC, VERSION, kind, len(text)) + text


def frame(kind: Kind, header: dict[str, Any], body: BytesLike) -> bytes:
    """A whole serialized object; the body is copied once."""
    head = prefix(kind, header, len(body))
    checksum = _core.crc32c(body, _core.crc32c(head))
    return b"".join((head, body, _TRAILER.pack(checksum)))


def parse(data: BytesLike, kind: Kind) -> tuple[dict[str, Any], memoryview]:
    """Split and check a frame.

    Returns
    -------
    header, body
        The header without ``body_bytes``; its fields are still untrusted. The body is a read-only
        view of the (immutable) bytes.

    Raises
    ------
    WireFormatError
        Saying which of magic, version, kind, lengths, header, trailing bytes or checksum is wrong.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        raise WireFormatError(f"expected bytes, got {type(data).__name__}")
    # Mutable input is copied, so that what was checked stays what is used.
    view = memoryview(data if isinstance(data, bytes) else bytes(data))
    if len(view) < _PREFIX.size + _TRAILER.size:
        raise WireFormatError(f"truncated: {len(view)} bytes are less than the smallest object")
    magic, version, found_kind, header_bytes = _PREFIX.unpack_from(view)
    if magic != MAGIC:
        raise WireFormatError("wrong magic: these bytes are no quancrypt object")
    if version != VERSION:
        raise WireFormatError(f"format version {version} is not supported; supported: {VERSION}")
    if found_kind != kind:
        names = {k.value: f"kind {k.name.lower().replace('_', ' ')}" for k in Kind}
        found = names.get(found_kind, f"the unknown kind {found_kind}")
        raise WireFormatError(f"these bytes hold {found}; expected {names[kind]}")
    room = len(view) - _PREFIX.size - _TRAILER.size
    limit = MAX_HEADER_BYTES if kind == Kind.UPDATE else MAX_SMALL_HEADER_BYTES
    if header_bytes > limit:
        raise WireFormatError(f"header length {header_bytes} is too large; allowed: {limit}")
    if header_bytes > room:
        raise WireFormatError(f"truncated: header of {header_bytes} bytes, {room} present")
    header = _parse_header(bytes(view[_PREFIX.size : _PREFIX.size + header_bytes]))
    body_bytes = header.pop("body_bytes", None)
    if not _is_int(body_bytes, 0, MAX_BODY_BYTES):
        raise WireFormatError("header field 'body_bytes' is missing or no valid length")
    if body_bytes > room - header_bytes:
        raise WireFormatError(
            f"truncated: body of {body_bytes} bytes, {room - header_bytes} present"
        )
    if body_bytes < room - header_bytes:
        raise WireFormatError(f"{room - header_bytes - body_bytes} trailing bytes")
    (checksum,) = _TRAILER.unpack_from(view, len(view) - _TRAILER.size)
    if _core.crc32c(view[: -_TRAILER.size]) != checksum:
        raise WireFormatError("wrong checksum: the bytes are damaged")
    start = _PREFIX.size + header_bytes
    return header, view[start : start + body_bytes]


def _parse_header(text: bytes) -> dict[str, Any]:
    def refuse_constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not allowed")

    def refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise ValueError("a field stands twice")
        return result

    try:
        header = json.loads(
            text.decode("utf-8"),
            parse_constant=refuse_constant,
            object_pairs_hook=refuse_duplicates,
        )
    except (ValueError, RecursionError) as error:
        # RecursionError: deep nesting. ValueError: bad UTF-8, bad JSON, absurdly long numbers.
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise WireFormatError(f"header is not valid JSON: {reason}") from None
    if not isinstance(header, dict):
        raise WireFormatError("header is not a JSON object")
    return header


def _is_int(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


class HeaderReader:
    """Takes known fields out of a header, each with its type and range; refuses the rest."""

    def __init__(self, header: dict[str, Any]) -> None:
        self._left = dict(header)

    def _take(self, name: str, allowed: str, valid: Callable[[Any], bool]) -> Any:
        if name not in self._left:
            raise WireFormatError(f"header field '{name}' is missing")
        value = self._left.pop(name)
        if not valid(value):
            shown = repr(value)
            shown = shown if len(shown) <= 60 else shown[:57] + "..."
            raise WireFormatError(f"header field '{name}' is {shown}; allowed: {allowed}")
        return value

    def number(self, name: str, low: int, high: int) -> int:
        """An integer in ``[low, high]``."""
        value: int = self._take(name, f"{low} to {high}", lambda v: _is_int(v, low, high))
        return value

    def numbers(self, name: str, longest: int, low: int, high: int) -> list[int]:
        """At most ``longest`` integers in ``[low, high]``."""
        value: list[int] = self._take(
            name,
            f"at most {longest} integers from {low} to {high}",
            lambda v: (
                isinstance(v, list) and len(v) <= longest and all(_is_int(i, low, high) for i in v)
            ),
        )
        return value

    def text(self, name: str, longest: int = 64) -> str:
        """A string of at most ``longest`` characters."""
        value: str = self._take(
            name,
            f"a string of at most {longest} characters",
            lambda v: isinstance(v, str) and len(v) <= longest,
        )
        return value

    def flag(self, name: str) -> bool:
        """True or false."""
        value: bool = self._take(name, "true or false", lambda v: isinstance(v, bool))
        return value

    def items(self, name: str, longest: int) -> list[Any]:
        """A list of at most ``longest`` items, which the caller checks."""
        value: list[Any] = self._take(
            name,
            f"a list of at most {longest} items",
            lambda v: isinstance(v, list) and len(v) <= longest,
        )
        return value

    def hexadecimal(self, name: str, digits: int) -> str:
        """A string of exactly ``digits`` lower-case hexadecimal digits."""
        value: str = self._take(
            name,
            f"{digits} hexadecimal digits",
            lambda v: (
                isinstance(v, str) and len(v) == digits and not set(v) - set("0123456789abcdef")
            ),
        )
        return value

    def optional_hexadecimal(self, name: str, digits: int) -> str | None:
        """As :meth:`hexadecimal`, or null."""
        if name in self._left and self._left[name] is None:
            del self._left[name]
            return None
        return self.hexadecimal(name, digits)

    def finish(self) -> None:
        """Refuse fields that nobody took."""
        if self._left:
            name = sorted(self._left)[0]
            raise WireFormatError(f"unknown header field {name[:60]!r}")
