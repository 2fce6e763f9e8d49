"""What a sealed snapshot says of itself in the clear; no key is needed, see :mod:`.snapshot`."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from quancrypt_fl.errors import FederatedError

__all__ = ["Said", "SnapshotError", "chunks", "said_by", "says_of_itself"]

MAGIC, VERSION = b"QCSNAPSH", 1
PREFIX = struct.Struct("<8sH16sQ32s32sQ")
CHUNK_BYTES = 2**24
TAG_BYTES = 16


class SnapshotError(FederatedError, ValueError):
    """Bytes are not the sealed snapshot that they are said to be."""


@dataclass(frozen=True)
class Said:
    """What stands in the clear, still untrusted; ``prefix`` is all of it as bytes."""

    prefix: bytes
    training: str
    round: int
    chain: str
    salt: bytes
    size: int


def said_by(data: bytes) -> Said:
    """What a snapshot says of itself, checked for magic, version and length.

    Raises
    ------
    SnapshotError
        If it is none.
    """
    if len(data) < PREFIX.size:
        raise SnapshotError(f"truncated: {len(data)} bytes are less than the smallest snapshot")
    prefix = bytes(data[: PREFIX.size])
    magic, version, training, number, chain, salt, size = PREFIX.unpack(prefix)
    if magic != MAGIC:
        raise SnapshotError("wrong magic: these bytes are no snapshot")
    if version != VERSION:
        raise SnapshotError(f"snapshot version {version} is not supported; supported: {VERSION}")
    expected_bytes = PREFIX.size + size + TAG_BYTES * -(-size // CHUNK_BYTES)
    if size < 1 or expected_bytes != len(data):
        raise SnapshotError(
            f"a snapshot of {size} bytes takes {expected_bytes} when sealed; {len(data)} present"
        )
    return Said(prefix, training.hex(), number, chain.hex(), salt, size)


def says_of_itself(data: bytes) -> tuple[str, int, str]:
    """Training, round and chain id of which a snapshot says it is; authentic once it has opened."""
    said = said_by(data)
    return said.training, said.round, said.chain


def chunks(size: int) -> Iterator[tuple[bytes, int, int]]:
    """Nonce, start and end of each chunk of the plaintext."""
    for number, start in enumerate(range(0, size, CHUNK_BYTES)):
        end = min(start + CHUNK_BYTES, size)
        yield number.to_bytes(11, "big") + bytes([end == size]), start, end
