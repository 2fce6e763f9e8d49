"""A region: an aggregator between the server and some of the clients, which adds up their uploads.

The server (the *root*) asks a region as it would ask a client. The region passes the request on to
its own clients, in whose eyes it is the server, adds what they send, and answers with the sum: sums
of ciphertexts add. It has no key and keeps no model. What a client needs to catch up comes from the
root, once for the whole region.

A root trusts its regions as clients trust the root: to add what was sent, once, and nothing else.
Clients count the same in regions (``weighting="uniform"``): shares by sample counts, and what error
feedback carries over, would need a ledger of all clients at the root.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords

import quancrypt_native as qn
from quancrypt_fl.errors import FederatedError, MethodError
from quancrypt_fl.flower.collector import Collector
from quancrypt_fl.flower.ledger import Ledger, check_identity
from quancrypt_fl.flower.nodes import NodeBook
from quancrypt_fl.flower.observing import RunObserver, RunObservers
from quancrypt_fl.flower.protocol import (
    RECORD,
    Ask,
    Phase,
    ProtocolError,
    Reply,
    Request,
    blobs_of,
    read_reply,
    read_request,
    write,
)
from quancrypt_fl.flower.region_mailbox import Mailbox
from quancrypt_fl.flower.run_log import RunLog
from quancrypt_fl.flower.server_round import averaged, metrics_of
from quancrypt_fl.flower.snapshot_prefix import says_of_itself
from quancrypt_fl.method.weighting import Share

__all__ = ["Region"]

_MOST_AWAY = 60.0  # seconds that a region waits for clients which have not connected


class Region:
    """Answers the root's requests with sums of its clients' uploads.

    Parameters
    ----------
    grid
        Flower's way to the region's clients.
    key_id
        Fingerprint of the clients' key, a public value (``SecretKey.key_id``): an upload under
        another key is refused.
    name
        What the root's logs call the region.
    timeout
        Seconds for each exchange with the clients; must be less than the root's.
    min_clients
        Clients to wait for before the first request is passed on.
    observer
        Told of what clients do, beside Flower's log.
    poll, clock, sleep
        See :class:`~quancrypt_fl.flower.collector.Collector`.
    """

    def __init__(
        self,
        grid: Grid,
        *,
        key_id: str,
        name: str = "region",
        timeout: float = 1800.0,
        min_clients: int = 1,
        observer: RunObserver | None = None,
        poll: float = 0.25,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.grid = grid
        self.key_id = key_id
        self.name = name
        self.timeout = timeout
        self.min_clients = min_clients
        self.observer = RunObservers(RunLog(), *([observer] if observer else []))
        self.book = NodeBook(key_id)
        self.collector = Collector(
            grid, self.observer, self.book.name, poll=poll, clock=clock, sleep=sleep
        )
        self._poll = poll
        self._clock = clock
        self._sleep = sleep
        self._nodes: list[int] = []
        self._round: tuple[str, int, str] | None = None
        self._step: tuple[object, ...] | None = None
        self._work: _Work | None = None
        self._finished = False

    def serve(self, mailbox: Mailbox, *, linger: float = 60.0) -> None:
        """Answer what comes into the mailbox, until the training is over.

        Parameters
        ----------
        linger
            Seconds to stay after the last request of a finished training.
        """
        last = self._clock()
        while not self._finished or self._clock() - last < linger:
            if self.step(mailbox):
                last = self._clock()
            else:
                self._sleep(self._poll)

    def step(self, mailbox: Mailbox) -> bool:
        """Answer one request of the mailbox; whether there was one."""
        found = mailbox.next_request()
        if found is None:
            return False
        letter, message = found
        try:
            mailbox.answer(letter, self.answer(message))
        except (FederatedError, qn.QuanCryptError) as error:
            mailbox.refuse(letter, str(error))
        return True

    def answer(self, message: Message) -> RecordDict:
        """The content of the reply to one of the root's requests.

        Raises
        ------
        ProtocolError
            If the root does not know this node as a region.
        MethodError
            If no client has done what was asked for.
        """
        request = read_request(message)
        if request.region is None:
            raise ProtocolError(
                "the server takes this node for a client: name it in the strategy, "
                "regions={node id: most clients}"
            )
        asks = tuple(ask for ask in request.asks if ask != "snapshot")
        seals = request.asks == ("snapshot",)
        step = (request.training, request.round, request.chain, asks, seals)
        if self._work is None or self._step != step:
            self._work = _Work(self, asks, self._asked(request, asks))
            self._step = step
        content = self._work.answer(message, request)
        if {"train", "report"} & set(asks):
            self._nodes = sorted(self._work.done)  # who goes on in this round
        self._finished = "finish" in asks or seals
        return content

    def _asked(self, request: Request, asks: tuple[Ask, ...]) -> list[int]:
        """Clients for a step: of a round those who have begun it; all to evaluate and to finish."""
        if not {"train", "report", "upload"} & set(asks):
            return self._all()
        begun = (request.training, request.round, request.chain)
        if "train" in asks or self._round != begun or not self._nodes:
            self._round, self._nodes = begun, self._choose(request)
        return self._nodes

    def _choose(self, request: Request) -> list[int]:
        """The clients of a round: all, or as many as the root allows, at random."""
        assert request.region is not None
        nodes, most = self._all(), request.region.most
        return nodes if len(nodes) <= most else sorted(random.sample(nodes, most))

    def _all(self) -> list[int]:
        until = self._clock() + min(self.timeout, _MOST_AWAY)
        while len(nodes := sorted(self.grid.get_node_ids())) < self.min_clients:
            if self._clock() >= until:
                raise MethodError(
                    f"{len(nodes)} clients are connected to the region {self.name}; needed: "
                    f"{self.min_clients}"
                )
            self._sleep(self._poll)
        return nodes


@dataclass
class _Work:
    """One step of a round: what its clients were asked for, and what has come of it so far.

    It stays until the root asks for another one, so that a request which comes again (with what a
    client needs to catch up, or because the root's message was lost) goes to those alone who have
    not done their part.
    """

    around: Region
    asks: tuple[Ask, ...]
    nodes: Sequence[int]
    done: dict[int, Reply] = field(default_factory=dict)
    metrics: dict[int, MetricRecord] = field(default_factory=dict)
    behind: dict[int, Reply] = field(default_factory=dict)
    ledger: Ledger | None = None
    total: bytes = b""
    sealed: bytes = b""
    caught_up: bool = False

    def answer(self, message: Message, request: Request) -> RecordDict:
        self.behind.clear()
        if self.ledger is None:
            self.ledger = self._ledger(message, request)
        asked = [node for node in self.nodes if node not in self.done]
        if self.total:
            asked = []  # the sum is closed
        if self.asks or "snapshot" not in request.asks:
            self._exchange(message, request, asked)
            if self.behind and not self.caught_up:
                self.caught_up = True
                return write(self._of_those_behind(request), {}, RecordDict())
            if not self.done:
                raise MethodError(f"none of {len(self.nodes)} clients of the region answered")
        if "snapshot" in request.asks and not self.sealed:
            self._have_sealed(message, request)
        return self._result(message, request)

    def _ledger(self, message: Message, request: Request) -> Ledger | None:
        assert request.region is not None
        if not {"report", "upload"} & set(self.asks):
            return None
        params = qn.Parameters.from_bytes(blobs_of(message)["params"])
        shapes = {name: tuple(shape) for name, shape in request.region.shapes.items()}
        method = request.agreement.method(shapes)
        layout = (
            method.upload_layout(shapes, request.round)
            if "upload" in self.asks
            else method.at(request.round).report_layout()
        )
        shares = dict.fromkeys(self.nodes, Share(1))
        return Ledger(params, self.around.key_id, layout, shares)

    def _exchange(self, message: Message, request: Request, asked: Sequence[int]) -> None:
        if not asked:
            return
        phase = "+".join(self.asks) or "evaluate"
        around, number = self.around, request.round + 1
        around.observer.phase_started(round=number, phase=phase, asked=asked)

        def handle(node: int, answer: Message) -> None:
            reply = self._identified(answer, message, request)
            around.book.note(node, reply)
            if reply.behind:
                self.behind[node] = reply
                return
            if set(reply.did) != set(self.asks) or node in self.done:
                raise MethodError(f"it did {list(reply.did)}; asked for: {list(self.asks)}")
            nbytes = self._take(node, reply, answer, request)
            around.observer.answered(
                round=number,
                phase=phase,
                node=node,
                name=around.book.name(node),
                seconds={str(name): value for name, value in reply.seconds.items()},
                nbytes=nbytes,
            )

        around.collector.exchange(
            [_passed_on(message, request, node, self.asks) for node in asked],
            handle,
            round=number,
            phase=phase,
            timeout=around.timeout,
        )

    def _take(self, node: int, reply: Reply, answer: Message, request: Request) -> int:
        data = b""
        metrics = None
        if "train" in self.asks or not self.asks:
            metrics = metrics_of(answer, request.count_key)
        if self.ledger is not None:
            data = blobs_of(answer).get("upload" if "upload" in self.asks else "report", b"")
            self.ledger.add(node, data)
        if metrics is not None:
            self.metrics[node] = metrics
        self.done[node] = reply
        return len(data)

    def _have_sealed(self, message: Message, request: Request) -> None:
        """A snapshot from the first client that makes one."""
        state = (request.training, request.round, request.chain)

        def handle(node: int, answer: Message) -> None:
            del node
            self._identified(answer, message, request)
            data = blobs_of(answer).get("snapshot", b"")
            if says_of_itself(data) != state:
                raise MethodError("its snapshot is of another model")
            self.sealed = data

        for node in sorted(self.done) or list(self.nodes):
            self.around.collector.exchange(
                [_passed_on(message, request, node, ("snapshot",))],
                handle,
                round=request.round + 1,
                phase="snapshot",
                timeout=self.around.timeout,
            )
            if self.sealed:
                return
        raise MethodError("no client of the region sealed its model")

    def _identified(self, answer: Message, message: Message, request: Request) -> Reply:
        reply = read_reply(answer)
        check_identity(
            reply,
            training=request.training,
            round=request.round,
            chain=request.chain,
            params=self._fingerprint(message),
        )
        if reply.key != self.around.key_id:
            raise MethodError(f"its key is {reply.key}; that of the others {self.around.key_id}")
        return reply

    def _fingerprint(self, message: Message) -> str:
        return qn.Parameters.from_bytes(blobs_of(message)["params"]).fingerprint

    def _of_those_behind(self, request: Request) -> Reply:
        """What the client that is behind most says of itself: what helps it helps them all."""
        replies = list(self.behind.values())
        least = min(replies, key=lambda reply: reply.held[0] if reply.held else -1)
        damaged = next((reply.damaged for reply in replies if reply.damaged is not None), None)
        return least.model_copy(
            update={"name": self.around.name, "damaged": damaged, "parts": 1, "samples": 0}
        )

    def _result(self, message: Message, request: Request) -> RecordDict:
        blobs: dict[str, bytes] = {}
        if self.ledger is not None:
            self.total = self.total or self.ledger.close().data
            blobs["upload" if "upload" in self.asks else "report"] = self.total
        if "snapshot" in request.asks:
            blobs["snapshot"] = self.sealed
        content = RecordDict()
        samples = sum(reply.samples for reply in self.done.values())
        if self.metrics:
            count = sum(float(str(each[request.count_key])) for each in self.metrics.values())
            mean = averaged(self.metrics, aggregate_metricrecords, request.count_key)
            content["metrics"] = MetricRecord({**(mean or {}), request.count_key: count})
        reply = Reply(
            training=request.training,
            round=request.round,
            chain=request.chain,
            did=request.asks,
            key=self.around.key_id,
            params=self._fingerprint(message),
            name=self.around.name[:64],
            held=(request.round, request.chain),
            samples=samples,
            loss=self._loss(),
            seconds=self._seconds(),
            parts=max(1, len(self.done)),
        )
        return write(reply, blobs, content)

    def _loss(self) -> float | None:
        losses = [(r.loss, r.samples) for r in self.done.values() if r.loss is not None]
        samples = sum(count for _, count in losses)
        return sum(loss * count for loss, count in losses) / samples if samples else None

    def _seconds(self) -> dict[Phase, float]:
        """Of all clients together; of opening a sum, which each does for itself, the mean."""
        total: dict[Phase, float] = {}
        for reply in self.done.values():
            for phase, seconds in reply.seconds.items():
                total[phase] = total.get(phase, 0.0) + seconds
        if "unprotect" in total:
            total["unprotect"] /= len(self.done)
        return total


def _passed_on(message: Message, request: Request, node: int, asks: Sequence[Ask]) -> Message:
    """The root's request as one to a client; its bytes are shared, not copied."""
    header = request.model_copy(update={"region": None, "asks": tuple(asks)})
    records = {**message.content, RECORD: ConfigRecord({"header": header.model_dump_json()})}
    about = message.metadata
    kind = about.message_type.split(".")[0]
    return Message(RecordDict(records), node, kind, group_id=about.group_id)
