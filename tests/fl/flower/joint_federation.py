"""A federation whose clients have a joint key: 5 parties, any 3 of whom open a sum."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from flwr.serverapp.strategy import Result
from tests.fl.flower.federation import NODES, Federation

import quancrypt_native as qn
from quancrypt_fl.flower.parties import JointParty
from quancrypt_fl.joint.facts import JointFacts, PartyFacts
from quancrypt_native import sealing
from quancrypt_native.channels import ChannelKey

PARTIES, THRESHOLD = 5, 3


@dataclass(frozen=True)
class JointKit:
    """What provisioning makes: public facts, and each party's channel key."""

    folder: Path
    facts: JointFacts
    params: qn.Parameters
    channels: tuple[ChannelKey, ...]
    group: qn.KeyPair
    passphrase: bytes

    @property
    def facts_file(self) -> Path:
        return self.folder / "joint.toml"

    @property
    def key_file(self) -> Path:
        return self.folder / "secret.key"

    def channel_file(self, index: int) -> Path:
        return self.folder / f"channel-{index}.key"

    def party(self, state: Path, index: int) -> JointParty:
        """The party of a client with this state folder."""
        return JointParty(state / "joint", self.facts, self.params, self.channels[index])


def make_kit(
    folder: Path, passphrase: bytes, *, parties: int = PARTIES, threshold: int = THRESHOLD
) -> JointKit:
    folder.mkdir(parents=True, exist_ok=True)
    with mock.patch.object(sealing, "_SCRYPT_N", 16):  # five key files in one process
        return _make_kit(folder, passphrase, parties, threshold)


def _make_kit(folder: Path, passphrase: bytes, parties: int, threshold: int) -> JointKit:
    params = qn.Parameters.for_aggregation(
        bits=8, max_weight=64, key_mode="threshold", parties=parties, values=700
    )
    small = qn.Parameters.for_aggregation(bits=8, max_weight=1, values=1)
    channels = tuple(ChannelKey() for _ in range(parties))
    members = [PartyFacts(f"client-{i + 1}", key.public) for i, key in enumerate(channels)]
    facts = JointFacts(threshold, secrets.token_bytes(32), members)
    kit = JointKit(folder, facts, params, channels, qn.keygen(small), passphrase)
    kit.facts_file.write_text(facts.to_toml())
    (folder / "params.qcp").write_bytes(params.to_bytes())
    (folder / "group.qcp").write_bytes(small.to_bytes())
    kit.key_file.write_bytes(kit.group.secret.to_bytes(passphrase=passphrase))
    for index, key in enumerate(channels):
        kit.channel_file(index).write_bytes(key.to_bytes(passphrase=passphrase))
    return kit


@dataclass
class JointFederation(Federation):
    """As :class:`Federation`, with a joint key."""

    kit: JointKit = field(kw_only=True)

    @classmethod
    def of(cls, kit: JointKit, folder: Path | None, **options: Any) -> JointFederation:
        nodes = options.pop("nodes", NODES)
        settings = {
            node: {
                "quancrypt-joint": str(kit.facts_file),
                "quancrypt-channel-key": str(kit.channel_file(index)),
            }
            for index, node in enumerate(nodes)
        }
        more: Mapping[int, Mapping[str, Any]] = options.pop("node_settings", {})
        settings |= {node: {**settings[node], **extra} for node, extra in more.items()}
        return cls(
            kit.params, kit.key_file, folder, nodes, node_settings=settings, kit=kit, **options
        )

    def train(self, rounds: int = 3, config: Any = None, **options: Any) -> Result:
        return super().train(rounds, config, **{"joint": self.kit.facts, **options})

    def party(self, node: int) -> JointParty:
        """The party of a node, from its state folder."""
        return self.kit.party(self.state_of(node), self.index(node))

    def parts(self, round: int, asks: str = "open") -> Iterator[tuple[int, bytes]]:
        """Nodes that were asked for a step in a round, with what they replied."""
        for exchange in self.grid.exchanges:
            if asks in exchange.asks and exchange.round == round:
                yield (
                    exchange.node,
                    b"".join(
                        data for _, contents in exchange.replies or [] for data in contents.values()
                    ),
                )
