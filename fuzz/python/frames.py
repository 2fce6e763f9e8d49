"""Changes inside a format's checks: lengths, checksums and seals are made right again afterwards.

A mutation that a checksum refuses says nothing of what lies behind it. Most of these pass it.
"""

from __future__ import annotations

import hashlib
import json
import struct
from random import Random
from typing import Any

from fuzz.python.json_mutations import bytes_changed, changed, to_text
from quancrypt_native import _core

PREFIX = struct.Struct("<8sHHQ")
_START = b'{"__metadata__":{"sha256":"'


def split(data: bytes) -> tuple[bytes, bytes, bytes] | None:
    """Prefix, header and body of a frame, or None."""
    if len(data) < PREFIX.size + 4:
        return None
    length = PREFIX.unpack_from(data)[3]
    if length > len(data) - PREFIX.size - 4:
        return None
    end = PREFIX.size + length
    return data[: PREFIX.size], data[PREFIX.size : end], data[end:-4]


def joined(prefix: bytes, text: bytes, body: bytes) -> bytes:
    """A frame with a right header length and a right checksum."""
    head = prefix[:12] + struct.pack("<Q", len(text)) + text + body
    return head + struct.pack("<I", _core.crc32c(head))


def frame(random: Random, data: bytes) -> bytes:
    """A frame changed in its header, its body or its prefix."""
    parts = split(data)
    kind = random.random()
    if parts is None or kind < 0.05:
        return bytes_changed(random, data)
    prefix, text, body = parts
    if kind < 0.1:
        prefix = bytes_changed(random, prefix[:12], 1).ljust(12, b"\0")[:12]
    if kind < 0.35:
        body = bytes_changed(random, body)
    if kind > 0.3:
        try:
            document: Any = json.loads(text)
        except (ValueError, RecursionError):
            document = None
        if isinstance(document, dict):
            document = changed(random, document) if kind < 0.95 else document
            if isinstance(document, dict) and random.random() < 0.9:
                document["body_bytes"] = len(body)
            text = to_text(random, document)
        else:
            text = bytes_changed(random, text)
    elif random.random() < 0.9:
        text = _with_size(text, len(body))
    result = joined(prefix, text, body)
    return result if random.random() < 0.97 else bytes_changed(random, result, 1)


def _with_size(text: bytes, size: int) -> bytes:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(document, dict):
        return text
    document["body_bytes"] = size
    return json.dumps(document, separators=(",", ":")).encode()


def tensors_file(random: Random, data: bytes) -> bytes:
    """A file of tensors changed in header or tensors, with a right SHA-256."""
    if random.random() < 0.1 or len(data) < 110:
        return bytes_changed(random, data)
    length = struct.unpack_from("<Q", data)[0]
    text, body = data[8 : 8 + length], data[8 + length :]
    if random.random() < 0.25:
        body = bytes_changed(random, body)
    else:
        try:
            header: Any = json.loads(text)
        except (ValueError, RecursionError):
            header = None
        if isinstance(header, dict) and isinstance(header.get("__metadata__"), dict):
            header = _tensors_header(random, header)
            text = to_text(random, header)
        else:
            text = bytes_changed(random, text)
    text += b" " * (-len(text) % 8)
    if random.random() < 0.05:
        text = text[:-1]
    return rehashed(struct.pack("<Q", len(text)) + text + body)


def rehashed(data: bytes) -> bytes:
    """A file of tensors with a right SHA-256, where it has a place for one."""
    at = 8 + len(_START)
    if data[8:at] != _START or len(data) < at + 64:
        return data
    blank = data[:at] + b"0" * 64 + data[at + 64 :]
    return data[:at] + hashlib.sha256(blank).hexdigest().encode() + data[at + 64 :]


def _tensors_header(random: Random, header: dict[str, Any]) -> dict[str, Any]:
    metadata = header["__metadata__"]
    document = metadata.get("document")
    if random.random() < 0.5 and isinstance(document, str):
        try:
            metadata["document"] = to_text(random, changed(random, json.loads(document))).decode(
                "utf-8", "replace"
            )
        except (ValueError, RecursionError):
            metadata["document"] = "{}"
        return header
    tensors = changed(random, {k: v for k, v in header.items() if k != "__metadata__"} or {"x": 0})
    return {"__metadata__": metadata, **(tensors if isinstance(tensors, dict) else {})}


def document(random: Random, data: bytes) -> bytes:
    """A JSON document changed."""
    if random.random() < 0.1:
        return bytes_changed(random, data)
    try:
        return to_text(random, changed(random, json.loads(data)))
    except (ValueError, RecursionError):
        return bytes_changed(random, data)


def raw(random: Random, data: bytes) -> bytes:
    """Any bytes changed."""
    return bytes_changed(random, data)
