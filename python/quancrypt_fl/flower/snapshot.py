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

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import quancrypt_native as qn
from quancrypt_fl.flower.held import Held, held_bytes, read_held
from quancrypt_fl.flower.snapshot_prefix import (
    MAGIC,
    PREFIX,
    TAG_BYTES,
    VERSION,
    SnapshotError,
    chunks,
    said_by,
)
from quancrypt_fl.flower.tensors_file import TensorsFileError

__all__ = ["SnapshotError", "open_snapshot", "seal_snapshot"]

_LABEL = b"quancrypt_fl snapshot v1"


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
    prefix = PREFIX.pack(
        MAGIC,
        VERSION,
        bytes.fromhex(training),
        held.state.round,
        bytes.fromhex(held.chain),
        salt,
        len(plain),
    )
    cipher = AESGCM(key.derive(_LABEL + salt))
    encrypted = (
        cipher.encrypt(nonce, plain[start:end], prefix) for nonce, start, end in chunks(len(plain))
    )
    return b"".join((prefix, *encrypted))


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
    said = said_by(data)
    for name, found, expected in (
        ("training", said.training, training),
        ("round", said.round, round),
        ("chain", said.chain, chain),
    ):
        if found != expected:
            raise SnapshotError(f"the snapshot is of {name} {found}, not {expected}")
    cipher = AESGCM(key.derive(_LABEL + said.salt))
    sealed = memoryview(data)[PREFIX.size :]
    plain = bytearray(said.size)
    try:
        for number, (nonce, start, end) in enumerate(chunks(said.size)):
            tags = number * TAG_BYTES
            chunk = sealed[start + tags : end + tags + TAG_BYTES]
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
