"""Compressed input, and bombs. Nothing that strangers send is ever decompressed."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import tracemalloc
import zlib

import pytest
from tests.native.conftest import Party
from tests.native.wire_objects import OBJECTS, WireObject

import quancrypt_native as qn

BOMB = 64 << 20


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress, bz2.compress, lzma.compress])
def test_compressed_objects(objects: dict[str, WireObject], name: str, compress) -> None:  # type: ignore[no-untyped-def]
    """Idea: a compressed object, for a reader that unpacks what it recognizes.
    Refused by: the magic: these are no bytes of ours, and nobody tries to decompress them."""
    with pytest.raises(qn.WireFormatError, match=r"wrong magic|truncated"):
        objects[name].read(compress(objects[name].data))


def test_a_bomb_in_place_of_an_update(objects: dict[str, WireObject]) -> None:
    """Idea: kilobytes that become 64 MiB when they are decompressed.
    Refused by: the magic, in memory that the bomb does not decide."""
    bomb = zlib.compress(bytes(BOMB), 9)
    tracemalloc.start()
    with pytest.raises(qn.WireFormatError, match="wrong magic"):
        objects["sum"].read(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(bomb) < 1 << 17
    assert peak < 1 << 20


@pytest.mark.parametrize("mode", [1, 2, 3, 255])
def test_compressed_streams_of_seal(
    victim: Party, objects: dict[str, WireObject], mode: int
) -> None:
    """Idea: a SEAL stream that says it is compressed, by zlib (1) or Zstandard (2).
    Refused by: SEAL, which is built without both; an unknown mode is an error too."""
    update = objects["sum"].read(objects["sum"].data)
    (stream,) = qn.seal.export_ciphertexts(update)
    inner = zlib.compress(stream[16:])
    packed = stream[:5] + bytes([mode]) + stream[6:8] + struct.pack("<Q", 16 + len(inner)) + inner
    with pytest.raises(qn.WireFormatError, match="is not usable"):
        qn.seal.import_ciphertexts([packed], victim.params, like=update, weight=3)
