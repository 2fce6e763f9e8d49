"""A client's keys where nobody holds the key of updates: see :mod:`.client_keys`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import quancrypt_native as qn
from quancrypt_fl.errors import ConfigError, MethodError
from quancrypt_fl.flower.client_keys import (
    Updates,
    opened_secret,
    parameters_of,
    passphrase_for,
)
from quancrypt_fl.flower.parties import JointParty
from quancrypt_fl.flower.protocol import ProtocolError
from quancrypt_fl.joint.facts import JointFacts
from quancrypt_fl.joint.protector import JointProtector
from quancrypt_fl.protect import Dither
from quancrypt_native.channels import ChannelKey

__all__ = ["JointKeys", "open_joint"]

GROUP_PARAMETERS = "group.qcp"
PARAMETERS = "params.qcp"
"""Files beside that of the joint key's facts."""


@dataclass(frozen=True)
class JointKeys:
    """A joint key that nobody holds: see :class:`.ClientKeys`; ``secret`` is the group key."""

    params: qn.Parameters
    secret: qn.SecretKey
    party: JointParty

    def updates(self, rounding: str, dither: Dither) -> Updates:
        """Encrypts with the joint public key; opens sums with the parts that come with them.

        Raises
        ------
        MethodError
            If this client has not joined.
        """
        public = self.party.require_public()
        return _JointUpdates(self.party.ceremony, public, self.secret, rounding, dither)


class _JointUpdates(JointProtector):
    def unprotect(self, data: bytes) -> tuple[dict[str, NDArray[np.float32]], int]:
        """As of the base; parts that do not open a sum fail for every client alike.

        All have the same bytes, group key and ceremony: one dishonest part must not stop those who
        follow, so it is the same error as a malformed upload is.
        """
        try:
            return super().unprotect(data)
        except (MethodError, qn.QuanCryptError) as error:
            raise qn.DecryptionError(str(error)) from None


def open_joint(
    key: Path, data: bytes, *, joint: Path, channel_key: Path | None, state: Path | None
) -> JointKeys:
    """As :func:`.open_keys`, for a client with a party of a joint key."""
    if channel_key is None or state is None:
        raise ConfigError(
            "a threshold key needs a channel key and a folder for its state: give the node "
            "configuration quancrypt-channel-key and quancrypt-state"
        )
    params = parameters_of(data)
    if joint.with_name(PARAMETERS).read_bytes() != data:
        raise ProtocolError(
            f"the server's encryption parameters are {params.fingerprint}, and not those of "
            f"{joint.with_name(PARAMETERS)}"
        )
    group = joint.with_name(GROUP_PARAMETERS).read_bytes()
    secret = opened_secret(key, key.stat().st_mtime_ns, group)
    channel = _opened_channel(channel_key, channel_key.stat().st_mtime_ns)
    return JointKeys(
        params, secret, JointParty(state / "joint", JointFacts.load(joint), params, channel)
    )


@lru_cache(maxsize=4)
def _opened_channel(path: Path, version: int) -> ChannelKey:
    del version
    return ChannelKey.from_bytes(path.read_bytes(), passphrase=passphrase_for(path))
