"""Flower's Grid without Flower's processes: messages to real ClientApp objects, in memory.

What differs from a deployed run is the transport alone. Every message is deflated and inflated by
Flower's own code, so what arrives is a copy; an app gets a copy of its Context and the copy comes
back only with a reply; error replies are those that SuperNode and SuperLink make, in the same
circumstances: an app that raises, a node that left, an ID that is unknown or was already pulled.
Those of the SuperLink name the SuperLink, not the client, as their source.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from flwr.app import Context, Error, Message, Metadata, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.common.serde import context_from_proto, context_to_proto
from flwr.proto.node_pb2 import NodeInfo
from flwr.server.superlink.linkstate.utils import (
    create_message_error_unavailable_ins_message,
    create_message_error_unavailable_res_message,
)
from flwr.server.utils.validator import validate_message
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from tests.fl.flower.fake_clock import FakeClock
from tests.fl.flower.faults import Fault, Killed, ScriptError, Unheard
from tests.fl.flower.wire import (
    Traffic,
    deflate,
    describe,
    inflate,
    objects_unavailable,
    refusal,
)

App = ClientApp | Callable[[], ClientApp]
PULL_INTERVAL = 3.0  # seconds, as HttpGrid


def contexts_for(
    nodes: Iterable[int],
    *,
    run_id: int = 7,
    node_config: Callable[[int, int], Mapping[str, Any]] | None = None,
    run_config: Mapping[str, Any] | None = None,
) -> dict[int, Context]:
    """Make a fresh Context for each node, with the node configuration of Flower's simulation.

    ``node_config(index, node)`` adds to "partition-id" and "num-partitions".
    """
    nodes = list(nodes)
    return {
        node: Context(
            run_id=run_id,
            node_id=node,
            node_config={
                "partition-id": index,
                "num-partitions": len(nodes),
                **(node_config(index, node) if node_config else {}),
            },
            state=RecordDict(),
            run_config=dict(run_config or {}),
        )
        for index, node in enumerate(nodes)
    }


@dataclass
class Exchange:
    """A message that was pushed, and what comes of it."""

    message_id: str
    contents: dict[str, bytes]
    metadata: Metadata
    node: int
    round: int | None
    asks: tuple[str, ...]
    nth: int  # of this node's messages, from 1
    due: float  # by the grid's clock
    pulls_left: int = 0  # pulls that still find nothing
    again: bool = False  # delivered once more in the next pull
    replies: list[tuple[str, dict[str, bytes]]] | None = None  # None: not computed yet

    def request(self) -> Message:
        """Inflate the message anew."""
        return inflate(self.message_id, self.contents)


@dataclass
class Injection:
    """A fault and the messages it meets; ``fired`` counts them."""

    fault: Fault
    node: int | None = None
    round: int | None = None
    nth: int | None = None
    asks: str | None = None
    message_type: str | None = None
    times: int | None = None
    fired: int = 0
    without: str | None = None

    def matches(self, exchange: Exchange) -> bool:
        return (
            (self.times is None or self.fired < self.times)
            and (self.node is None or self.node == exchange.node)
            and (self.round is None or self.round == exchange.round)
            and (self.nth is None or self.nth == exchange.nth)
            and (self.asks is None or self.asks in exchange.asks)
            and (self.without is None or self.without not in exchange.asks)
            and self.message_type in (None, exchange.metadata.message_type)
        )


@dataclass
class Node:
    """A client: its app and the context that Flower keeps for it."""

    app: App
    context: Context


class LocalGrid(Grid):
    """An in-memory Grid over ClientApps.

    Parameters
    ----------
    apps : mapping of node ID to ClientApp or to a function that makes one, or function of a node ID
        A function is called for each message, as Flower starts a process for each.
    contexts : mapping of node ID to Context, or sequence of node IDs
        The nodes that are there from the beginning; IDs alone get fresh contexts.
    compute : {"push", "pull"}
        When the clients work: as soon as a message is pushed, or when its reply is asked for.
    order : sequence of int, random.Random or None
        Order of the replies in a pull: nodes named first come first, at random, or as asked for.
    per_pull : int or None
        Most replies that one pull delivers.
    clock : callable, optional
        Needed where replies take time (``seconds``, ``Hang(seconds=...)``); a FakeClock as a rule.
    seconds : float or mapping of node ID to float
        How long after its push a reply can be pulled.
    """

    def __init__(
        self,
        apps: Mapping[int, App] | Callable[[int], ClientApp],
        contexts: Mapping[int, Context] | Sequence[int],
        *,
        compute: Literal["push", "pull"] = "push",
        order: Sequence[int] | random.Random | None = None,
        per_pull: int | None = None,
        clock: Callable[[], float] | None = None,
        seconds: float | Mapping[int, float] = 0.0,
    ) -> None:
        if not isinstance(contexts, Mapping):
            contexts = contexts_for(contexts)
        self._apps = apps
        self._nodes: dict[int, Node] = {}
        self._left: dict[int, Context] = {}
        self._sent: dict[int, int] = defaultdict(int)
        self._open: dict[str, Exchange] = {}
        self._strays: list[tuple[str, dict[str, bytes]]] = []
        self._injections: list[Injection] = []
        self._trips: list[tuple[str, int, BaseException]] = []
        self._calls: dict[str, int] = defaultdict(int)
        self._contents: dict[tuple[int, int | None, tuple[str, ...]], dict[str, bytes]] = {}
        self._roots: dict[tuple[int, int | None, tuple[str, ...]], str] = {}
        self.compute = compute
        self.order = order
        self.per_pull = per_pull
        self.clock = clock
        self.seconds = seconds
        self.traffic: list[Traffic] = []
        self.exchanges: list[Exchange] = []  # all that were pushed, in order
        run_ids = {context.run_id for context in contexts.values()} or {7}
        if len(run_ids) > 1:
            raise ValueError(f"contexts of several runs: {sorted(run_ids)}")
        self._run = Run.create_empty(run_ids.pop())
        self._identify(SUPERLINK_NODE_ID)
        for node, context in contexts.items():
            self.join(node, context)

    # Who is there.

    def join(self, node: int, context: Context | None = None, app: App | None = None) -> None:
        """Connect a node, a new one or one that left.

        Without a context it gets that with which it left, or that of a federation of one node.
        """
        if node == SUPERLINK_NODE_ID or node <= 0:
            raise ValueError(f"node ID {node}: must be positive and not {SUPERLINK_NODE_ID}")
        if node in self._nodes:
            raise ValueError(f"node {node} is connected")
        if app is None:
            make = self._apps
            app = make[node] if isinstance(make, Mapping) else lambda: make(node)
        if context is None:
            context = self._left.pop(node, None) or contexts_for([node], run_id=self.run_id)[node]
        self._nodes[node] = Node(app, context)

    def leave(self, node: int) -> Context:
        """Disconnect a node. What it was asked is answered by the SuperLink: node unavailable."""
        context = self._nodes.pop(node).context
        self._left[node] = context
        return context

    def context(self, node: int) -> Context:
        """The context that Flower holds for this node between messages."""
        return self._nodes[node].context

    def get_node_ids(self) -> Iterable[int]:
        self._call("get_node_ids")
        return list(self._nodes)

    def get_nodes(self) -> Iterable[NodeInfo]:
        return [NodeInfo(node_id=node) for node in self.get_node_ids()]

    # Runs.

    def set_run(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        return Run(**vars(self._run))

    @property
    def run_id(self) -> int:
        return self._run.run_id

    def new_run(self, *, keep_contexts: bool = False) -> None:
        """Start another Flower run: a server that was started again.

        Messages of the old run are gone, and so are the contexts, which belong to a run, unless
        the runs are of one series (``keep_contexts``).
        """
        self._run = Run.create_empty(self.run_id + 1)
        self._open.clear()
        self._strays.clear()
        self._identify(SUPERLINK_NODE_ID)
        for contexts in (self._left, {n: node.context for n, node in self._nodes.items()}):
            for context in contexts.values():
                context.run_id = self.run_id
                if not keep_contexts:
                    context.state = RecordDict()

    def _identify(self, node: int) -> None:
        """Say who makes messages from here on; Flower keeps it in the process."""
        TaskIdentity.run_id = self.run_id
        TaskIdentity.node_id = node
        TaskIdentity.task_id = node

    # Faults.

    def inject(
        self,
        fault: Fault,
        *,
        node: int | None = None,
        round: int | None = None,
        nth: int | None = None,
        asks: str | None = None,
        message_type: str | None = None,
        times: int | None = None,
        without: str | None = None,
    ) -> Injection:
        """Let a fault meet every message that fits all that is given, at most ``times`` times.

        ``round`` and ``asks`` (a step) are as the message says (see `describe`), which does not ask
        for the step ``without``; ``nth`` counts the messages to a node from 1.
        """
        injection = Injection(fault, node, round, nth, asks, message_type, times, without=without)
        self._injections.append(injection)
        return injection

    def unfired(self) -> list[Injection]:
        """Faults that met no message: a test that expects them to has a mistake."""
        return [injection for injection in self._injections if not injection.fired]

    def break_connection(self, call: str, error: BaseException, *, nth: int = 1) -> None:
        """Let the ``nth`` next ``push_messages``, ``pull_messages`` or ``get_node_ids`` raise."""
        self._trips.append((call, self._calls[call] + nth, error))

    def _call(self, name: str) -> None:
        self._calls[name] += 1
        for trip in self._trips:
            if trip[:2] == (name, self._calls[name]):
                raise trip[2]

    # Messages.

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages; None stands for one that the SuperLink would not take."""
        self._call("push_messages")
        ids: list[str | None] = []
        pushed: list[Exchange] = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = message.object_id
            node = message.metadata.dst_node_id
            if validate_message(message, is_reply_message=False) or node not in self._nodes:
                ids.append(None)
                continue
            if message.metadata.run_id != self.run_id:
                raise ValueError(f"message of run {message.metadata.run_id}, not {self.run_id}")
            exchange = self._exchange(message, node)
            ids.append(exchange.message_id)
            pushed.append(exchange)
        if self.compute == "push":
            for exchange in pushed:
                self._answer(exchange)
        return ids  # type: ignore[return-value]

    def _exchange(self, message: Message, node: int) -> Exchange:
        self._sent[node] += 1
        number, asks = describe(message.content)
        late = (
            self.seconds if isinstance(self.seconds, int | float) else self.seconds.get(node, 0.0)
        )
        contents = deflate(message)
        exchange = Exchange(
            message_id=message.metadata.message_id,
            contents=contents,
            metadata=message.metadata,
            node=node,
            round=number,
            asks=asks,
            nth=self._sent[node],
            due=(self.clock() if self.clock else 0.0) + late,
        )
        self._open[exchange.message_id] = exchange
        self.exchanges.append(exchange)
        self._count(exchange, "down", contents)
        return exchange

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Deliver replies that are there; as with a SuperLink, each once and only if asked for.

        An error while a reply is inflated (a hostile client's doing) loses all of this pull's.
        """
        self._call("pull_messages")
        pulled: list[Message] = []
        ready: list[Exchange] = []
        for message_id in dict.fromkeys(message_ids):
            exchange = self._open.get(message_id)
            if exchange is None:
                pulled.append(create_message_error_unavailable_ins_message(message_id, self.run_id))
            elif exchange.node not in self._nodes:
                del self._open[message_id]
                pulled.append(
                    create_message_error_unavailable_res_message(exchange.metadata, "node_unavail")
                )
            elif self._is_there(exchange):
                ready.append(exchange)
        claimed, self._strays = self._strays, []
        for exchange in self._ordered(ready)[: self.per_pull]:
            del self._open[exchange.message_id]
            claimed.extend(exchange.replies or [])
            if exchange.again:
                self._strays.extend(exchange.replies or [])
        for root, contents in claimed:
            pulled.append(self._received(root, contents))
        return pulled

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """As Flower's grids; without a clock, a reply that is not there never comes."""
        waiting = set(self.push_messages(messages))
        end = None if timeout is None or self.clock is None else self.clock() + timeout
        replies: list[Message] = []
        while end is None or self.clock() < end:  # type: ignore[misc]
            new = list(self.pull_messages(i for i in waiting if i is not None))
            replies.extend(new)
            waiting -= {reply.metadata.reply_to_message_id for reply in new}
            if not waiting:
                break
            if isinstance(self.clock, FakeClock):
                self.clock.sleep(PULL_INTERVAL)
            elif not new and not any(self._open[i].pulls_left for i in waiting if i in self._open):
                if timeout is None:
                    raise TimeoutError(f"{len(waiting)} replies never come, and no time-out is set")
                break
        return replies

    def _is_there(self, exchange: Exchange) -> bool:
        if exchange.replies is None:
            self._answer(exchange)
        if exchange.node not in self._nodes or not exchange.replies:
            return False
        if exchange.pulls_left:
            exchange.pulls_left -= 1
            return False
        return self.clock is None or self.clock() >= exchange.due

    def _ordered(self, ready: list[Exchange]) -> list[Exchange]:
        if isinstance(self.order, random.Random):
            return self.order.sample(ready, len(ready))
        if self.order is None:
            return ready
        rank = {node: place for place, node in enumerate(self.order)}
        return sorted(ready, key=lambda exchange: rank.get(exchange.node, len(rank)))

    # The client's side.

    def _answer(self, exchange: Exchange) -> None:
        faults = []
        for injection in self._injections:
            if injection.matches(exchange):
                injection.fired += 1
                faults.append(injection.fault)
        exchange.replies = []
        replies: list[Message] = []
        try:
            for _ in range(max([fault.runs for fault in faults], default=1)):
                replies.append(self._work(exchange, faults))
        except Unheard:
            return
        except Killed as killed:
            self._bury(exchange.node, killed)
            return
        self._remember(exchange, replies[0])
        for fault in faults:
            replies = fault.edit(replies, exchange, self)
            fault.schedule(exchange)
        for reply in replies:
            reply.metadata.__dict__["_message_id"] = reply.object_id
            root, contents = reply.metadata.message_id, deflate(reply)
            for fault in faults:
                contents, root = fault.objects(contents, root)
            exchange.replies.append((root, contents))
            self._count(exchange, "up", contents)

    def _work(self, exchange: Exchange, faults: Sequence[Fault]) -> Message:
        """Run the app as the process of a ClientApp does; an exception is an error reply."""
        node = self._nodes[exchange.node]
        message = exchange.request()
        context = context_from_proto(context_to_proto(node.context))
        with self._as(exchange.node):
            try:
                with ExitStack() as stack:
                    for fault in faults:
                        stack.enter_context(fault.around(exchange))
                    app = node.app if isinstance(node.app, ClientApp) else node.app()
                    reply = app(message, context)
            except ScriptError:
                raise
            except Exception as error:
                reason = str(type(error)) + ":<'" + str(error) + "'>"
                code = ErrorCode.CLIENT_APP_RAISED_EXCEPTION
                reply = Message(Error(code=code, reason=reason), reply_to=message)
            node.context = context_from_proto(context_to_proto(context))
        reply.metadata.__dict__["_message_id"] = reply.object_id
        if wrong := validate_message(reply, is_reply_message=True):
            raise ValueError(f"node {exchange.node}: the SuperLink would refuse its reply: {wrong}")
        return reply

    @contextmanager
    def _as(self, node: int) -> Iterator[None]:
        self._identify(node)
        try:
            yield
        finally:
            self._identify(SUPERLINK_NODE_ID)

    def _bury(self, node: int, killed: Killed) -> None:
        if killed.context == "lost":
            self._nodes[node].context.state = RecordDict()
        if not killed.comes_back:
            self.leave(node)

    def _remember(self, exchange: Exchange, reply: Message) -> None:
        if reply.has_content():
            key = (exchange.node, exchange.round, exchange.asks)
            self._contents[key] = deflate(reply)
            self._roots[key] = reply.metadata.message_id

    def reply_content(self, node: int, round: int | None, asks: tuple[str, ...]) -> RecordDict:
        """Give the content of an honest reply of before, to be replayed."""
        key = (node, round, asks)
        if key not in self._contents:
            raise LookupError(f"no reply of node {node} in round {round} to {asks} yet")
        return inflate(self._roots[key], self._contents[key]).content

    # The wire.

    def _count(
        self, exchange: Exchange, direction: Literal["down", "up"], contents: Mapping[str, bytes]
    ) -> None:
        nbytes = sum(map(len, contents.values()))
        kind = exchange.metadata.message_type
        self.traffic.append(
            Traffic(exchange.node, direction, kind, exchange.round, exchange.asks, nbytes)
        )

    def nbytes(self, direction: Literal["down", "up"], node: int | None = None) -> int:
        """Bytes of all messages to ("down") or from ("up") a node, or all nodes."""
        return sum(
            item.nbytes
            for item in self.traffic
            if item.direction == direction and node in (None, item.node)
        )

    def wire(self, direction: Literal["down", "up"]) -> Iterator[bytes]:
        """Give every serialized object that passed the server, as it was on the wire."""
        for exchange in self.exchanges:
            sent = (
                [exchange.contents]
                if direction == "down"
                else [contents for _, contents in exchange.replies or []]
            )
            for contents in sent:
                yield from contents.values()

    def _received(self, root: str, contents: Mapping[str, bytes]) -> Message:
        """Inflate a reply, or make the error that a Grid makes where an object never arrived."""
        reason = refusal(contents)
        if reason is None:
            return inflate(root, contents)
        answered = next(
            exchange.message_id
            for exchange in self.exchanges
            if any(root == reply for reply, _ in exchange.replies or [])
        )
        return objects_unavailable(self.run_id, answered, reason)
