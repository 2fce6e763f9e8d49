"""What kits with a threshold key have beyond others: a group key, a channel key for each site."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import quancrypt_native as qn
from quancrypt_fl.cli.errors import CommandError, naming
from quancrypt_fl.joint.ceremony import group_parameters
from quancrypt_fl.joint.facts import SEED_BYTES, JointFacts, PartyFacts
from quancrypt_native.channels import ChannelKey

if TYPE_CHECKING:
    from quancrypt_fl.deployment.kits import ClientKit
    from quancrypt_fl.deployment.provisioning import JointParts
    from quancrypt_fl.federation_config import FederationConfig

__all__ = ["joint_parts", "opened_channel"]


def joint_parts(
    config: FederationConfig, names: Sequence[str], passphrases: Mapping[str, bytes]
) -> tuple[qn.SecretKey, JointParts]:
    """A fresh group key, and what else kits need.

    Parameters
    ----------
    config
        The run, with a threshold.
    names
        Sites, in the order of their places.
    passphrases
        Of the sites, by name.
    """
    from quancrypt_fl.deployment.provisioning import JointParts

    assert config.threshold is not None
    params = group_parameters(config.security)
    channels = {name: ChannelKey() for name in names}
    facts = JointFacts(
        config.threshold,
        secrets.token_bytes(SEED_BYTES),
        [PartyFacts(name, key.public) for name, key in channels.items()],
        config.least_arrivals,
    )

    def seal(name: str) -> bytes:
        return channels[name].to_bytes(passphrase=passphrases[name])

    return qn.keygen(params).secret, JointParts(facts, params.to_bytes(), seal)


def opened_channel(kit: ClientKit, passphrase: bytes) -> ChannelKey | None:
    """The channel key of a client's kit; None if the kit has no threshold key."""
    if kit.channel_key is None or kit.joint is None:
        return None
    with naming(kit.channel_key):
        channel = ChannelKey.from_bytes(kit.channel_key.read_bytes(), passphrase=passphrase)
    facts = JointFacts.load(kit.joint)
    party = facts.parties[facts.index_of(channel.public)]
    if party.name != kit.name:
        raise CommandError(
            f"{kit.channel_key}: is the channel key of {party.name}, not of {kit.name}"
        )
    return channel
