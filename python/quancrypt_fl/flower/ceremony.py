"""The server's part in making a joint key: it passes on what the clients' parties say.

All parties are needed, once. What a client has said it says again, so a server that died begins
anew; a training whose clients have a joint key already takes that. See :mod:`.parties` for what
keeps a server from changing anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from flwr.app import ConfigRecord, Message
from flwr.serverapp import Grid

import quancrypt_native as qn
from quancrypt_fl.errors import FederatedError, MethodError
from quancrypt_fl.flower.exchanges import Exchanges
from quancrypt_fl.flower.observing import RunObserver
from quancrypt_fl.flower.protocol import Ask, Reply, blobs_of
from quancrypt_fl.flower.requests import Step
from quancrypt_fl.joint.facts import JointFacts
from quancrypt_native import threshold

__all__ = ["NOTE", "CeremonyRun", "Reasons"]

NOTE = "joint-key"
"""Name of the note, in a training's history, that says which joint key it has."""

PHASE = "ceremony"
_FRAME_BYTES = 1 << 14  # header and seal of a deal or a share
_PRIME_BYTES = 8


class Reasons(RunObserver):
    """Why replies of a node were not taken, last."""

    def __init__(self) -> None:
        self.of: dict[int, str] = {}

    def refused(self, *, node: int, reason: str, **_: Any) -> None:
        """Keep the reason."""
        self.of[node] = reason

    def lost(self, *, node: int, reason: str, **_: Any) -> None:
        """Keep the reason."""
        self.of[node] = reason


@dataclass
class CeremonyRun:
    """One ceremony.

    Parameters
    ----------
    grid, exchanges
        Ways to the clients.
    reasons
        Told of what replies are not taken, as the exchanges' observer is.
    facts, ceremony
        What all sites know of the joint key.
    config
        The user's ConfigRecord.
    timeout
        Seconds in which all clients have to be connected.
    """

    grid: Grid
    exchanges: Exchanges
    reasons: Reasons
    facts: JointFacts
    ceremony: threshold.Ceremony
    config: ConfigRecord
    timeout: float
    poll: float = 0.25
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _nodes: dict[int, int] = field(default_factory=dict, init=False)  # by party
    _joined: dict[int, str] = field(default_factory=dict, init=False)
    _deals: dict[int, dict[int, bytes]] = field(default_factory=dict, init=False)
    _shares: dict[int, bytes] = field(default_factory=dict, init=False)

    def complete(self) -> str:
        """Make the joint key, or find the one that the clients have; its fingerprint.

        Raises
        ------
        FederatedError
            Naming the clients without which it cannot be made.
        """
        existing = self._gather()
        if existing is not None:
            return existing
        self._exchange("share", self._dealt)
        self._require_all(self._shares)
        expected = self._key_id()
        self._joined.clear()
        self._exchange("join", self._shared)
        self._require_all(self._joined)
        for party, key in self._joined.items():
            if key != expected:
                raise FederatedError(
                    f"{self._name(party)} has joined the key {key}; the shares give {expected}"
                )
        return expected

    def _gather(self) -> str | None:
        """Deals of all parties; or the key that all who are there have joined before."""
        deadline, asked = self.clock() + self.timeout, set[int]()
        parties = len(self.facts.parties)
        while True:
            new = sorted(set(self.grid.get_node_ids()) - asked)
            asked |= set(new)
            if new:
                self._ask(new, "deal", lambda _: {})
            keys = set(self._joined.values())
            if len(self._joined) == len(self._nodes) >= self.facts.threshold and len(keys) == 1:
                return keys.pop()
            if len(self._nodes) == parties:
                return None
            if len(asked) >= parties or self.clock() >= deadline:
                self._require_all(self._nodes)
            self.exchanges.observer.waiting(connected=len(asked), needed=parties)
            self.sleep(self.poll)

    def _dealt(self, party: int) -> dict[str, bytes]:
        """What the others have dealt to a party."""
        return {f"deal-{i}": deals[party] for i, deals in self._deals.items() if i != party}

    def _shared(self, party: int) -> dict[str, bytes]:
        """The others' public shares."""
        return {f"share-{i}": share for i, share in self._shares.items() if i != party}

    def _exchange(self, ask: Ask, blobs: Callable[[int], dict[str, bytes]]) -> None:
        parties = {node: party for party, node in self._nodes.items()}
        self._ask(sorted(parties), ask, lambda node: blobs(parties[node]))

    def _ask(self, nodes: Sequence[int], ask: Ask, blobs: Callable[[int], Any]) -> None:
        self.exchanges.run(
            nodes,
            lambda node: Step((ask,), self.config, blobs=blobs(node)),
            self._accept,
            round=self.exchanges.history.finished + 1,
            phase=PHASE,
        )

    def _accept(self, node: int, reply: Reply, message: Message, asks: Sequence[Ask]) -> None:
        party, blobs = self._party(node, reply), blobs_of(message)
        if "deal" in asks:
            others = [i for i in range(len(self.facts.parties)) if i != party]
            deals = {i: self._bounded(blobs, f"deal-{i}") for i in others}
            self._nodes[party], self._deals[party] = node, deals
        if "share" in asks:
            self._shares[party] = self._bounded(blobs, "share")
        if reply.joint is not None:
            self._joined[party] = reply.joint
        elif "join" in asks:
            raise MethodError("it does not say which joint key it has joined")

    def _party(self, node: int, reply: Reply) -> int:
        """The party that a reply is of.

        With signed replies its name is the member's own, and must be the party's.
        """
        party = reply.party
        if party is None or party >= len(self.facts.parties):
            raise MethodError(f"it is party {party}; allowed: 0 to {len(self.facts.parties) - 1}")
        if self.exchanges.gate is not None and reply.name != self._name(party):
            raise MethodError(f"{reply.name} is not party {party}, which is {self._name(party)}")
        if self._nodes.get(party, node) != node:
            raise MethodError(f"{self._name(party)} has answered already, from another node")
        return party

    def _bounded(self, blobs: dict[str, bytes], name: str) -> bytes:
        params = self.ceremony.params
        limit = params.poly_degree * _PRIME_BYTES * len(params.coeff_modulus) + _FRAME_BYTES
        data = blobs.get(name, b"")
        if not 0 < len(data) <= limit:
            raise MethodError(f"{name} of {len(data):,} bytes; allowed: 1 to {limit:,}")
        return data

    def _key_id(self) -> str:
        try:
            return self.ceremony.public_key(self._shares).key_id
        except qn.QuanCryptError as error:
            raise FederatedError(f"the joint key cannot be made: {error}") from None

    def _require_all(self, there: dict[int, Any]) -> None:
        missing = [self._name(i) for i in range(len(self.facts.parties)) if i not in there]
        if missing:
            why = [
                f"{self.exchanges.book.name(node)}: {reason}"
                for node, reason in sorted(self.reasons.of.items())
            ]
            raise FederatedError(
                f"the joint key needs all {len(self.facts.parties)} clients once; missing: "
                f"{', '.join(missing)}" + (f" ({'; '.join(why)})" if why else "")
            )

    def _name(self, party: int) -> str:
        return self.facts.names[party]
