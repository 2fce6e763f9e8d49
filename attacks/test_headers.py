"""Headers that want memory, time, or two readings."""

from __future__ import annotations

import struct
import tracemalloc

import pytest
from tests.native import oracle
from tests.native.wire_objects import OBJECTS, WireObject

import quancrypt_native as qn
from attacks.conftest import forged, with_header
from quancrypt_native import wire


@pytest.mark.parametrize("name", OBJECTS)
def test_header_of_exabytes(objects: dict[str, WireObject], name: str) -> None:
    """Idea: state a header of 2^63 bytes, so that the reader makes room for it.
    Refused by: `wire.parse`, which compares the length with its limit and with what is there."""
    item = objects[name]
    for length in (2**63, 2**64 - 1, wire.MAX_HEADER_BYTES + 1):
        data = item.data[:12] + struct.pack("<Q", length) + item.data[20:]
        tracemalloc.start()
        with pytest.raises(qn.WireFormatError, match="too large"):
            item.read(data)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1 << 20


@pytest.mark.parametrize("name", ["parameters", "public key", "secret key"])
def test_long_header_where_a_short_one_does(objects: dict[str, WireObject], name: str) -> None:
    """Idea: megabytes of valid header for an object without tensors, parsed before it is refused.
    Refused by: the limit of 64 KiB for every kind but updates, before JSON is looked at."""
    item = objects[name]
    with pytest.raises(qn.WireFormatError, match=r"header length .* too large; allowed: 65536"):
        item.read(forged(item, padding="x" * 2**16))


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_deep_nesting(objects: dict[str, WireObject], name: str, opening: bytes) -> None:
    """Idea: nest the JSON ten thousand levels deep, so that a recursive parser overflows its stack.
    Refused by: Python's parser, which counts levels; the error becomes a WireFormatError."""
    item = objects[name]
    text = b'{"body_bytes":0,"a":' + opening * 10_000
    with pytest.raises(qn.WireFormatError, match="not valid JSON"):
        item.read(with_header(item, text))


@pytest.mark.parametrize("name", OBJECTS)
def test_two_readings_of_one_field(objects: dict[str, WireObject], name: str) -> None:
    """Idea: a field twice, of which one program takes the first and another the last.
    Refused by: `wire.parse`: no name may stand twice in any object of the header."""
    item = objects[name]
    _, body = oracle.unframe(item.data)
    text = b'{"body_bytes":%d,"body_bytes":%d}' % (len(body), len(body))
    with pytest.raises(qn.WireFormatError, match="stands twice"):
        item.read(with_header(item, text, body))


@pytest.mark.parametrize("name", OBJECTS)
def test_smuggled_fields(objects: dict[str, WireObject], name: str) -> None:
    """Idea: a field that this version ignores and a later one obeys.
    Refused by: `HeaderReader.finish`, which refuses every field that nobody asked for; in a key
    file the passphrase's seal covers the header too."""
    item = objects[name]
    with pytest.raises((qn.WireFormatError, qn.PassphraseError)):
        item.read(forged(item, key_is_trusted=True))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "1" * 5000])
def test_numbers_that_are_none(objects: dict[str, WireObject], number: str) -> None:
    """Idea: NaN, infinity or a number of thousands of digits for a length.
    Refused by: `wire.parse`: constants are no JSON, digits are limited, lengths are integers."""
    for item in objects.values():
        with pytest.raises(qn.WireFormatError):
            item.read(with_header(item, b'{"body_bytes":%s}' % number.encode()))


@pytest.mark.parametrize("version", [0, 2, 255, 65535])
def test_another_version(objects: dict[str, WireObject], version: int) -> None:
    """Idea: say that the bytes are of an older, laxer version of the format.
    Refused by: `wire.parse`, which reads its own version and no other."""
    for item in objects.values():
        data = item.data[:8] + struct.pack("<H", version) + item.data[10:]
        with pytest.raises(qn.WireFormatError, match=f"version {version} is not supported"):
            item.read(data)


def test_one_kind_for_another(objects: dict[str, WireObject]) -> None:
    """Idea: hand in a public key, or a key file, where an update is expected.
    Refused by: the kind in the prefix, which the reader compares with the one that it asked for."""
    kinds = {item.kind: item for item in objects.values()}
    for item in kinds.values():
        for other in kinds.values():
            if other.kind != item.kind:
                with pytest.raises(qn.WireFormatError, match="these bytes hold kind"):
                    item.read(other.data)
