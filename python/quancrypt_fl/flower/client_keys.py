"""What a client protects its updates with: a key that all share, or its party of a joint key.

With a joint key the file that else holds the clients' key holds their *group key*: it opens no
update, and seals snapshots and the parts of opened sums for the clients.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

import quancrypt_native as qn
from quancrypt_fl.errors import ConfigError
from quancrypt_fl.flower.programs import PASSPHRASE
from quancrypt_fl.flower.protocol import ProtocolError, Request
from quancrypt_fl.method.roles import Sealed, Tensors
from quancrypt_fl.protect import Dither, Protector

if TYPE_CHECKING:
    from quancrypt_fl.flower.parties import JointParty

__all__ = [
    "ClientKeys",
    "SharedKeys",
    "Updates",
    "check_joint",
    "open_keys",
    "opened_secret",
    "parameters_of",
    "passphrase_for",
]


class Updates(Protocol):
    """Protects updates, and opens sums."""

    def protect(self, tensors: Tensors, clips: Mapping[str, float], t: int) -> Sealed:
        """Clip, quantize, encrypt and serialize."""

    def quantized(
        self, tensors: Tensors, clips: Mapping[str, float], t: int
    ) -> dict[str, NDArray[np.float32]]:
        """What :meth:`protect` of the same arguments adds to the sum."""

    def total_of(self, data: bytes) -> bytes:
        """The serialized sum in what :meth:`unprotect` reads."""

    def unprotect(self, data: bytes) -> tuple[dict[str, NDArray[np.float32]], int]:
        """Weighted means, and the total weight."""


class ClientKeys(Protocol):
    """A client's keys.

    Attributes
    ----------
    params
        Encryption parameters of updates.
    secret
        What all clients have and the server has not. Its fingerprint is the clients' key.
    party
        The client's party, where there is a joint key.
    """

    @property
    def params(self) -> qn.Parameters: ...

    @property
    def secret(self) -> qn.SecretKey: ...

    @property
    def party(self) -> JointParty | None: ...

    def updates(self, rounding: str, dither: Dither) -> Updates:
        """What protects this client's updates."""


@dataclass(frozen=True)
class SharedKeys:
    """One secret key, shared by all clients: see :class:`ClientKeys`."""

    params: qn.Parameters
    secret: qn.SecretKey
    party: None = None

    def updates(self, rounding: str, dither: Dither) -> Updates:
        """Encrypts and opens with the secret key."""
        return Protector(self.params, self.secret, rounding, dither)


def open_keys(
    key: Path, data: bytes, *, joint: Path | None, channel_key: Path | None, state: Path | None
) -> ClientKeys:
    """A client's keys, for the encryption parameters that a server sends.

    Parameters
    ----------
    key
        File of the clients' key, or of their group key.
    data
        Parameters, serialized.
    joint, channel_key
        Files of the joint key's facts and of this client's channel key, where it has one.
    state
        The client's folder for what outlives a process.

    Raises
    ------
    ConfigError
        If a file or folder is not named, there is no passphrase, or the server asks for another
        kind of key than this client has.
    PassphraseError, WireFormatError, FingerprintError
        If a file does not open, or belongs to other parameters.
    """
    params = parameters_of(data)
    if (params.key_mode == "threshold") != (joint is not None):
        mine = "a shared key" if joint is None else "a threshold key, which nobody holds"
        raise ConfigError(
            f"this client has {mine}; the server's parameters are for key_mode "
            f"{params.key_mode!r}: their kits are not of one deployment"
        )
    if joint is None:
        return SharedKeys(params, opened_secret(key, key.stat().st_mtime_ns, data))
    # A process serves one message: it imports what its own key needs.
    from quancrypt_fl.flower.joint_keys import open_joint

    return open_joint(key, data, joint=joint, channel_key=channel_key, state=state)


def check_joint(keys: ClientKeys, request: Request) -> None:
    """Raise :class:`ProtocolError` unless a request is about this client's joint key, or none."""
    joint, party = request.joint, keys.party
    if party is None or joint is None:
        if (party is None) != (joint is None):
            raise ProtocolError("client and server have different kinds of keys")
        return
    if joint.ceremony != party.ceremony.fingerprint:
        raise ProtocolError(
            f"the server's joint key is of the ceremony {joint.ceremony[:16]}..., this client's "
            f"of {party.ceremony.fingerprint[:16]}...: their kits are not of one deployment"
        )
    if joint.key is not None and (own := party.require_public().key_id) != joint.key:
        raise ProtocolError(f"the joint key of this client is {own}, not {joint.key}")


@lru_cache(maxsize=4)
def parameters_of(data: bytes) -> qn.Parameters:
    """Encryption parameters, parsed once in a process."""
    return qn.Parameters.from_bytes(data)


@lru_cache(maxsize=4)
def opened_secret(path: Path, version: int, data: bytes) -> qn.SecretKey:
    """The key in a file, opened once in a process: Scrypt takes a while.

    Parameters
    ----------
    version
        Changes with the file.
    data
        Its parameters, serialized.
    """
    del version
    params = parameters_of(data)
    return qn.SecretKey.from_bytes(path.read_bytes(), params, passphrase=passphrase_for(path))


def passphrase_for(path: Path) -> bytes:
    """The passphrase of a file: bytes of the environment, as commands that seal keys read them."""
    passphrase = os.environ.get(PASSPHRASE, "")
    if not passphrase:
        raise ConfigError(f"{path}: its passphrase is not in the environment ({PASSPHRASE})")
    return os.fsencode(passphrase)
