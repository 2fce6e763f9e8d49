"""The global state sealed by one client for the others, who share the secret key.

The server keeps and hands out what it cannot read. Weights, and the clip bounds that no server
learns, are under AES-256-GCM; what the server knows anyway is authenticated in the clear::

    offset  size
    0       8     magic "QCSNAPSH"
    8       2     version, little-endian as all numbers (1)
    10      16    training id
    26      8     round: rounds finished
    34      32    chain id
    66      32    salt, random
    98      8     plaintext length n, at least 1
    106     n + 16 for each chunk

The key is ``SecretKey.derive(b"quancrypt_fl snapshot v1" + salt)`` and seals this snapshot alone.
Nonces therefore count chunks: 11 bytes of the chunk's number, big-endian, and one byte, 1 for the
last and else 0 (STREAM: Hoang, Reyhanitabar, Rogaway, Vizár, CRYPTO 2015). Every chunk also
authenticates the first 106 bytes. The plaintext, in chunks of 16 MiB, is ``held.held_bytes``.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import quancrypt_native as qn
from quancrypt_fl.errors import FederatedError
from quancrypt_fl.flower.held import Held, held_bytes, read_held
from quancrypt_fl.flower.tensors_file import TensorsFileError

__all__ = ["SnapshotError", "open_snapshot", "says_of_itself", "seal_snapshot"]

_MAGIC, _VERSION = b"QCSNAPSH", 1
_PREFIX = struct.Struct("<8sH16sQ32s32sQ")
_LABEL = b"quancrypt_fl snapshot v1"
_CHUNK_BYTES = 2**24
_TAG_BYTES = 16


class SnapshotError(FederatedError, ValueError):
    """Bytes are not the sealed snapshot that they are said to be."""


def seal_snapshot(held: Held, training: str, key: qn.SecretKey) -> bytes:
    """Seal a global state for everybody who has the secret key.

    Parameters
    ----------
    held
        The state; weights come back bit for bit, and in the same order.
    training
        Id of the training, 32 hexadecimal digits.
    key
        The clients' secret key.
    """
    plain = memoryview(held_bytes(held, training))
    salt = os.urandom(32)
    prefix = _PREFIX.pack(
        _MAGIC,
        _VERSION,
        bytes.fromhex(training),
        held.state.round,
        bytes.fromhex(held.chain),
        salt,
        len(plain),
    )
    cipher = AESGCM(key.derive(_LABEL + salt))
    chunks = (
        cipher.encrypt(nonce, plain[start:end], prefix) for nonce, start, end in _chunks(len(plain))
    )
    return b"".join((prefix, *chunks))


def open_snapshot(data: bytes, training: str, key: qn.SecretKey, *, round: int, chain: str) -> Held:
    """Open what :func:`seal_snapshot` made; safe on bytes from a stranger.

    Parameters
    ----------
    data
        The sealed bytes.
    training, round, chain
        What the snapshot must be of.
    key
        The clients' secret key.

    Raises
    ------
    SnapshotError
        Saying what is wrong. Nothing is allocated that the length of ``data`` does not bound.
    """
    said = _said(data)
    for name, found, expected in (
        ("training", said.training, training),
        ("round", said.round, round),
        ("chain", said.chain, chain),
    ):
        if found != expected:
            raise SnapshotError(f"the snapshot is of {name} {found}, not {expected}")
    cipher = AESGCM(key.derive(_LABEL + said.salt))
    sealed = memoryview(data)[_PREFIX.size :]
    plain = bytearray(said.size)
    try:
        for number, (nonce, start, end) in enumerate(_chunks(said.size)):
            tags = number * _TAG_BYTES
            chunk = sealed[start + tags : end + tags + _TAG_BYTES]
            plain[start:end] = cipher.decrypt(nonce, chunk, said.prefix)
    except InvalidTag:
        raise SnapshotError(
            "the snapshot does not open: another secret key sealed it, or it was changed"
        ) from None
    try:
        held = read_held(plain, training)
    except TensorsFileError as error:
        raise SnapshotError(f"the snapshot holds no global state: {error}") from None
    if (held.state.round, held.chain) != (round, chain):
        raise SnapshotError("the snapshot holds another state than it says")
    return held


def says_of_itself(data: bytes) -> tuple[str, int, str]:
    """Training, round and chain id of which a snapshot says it is; authentic once it has opened."""
    said = _said(data)
    return said.training, said.round, said.chain


@dataclass(frozen=True)
class _Said:
    """What stands in the clear, still untrusted; ``prefix`` is all of it as bytes."""

    prefix: bytes
    training: str
    round: int
    chain: str
    salt: bytes
    size: int


def _said(data: bytes) -> _Said:
    if len(data) < _PREFIX.size:
        raise SnapshotError(f"truncated: {len(data)} bytes are less than the smallest snapshot")
    prefix = bytes(data[: _PREFIX.size])
    magic, version, training, number, chain, salt, size = _PREFIX.unpack(prefix)
    if magic != _MAGIC:
        raise SnapshotError("wrong magic: these bytes are no snapshot")
    if version != _VERSION:
        raise SnapshotError(f"snapshot version {version} is not supported; supported: {_VERSION}")
    expected_bytes = _PREFIX.size + size + _TAG_BYTES * -(-size // _CHUNK_BYTES)
    if size < 1 or expected_bytes != len(data):
        raise SnapshotError(
            f"a snapshot of {size} bytes takes {expected_bytes} when sealed; {len(data)} present"
        )
    return _Said(prefix, training.hex(), number, chain.hex(), salt, size)


def _chunks(size: int) -> Iterator[tuple[bytes, int, int]]:
    """Nonce, start and end of each chunk of the plaintext."""
    for number, start in enumerate(range(0, size, _CHUNK_BYTES)):
        end = min(start + _CHUNK_BYTES, size)
        yield number.to_bytes(11, "big") + bytes([end == size]), start, end
