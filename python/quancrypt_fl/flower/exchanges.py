"""One request to each of some nodes: who is behind catches up, and only what fits is accepted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flwr.app import Message

from quancrypt_fl.envelopes import EnvelopeError
from quancrypt_fl.errors import MethodError
from quancrypt_fl.flower.collector import Collector
from quancrypt_fl.flower.history import History, HistoryError
from quancrypt_fl.flower.ledger import check_identity
from quancrypt_fl.flower.nodes import NodeBook
from quancrypt_fl.flower.observing import RunObserver
from quancrypt_fl.flower.protocol import Ask, Reply, blobs_of, read_reply
from quancrypt_fl.flower.reply_gate import ReplyGate
from quancrypt_fl.flower.requests import Step, Writer

__all__ = ["Exchanges"]

_CATCH_UPS = 2  # messages to a node that has to catch up, per exchange

Accept = Callable[[int, Reply, Message, Sequence[Ask]], None]
"""Takes an accepted reply: node, header, message, and what it was asked for."""


@dataclass
class Exchanges:
    """What all exchanges of a training have in common.

    Attributes
    ----------
    params
        Fingerprint of the encryption parameters.
    timeout
        Seconds for each exchange.
    gate
        Checks that replies are signed by members; None: replies are bound, and not signed.
    """

    history: History
    book: NodeBook
    writer: Writer
    collector: Collector
    observer: RunObserver
    params: str
    timeout: float
    gate: ReplyGate | None = None

    def run(
        self,
        nodes: Sequence[int],
        step: Callable[[int], Step],
        accept: Accept,
        *,
        round: int,
        phase: str,
        again: Sequence[Ask] = (),
    ) -> set[int]:
        """Ask each node for its step; the nodes whose replies were accepted.

        Parameters
        ----------
        round
            Number of the round from 1, for people.
        again
            Steps of which a member may send another signed reply in this round.
        """
        if self.gate is not None and again:
            self.gate.again(again)
        if self.gate is not None and (news := self.gate.refresh()):
            self.observer.note(news)
        did: set[int] = set()
        catch_ups = dict.fromkeys(nodes, 0)

        def handle(node: int, message: Message) -> Message | None:
            try:
                reply = self._identified(node, message)
            except EnvelopeError as error:
                self.observer.envelope_refused(
                    round=round, phase=phase, node=node, reason=error.reason, member=error.member
                )
                raise
            self.book.note(node, reply)
            if reply.behind:
                catch_ups[node] += 1
                if catch_ups[node] > _CATCH_UPS:
                    raise MethodError("it could not reach the model that the others hold")
                return self._catch_up(node, reply, step(node))
            asks = step(node).asks
            if set(reply.did) != set(asks):
                raise MethodError(f"it did {list(reply.did)}; asked for: {list(asks)}")
            if node in did:
                raise MethodError("repeated: it has answered already")
            accept(node, reply, message, asks)
            did.add(node)
            if node in self.writer.snapshot_sent:
                self.history.snapshot_used(self.writer.snapshot_sent.pop(node))
            self.observer.answered(
                round=round,
                phase=phase,
                node=node,
                name=self.book.name(node),
                seconds={str(name): value for name, value in reply.seconds.items()},
                nbytes=sum(len(data) for data in blobs_of(message).values()),
            )
            return None

        self.observer.phase_started(round=round, phase=phase, asked=nodes)
        messages = []
        for node in nodes:
            try:
                messages.append(self._message(node, step(node)))
            except HistoryError as error:  # this node's way is lost, not the others'
                self.observer.refused(
                    round=round,
                    phase=phase,
                    node=node,
                    name=self.book.name(node),
                    reason=str(error),
                )
        self.collector.exchange(messages, handle, round=round, phase=phase, timeout=self.timeout)
        return did

    def _message(self, node: int, step: Step) -> Message:
        """A node that has said nothing yet is taken for one that has followed so far."""
        known, finished = self.book[node], self.history.finished
        if known.held is not None:
            since = self._since(known.held)
        else:
            since = finished - 1 if finished else None
        return self.writer.message(node, known, step, since=since)

    def _since(self, held: tuple[int, str] | None) -> int | None:
        """Rounds finished of a state, if it is one of this training's."""
        return held[0] if held and self.history.chain_at(held[0]) == held[1] else None

    def _catch_up(self, node: int, reply: Reply, step: Step) -> Message:
        if reply.damaged is not None and reply.damaged == self.writer.snapshot_sent.get(node):
            self.history.drop_snapshot(reply.damaged)
        since = self._since(reply.held)
        self.observer.note(
            f"{self.book.name(node)} catches up, "
            f"{'from nothing' if since is None else f'from round {since}'}"
        )
        return self.writer.message(node, self.book[node], step, since=since)

    def _identified(self, node: int, message: Message) -> Reply:
        opened = None
        if self.gate is not None:  # before anything of it is parsed
            opened = self.gate.admit(node, message, round=self.history.finished)
        reply = read_reply(message)
        if self.gate is not None and opened is not None:
            reply = self.gate.identified(opened, reply)
        check_identity(
            reply,
            training=self.history.training,
            round=self.history.finished,
            chain=self.history.chain,
            params=self.params,
        )
        if self.book.key_id is not None and reply.key != self.book.key_id:
            raise MethodError(
                f"its key is {reply.key}; that of the others is {self.book.key_id}. If a new key "
                "was made, install it there: quancrypt rotate KIT --install FOLDER"
            )
        return reply
