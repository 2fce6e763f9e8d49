"""Changes of JSON documents: by value, by structure, and of the text itself."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

TELLING: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 8, 255, 1024, 2**16, 2**16 + 1, 2**31, 2**31 - 1, 2**44,
    2**44 + 1, 2**48, 2**53, 2**60, 2**63 - 1, 2**63, 2**64, 10**40, 0.0, -0.0, 0.5, 1.0, 1e-31,
    1e-30, 1e30, 1.1e30, 1e308, -1.5, "", "x", "x" * 70, "\x00", "\ud800", "\u202e", "é" * 32,
    "0" * 32, "f" * 64, "F" * 32, "../x", [], {}, [0], [[]], {"": 0}, [1, 1], [2**44, 0], [1] * 33,
    "x" * 9000, [["a", [2**44], 1.0], ["b", [2**44], 1.0]],
)  # fmt: skip
"""Values at and beyond the limits of the formats."""

TEXTS = (
    b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"1" * 5000, b"[" * 2000, b"\xff",
    b"\xed\xa0\x80", b'"\\ud800"', b"\x00", b"{}", b"null", b'"body_bytes":0,', b"0.1e-400", b" ",
)  # fmt: skip
"""Pieces of text that parsers of JSON stumble on."""


def changed(random: Random, document: Any) -> Any:
    """A copy with one to three changes, each at a random place."""
    result = copy.deepcopy(document)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        result = _change(random, result, depth=0)
    return result


def _change(random: Random, value: Any, depth: int) -> Any:
    if isinstance(value, dict) and value and (depth == 0 or random.random() < 0.7):
        return _change_object(random, value, depth)
    if isinstance(value, list) and value and random.random() < 0.7:
        return _change_list(random, value, depth)
    return _other(random, value)


def _change_object(random: Random, value: dict[str, Any], depth: int) -> dict[str, Any]:
    name = random.choice(list(value))
    action = random.random()
    if action < 0.08:
        del value[name]
    elif action < 0.14:
        value[str(random.choice(("", "x", name + " ", name.upper(), "body_bytes")))] = value[name]
    else:
        value[name] = _change(random, value[name], depth + 1)
    return value


def _change_list(random: Random, value: list[Any], depth: int) -> list[Any]:
    at = random.randrange(len(value))
    action = random.random()
    if action < 0.15:
        del value[at]
    elif action < 0.3:
        value.insert(at, copy.deepcopy(random.choice(value)))
    elif action < 0.35:
        value *= random.choice((2, 3, 40))
    else:
        value[at] = _change(random, value[at], depth + 1)
    return value


def _other(random: Random, value: Any) -> Any:
    if random.random() < 0.5 or value is None:
        return copy.deepcopy(random.choice(TELLING))
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return random.choice(
            (value + 1, value - 1, -value, value * 2, value**2 % 2**80, float(value % 2**64))
        )
    if isinstance(value, float):
        return random.choice((value * 2, -value, value * 1e30, value / 1e30, repr(value)))
    if isinstance(value, str):
        at = random.randrange(len(value) + 1)
        return random.choice((value[:at], value + value[at:], value[:at] + "0" + value[at + 1 :]))
    return copy.deepcopy(random.choice(TELLING))


def to_text(random: Random, document: Any) -> bytes:
    """The document as JSON, in one of its spellings, now and then with a piece of other text."""
    text = json.dumps(
        document,
        ensure_ascii=random.random() < 0.8,
        separators=(",", ":") if random.random() < 0.9 else None,
    ).encode("utf-8", "surrogatepass")
    if random.random() < 0.02:
        text = text.replace(b"{", b'{"a":0,"a":0,', 1)
    if random.random() < 0.06:
        at = random.randrange(len(text) + 1)
        text = text[:at] + random.choice(TEXTS) + text[at + random.choice((0, 1, 4)) :]
    return text


def bytes_changed(random: Random, data: bytes, most: int = 4) -> bytes:
    """Some bytes flipped, replaced, inserted, left out, or a run of one byte."""
    result = bytearray(data)
    for _ in range(random.randint(1, most)):
        at = random.randrange(len(result) + 1)
        match random.randrange(6):
            case 0 if at < len(result):
                result[at] ^= 1 << random.randrange(8)
            case 1 if at < len(result):
                result[at] = random.randrange(256)
            case 2:
                result[at:at] = random.randbytes(random.randint(1, 8))
            case 3:
                del result[at : at + random.choice((1, 2, 8, 100))]
            case 4:
                size = min(random.choice((1, 4, 8, 16)), len(result) - at)
                result[at : at + size] = bytes([random.choice((0, 0x7F, 0x80, 0xFF))]) * size
            case _:
                del result[at:]
    return bytes(result)
