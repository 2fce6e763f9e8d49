"""A client's side of a joint key: encrypts for it, answers for its own part, reads opened sums."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from typing import Protocol, cast

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

import quancrypt_native as qn
from quancrypt_fl.errors import MethodError
from quancrypt_fl.joint.opened import OpenedSum
from quancrypt_fl.protect import Dither, Encrypting
from quancrypt_native import threshold

__all__ = ["GroupKey", "JointProtector", "sealed_part"]

_LABEL = b"quancrypt_fl joint part v1"
_NONCE_BYTES = 12


class GroupKey(Protocol):
    """What all clients have and the server has not, such as a :class:`quancrypt_native.SecretKey`.

    Under it the parts travel: whoever combines them reads the mean.
    """

    def derive(self, label: bytes) -> bytes:
        """32 bytes for a label."""


class JointProtector(Encrypting):
    """Encrypts a client's updates under the joint public key, and reads sums that were opened.

    Parameters
    ----------
    ceremony
        Public data of the joint key.
    public
        The joint public key.
    group
        The clients' group key.
    rounding, dither
        As of :class:`~quancrypt_fl.protect.Encrypting`.
    """

    def __init__(
        self,
        ceremony: threshold.Ceremony,
        public: qn.PublicKey,
        group: GroupKey,
        rounding: str = "nearest",
        dither: Dither | None = None,
    ) -> None:
        super().__init__(ceremony.params, public, rounding, dither)
        self._ceremony = ceremony
        self._group = group

    def total_of(self, data: bytes) -> bytes:
        """The serialized sum in an :class:`OpenedSum`."""
        return OpenedSum.from_bytes(data).total

    def unprotect(self, data: bytes) -> tuple[dict[str, NDArray[np.float32]], int]:
        """Weighted means of an :class:`OpenedSum` as float32, and its total weight.

        Raises
        ------
        MethodError
            If the bytes are no opened sum, or a part was sealed by another group or changed.
        QuanCryptError
            If the parts do not open the sum.
        """
        opened = OpenedSum.from_bytes(data)
        total = qn.EncryptedUpdate.from_bytes(opened.total, self._params)
        participants = sorted(opened.parts)
        parts = {
            index: self._open(part, _context(self._ceremony, opened.total, index, participants))
            for index, part in opened.parts.items()
        }
        mean = self._ceremony.decrypt_mean(total, parts)
        return cast("dict[str, NDArray[np.float32]]", mean), total.weight

    def _open(self, sealed: bytes, context: bytes) -> bytes:
        cipher = AESGCM(self._group.derive(_LABEL))
        try:
            return cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], context)
        except (InvalidTag, ValueError):  # ValueError: shorter than a nonce
            raise MethodError(
                "a part does not open: another group sealed it, it belongs to another sum or other "
                "participants, or it was changed"
            ) from None


def sealed_part(
    party: threshold.Party, group: GroupKey, data: bytes, participants: Iterable[int]
) -> bytes:
    """A party's part of opening a serialized sum, sealed for the clients.

    Parameters
    ----------
    participants
        Indices of the parties that open it, this party's among them.

    Raises
    ------
    QuanCryptError
        As of :meth:`quancrypt_native.threshold.Party.partial_decryption`; a sum is answered once.
    """
    participants = sorted(participants)
    total = qn.EncryptedUpdate.from_bytes(data, party.ceremony.params)
    part = party.partial_decryption(total, participants)
    # Up to 128 parties seal up to 2^16 parts each: two nonces are alike with probability 2^-51.
    nonce = os.urandom(_NONCE_BYTES)
    context = _context(party.ceremony, data, party.index, participants)
    return nonce + AESGCM(group.derive(_LABEL)).encrypt(nonce, part, context)


def _context(
    ceremony: threshold.Ceremony, data: bytes, index: int, participants: list[int]
) -> bytes:
    """What a sealed part belongs to: 65 bytes and one for each participant."""
    digest = hashlib.sha256(data).digest()
    return bytes.fromhex(ceremony.fingerprint) + digest + bytes([index, *participants])
