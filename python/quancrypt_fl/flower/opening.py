"""Opening a round's sum with a joint key: some clients are asked for their parts of it.

They are chosen before they answer, and only the parts of all of them are worth something. If one
falls silent, the same updates are encrypted afresh and summed again, for a client answers once for
a sum; of the silent one what it uploaded before is added, so that all sums of a state hold the same
(:mod:`.same_sum`). The server cannot read parts: it sends them back along with the sum.

A server that dies meanwhile no longer knows what was in the sum, which parts may have opened. So it
notes on disk that it asks before it does, and the round ends without a sum when it starts again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from flwr.app import ConfigRecord, Message

from quancrypt_fl.errors import MethodError, NotOpenedError
from quancrypt_fl.flower.exchanges import Exchanges
from quancrypt_fl.flower.history import History
from quancrypt_fl.flower.ledger import Total
from quancrypt_fl.flower.protocol import Ask, Opening, Reply, blobs_of
from quancrypt_fl.flower.requests import Step
from quancrypt_fl.joint.opened import OpenedSum

__all__ = ["ATTEMPTS", "Collect", "JointKey", "Opener", "was_opening"]

ATTEMPTS = 3
"""Sums of the same updates that are formed at most in a round."""

PHASE = "open"
NOTE = "opening"
"""Name of the note, in a training's history, that says in which state parts were last asked for."""
_OVERHEAD = 1 << 14  # bytes of a part's header and seal

Collect = Callable[[list[int], int], tuple[Total, list[int]]]
"""From nodes that encrypt, and the attempt from 0, to a sum and the nodes that are in it."""


def was_opening(history: History) -> bool:
    """Whether a server asked for parts in the state that the history has, and did not finish."""
    noted = history.read(NOTE)
    return noted is not None and noted["chain"] == history.chain


@dataclass(frozen=True)
class JointKey:
    """A joint key.

    Attributes
    ----------
    key_id
        Its fingerprint.
    threshold
        Clients that open a sum together.
    connected
        Nodes that are there now; none if nobody can tell.
    """

    key_id: str
    threshold: int
    connected: Callable[[], Collection[int]]


@dataclass
class Opener:
    """Opens the sums of one round.

    Parameters
    ----------
    exchanges
        Ways to the clients.
    key
        The joint key.
    config
        The user's ConfigRecord.

    Attributes
    ----------
    notes
        How sums were opened: names of those who did, attempts, names of those who fell silent; by
        what they are sums of.
    seconds
        That clients spent on it.
    sent, received
        Bytes of sums and of parts, all clients together.
    """

    exchanges: Exchanges
    key: JointKey
    config: ConfigRecord
    notes: dict[str, dict[str, Any]] = field(default_factory=dict, init=False)
    seconds: float = field(default=0.0, init=False)
    sent: int = field(default=0, init=False)
    received: int = field(default=0, init=False)
    _asked: int = field(default=0, init=False)

    def opened(self, collect: Collect, nodes: list[int], what: str) -> tuple[Total, list[int]]:
        """A sum with what opens it, and the nodes that are in it.

        Raises
        ------
        NotOpenedError
            If too few clients that could open it are left, or fell silent in every attempt.
        """
        silent: set[int] = set()
        note = self.notes[what] = {"participants": [], "attempts": 0, "lost": []}
        for attempt in range(ATTEMPTS):
            total, inside = collect(nodes, attempt)
            chosen = self._chosen(inside, silent)
            note["attempts"] = attempt + 1
            parts = self._parts(chosen, total)
            if len(parts) == len(chosen):
                note["participants"] = [
                    self.exchanges.book.name(n) for _, n in sorted(chosen.items())
                ]
                return Total(OpenedSum(total.data, parts).to_bytes(), total.weight), inside
            lost = {node for party, node in chosen.items() if party not in parts}
            silent |= lost
            note["lost"] = self._names(silent)
            self._require_enough([*inside, *self.key.connected()], silent)
            nodes = [node for node in inside if node not in silent]
            self.exchanges.observer.note(
                f"the sum of {what} is not opened: no part of it came from "
                f"{', '.join(self._names(lost))}"
            )
        raise NotOpenedError(
            f"the sum of {what} was not opened in {ATTEMPTS} attempts; no part of it came from "
            f"{', '.join(self._names(silent))}"
        )

    def _chosen(self, inside: Sequence[int], silent: set[int]) -> dict[int, int]:
        """Nodes by party, in each round others: those that are in the sum, then others; nodes that
        have left meanwhile come last.
        """
        book, history = self.exchanges.book, self.exchanges.history
        connected = set(self.key.connected()) or set(inside)
        present = [node for node in inside if node in connected]
        start = (history.finished + self._asked) % max(1, len(present))
        others = (*sorted(connected - set(inside)), *(n for n in inside if n not in connected))
        chosen: dict[int, int] = {}
        for node in (*present[start:], *present[:start], *others):
            party = book[node].party
            if party is not None and node not in silent and len(chosen) < self.key.threshold:
                chosen.setdefault(party, node)
        self._require_enough(list(chosen.values()), silent)
        return chosen

    def _require_enough(self, nodes: Sequence[int], silent: set[int]) -> None:
        """Nobody uploads again for a sum that too few could open."""
        book = self.exchanges.book
        able = {book[node].party for node in set(nodes) - silent} - {None}
        if len(able) < self.key.threshold:
            raise NotOpenedError(
                f"{len(able)} clients are left that can open a sum; needed: {self.key.threshold}"
                + (f". No part came from {', '.join(self._names(silent))}" if silent else "")
            )

    def _parts(self, chosen: dict[int, int], total: Total) -> dict[int, bytes]:
        parties = {node: party for party, node in chosen.items()}
        parts: dict[int, bytes] = {}
        opening = Opening(participants=tuple(sorted(chosen)))
        limit = len(total.data) + _OVERHEAD
        if not self._asked:
            self.exchanges.history.note(NOTE, {"chain": self.exchanges.history.chain})

        def accept(node: int, reply: Reply, message: Message, asks: Sequence[Ask]) -> None:
            del asks
            part = blobs_of(message).get("part", b"")
            if reply.party != parties[node]:
                raise MethodError(f"it is party {reply.party}, and was party {parties[node]}")
            if not 0 < len(part) <= limit:
                raise MethodError(f"a part of {len(part):,} bytes; allowed: 1 to {limit:,}")
            parts[parties[node]] = part
            self.received += len(part)
            self.seconds += reply.seconds.get("open", 0.0)

        self.exchanges.run(
            sorted(parties),
            lambda _: Step(("open",), self.config, opening=opening, blobs={"total": total.data}),
            accept,
            round=self.exchanges.history.finished + 1,
            phase=PHASE,
            again=("open",) if self._asked else (),
        )
        self._asked += 1
        self.sent += len(total.data) * len(chosen)
        return parts

    def _names(self, nodes: set[int]) -> list[str]:
        return [self.exchanges.book.name(node) for node in sorted(nodes)]
