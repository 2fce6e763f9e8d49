"""Envelope format 1: a head of fixed size, a signature, then the body.

::

    offset  size
    0       8     magic "QCENVLPE"
    8       2     format version, little-endian as all numbers (1)
    10      2     purpose, see :class:`Purpose`
    12      4     round: rounds finished before it
    16      8     sender: number of the connection it comes over, such as Flower's node id; 0: none
    24      16    run
    40      16    fingerprint of the encryption parameters
    56      16    fingerprint of the clients' key
    72      16    member: first 16 bytes of a SHA-256 of name and public key
    88      8     length of the body in bytes
    96      32    SHA-256 of the body
    128     64    Ed25519 signature (RFC 8032) of the domain string and bytes 0 to 127
    192     ...   the body, here or beside

Head and signature together are the *seal*. Nothing in it has a length of its own, so that it is
taken apart without parsing. The signature covers the head, and the head the body.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from quancrypt_fl.envelopes.errors import EnvelopeError, Refusal

__all__ = [
    "DOMAIN",
    "HEAD_BYTES",
    "SEAL_BYTES",
    "SIGNATURE_BYTES",
    "Buffer",
    "Head",
    "Purpose",
    "body_digest",
]

DOMAIN = b"quancrypt envelope v1\0"
"""What is signed begins with it: a signature made for anything else is none of an envelope."""

MAGIC = b"QCENVLPE"
VERSION = 1
_HEAD = struct.Struct("<8sHHIQ16s16s16s16sQ32s")
HEAD_BYTES = _HEAD.size
SIGNATURE_BYTES = 64
SEAL_BYTES = HEAD_BYTES + SIGNATURE_BYTES
assert (HEAD_BYTES, SEAL_BYTES) == (128, 192)

MAX_ROUND = 2**31 - 1
MAX_BODY_BYTES = 2**48

Buffer = bytes | bytearray | memoryview


class Purpose(IntEnum):
    """What an envelope is for. All but ``CATCH_UP`` count once per member and round, unless the
    server asks again (:meth:`.Gate.again`).
    """

    CATCH_UP = 1
    TRAIN = 2
    REPORT = 3
    UPLOAD = 4
    SNAPSHOT = 5
    FINISH = 6
    EVALUATE = 7
    DEAL = 8
    SHARE = 9
    JOIN = 10
    OPEN = 11


_PURPOSES = {purpose.value: purpose for purpose in Purpose}


@dataclass(frozen=True, slots=True)
class Head:
    """What is signed.

    Attributes
    ----------
    run, params, key, member
        16 bytes each.
    round
        Rounds finished, 0 to 2^31 - 1.
    sender
        0 to 2^64 - 1.
    length
        Of the body in bytes, 0 to 2^48.
    digest
        SHA-256 of the body, 32 bytes.
    """

    purpose: Purpose
    round: int
    sender: int
    run: bytes
    params: bytes
    key: bytes
    member: bytes
    length: int
    digest: bytes

    def to_bytes(self) -> bytes:
        """The first 128 bytes of an envelope.

        Raises
        ------
        ValueError
            If a field is out of range.
        """
        for name in ("run", "params", "key", "member"):
            if len(getattr(self, name)) != 16:
                raise ValueError(f"{name} has {len(getattr(self, name))} bytes; allowed: 16")
        for name, most in (("round", MAX_ROUND), ("sender", 2**64 - 1), ("length", MAX_BODY_BYTES)):
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"{name} = {getattr(self, name)}; allowed: 0 to {most}")
        return _HEAD.pack(
            MAGIC, VERSION, self.purpose, self.round, self.sender, self.run, self.params,
            self.key, self.member, self.length, self.digest,
        )  # fmt: skip

    @classmethod
    def from_bytes(cls, seal: Buffer) -> Head:
        """Take a seal apart; nothing of what it says is believed yet.

        Raises
        ------
        EnvelopeError
            Of the reason ``MALFORMED``.
        """
        if len(seal) != SEAL_BYTES:
            raise EnvelopeError(
                Refusal.MALFORMED, f"a seal of {len(seal):,} bytes; allowed: {SEAL_BYTES}"
            )
        magic, version, number, *fields = _HEAD.unpack_from(seal)
        if magic != MAGIC:
            raise EnvelopeError(Refusal.MALFORMED, "wrong magic: these bytes are no envelope")
        if version != VERSION:
            raise EnvelopeError(
                Refusal.MALFORMED, f"envelope format {version}; this version reads {VERSION}"
            )
        purpose = _PURPOSES.get(number)
        if purpose is None:
            raise EnvelopeError(
                Refusal.MALFORMED, f"purpose {number}; allowed: 1 to {max(_PURPOSES)}"
            )
        return cls(purpose, *fields)


def body_digest(parts: Iterable[Buffer]) -> tuple[int, bytes]:
    """Length and SHA-256 of the parts of a body one after the other; none of them is copied."""
    hasher, length = hashlib.sha256(), 0
    for part in parts:
        view = memoryview(part)
        hasher.update(view)
        length += view.nbytes
    return length, hasher.digest()
