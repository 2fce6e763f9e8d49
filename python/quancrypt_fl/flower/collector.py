"""Messages out, replies in as they arrive, each handled once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

import httpx
from flwr.app import Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from quancrypt_fl.errors import FederatedError
from quancrypt_fl.flower.nodes import printable
from quancrypt_fl.flower.observing import RunObserver
from quancrypt_fl.flower.pulling import Pulls
from quancrypt_native import QuanCryptError

__all__ = ["Collector", "Handler"]

Handler = Callable[[int, Message], Message | None]
"""Takes a node's reply; gives a message to send it next, or None if all is there.

What it raises as a FederatedError or QuanCryptError refuses the reply, and the round goes on.
"""

_LOG = logging.getLogger(__name__)
_LIVE_MARGIN = 60.0  # seconds that a message lives beyond the time in which it can be answered
_RESTARTS = 2  # times that a node is asked again in an exchange because it has started anew
_REST = 3.0  # times the seconds of looking in vain, which then takes a quarter of the time
_LONGEST_REST = 5.0  # seconds
_LOOK_EVERY = 3.0  # seconds between two looks for nodes that have started anew


@dataclass(frozen=True)
class _Asked:
    """A message on its way: to whom, what, and when it was sent (by the clock of the machine)."""

    node: int
    message: Message
    sent: float


@dataclass
class Collector:
    """Exchanges of messages over a Flower grid.

    Parameters
    ----------
    grid
        Flower's way to the nodes.
    observer
        Told of replies that are refused, lost, late or repeated.
    name
        From a node to what people call it.
    poll
        Seconds between two looks for replies; more where a look at many nodes itself takes long.
    patience
        Seconds within which a node that has died may come back; it is then asked again.
    clock, sleep
        Time in seconds, and how to let it pass.
    """

    grid: Grid
    observer: RunObserver
    name: Callable[[int], str]
    poll: float = 0.25
    patience: float = 30.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _overdue: dict[str, int] = field(default_factory=dict)
    _pulls: Pulls = field(init=False)

    def __post_init__(self) -> None:
        self._pulls = Pulls(self.grid)

    def exchange(
        self,
        messages: Sequence[Message],
        handle: Handler,
        *,
        round: int,
        phase: str,
        timeout: float,
    ) -> set[int]:
        """Send messages, one per node, and handle the replies until all are there or time is up.

        Returns
        -------
        set of int
            Nodes that did not answer in time. A later reply of theirs is ignored, and said so.
        """
        work = _Exchange(self, handle, round, phase, timeout)
        work.push(messages)
        work.collect()
        self._overdue |= {key: asked.node for key, asked in work.waiting.items()}
        return work.lost


class _Exchange:
    """One exchange at work."""

    def __init__(
        self, around: Collector, handle: Handler, round: int, phase: str, timeout: float
    ) -> None:
        self._c = around
        self._handle = handle
        self._round = round
        self._phase = phase
        self._timeout = timeout
        self._deadline = around.clock() + timeout
        self._looked = around.clock()
        self._restarts: dict[int, int] = {}
        self._away: dict[int, tuple[Message, float, str]] = {}
        self._answered: dict[str, int] = {}
        self._vain = 0.0  # seconds of the last look for replies that found nothing
        self.waiting: dict[str, _Asked] = {}
        self.lost: set[int] = set()

    def push(self, messages: Sequence[Message]) -> None:
        """Send messages; those that Flower does not take are lost."""
        for message in messages:
            left = max(1.0, self._deadline - self._c.clock())
            message.metadata.ttl = left + _LIVE_MARGIN
        now = time.time()
        keys = list(self._c.grid.push_messages(messages))
        keys += [""] * (len(messages) - len(keys))
        for key, message in zip(keys, messages, strict=True):
            node = message.metadata.dst_node_id
            if key:
                self.waiting[key] = _Asked(node, message, now)
            else:
                self._lose(node, "Flower did not take the message for it")

    def collect(self) -> None:
        """Handle replies until all are there or time is up."""
        clock = self._c.clock
        while (self.waiting or self._away) and clock() < self._deadline:
            arrived = False
            for key, reply in self._pull():
                arrived = True
                asked = self.waiting.pop(key)
                self._answered[key] = asked.node
                self._take(asked, reply)
            self._look_after_nodes()
            pause = max(0.0 if arrived else self._c.poll, min(_REST * self._vain, _LONGEST_REST))
            if (self.waiting or self._away) and pause:
                self._pause(min(pause, max(0.0, self._deadline - clock())))
        for node, (_, _, reason) in sorted(self._away.items()):
            self._lose(node, reason)
        for node in sorted(asked.node for asked in self.waiting.values()):
            self._lose(node, f"no answer within {self._timeout:g} s")

    def _pause(self, seconds: float) -> None:
        if len(self._c._pulls):
            self._c._pulls.wait(seconds)
        else:
            self._c.sleep(seconds)

    def _pull(self) -> Iterator[tuple[str, Message]]:
        """What has arrived; what comes too late is told and dropped.

        Messages are fetched one at a time: only uploads that are slow to come are in memory
        together, and one whose bytes Flower cannot read takes no other with it.
        """
        self._vain = 0.0
        for key, asked in list(self.waiting.items()):
            started = self._c.clock()
            try:
                replies = self._c._pulls.fetch(key)
                if replies is None:
                    continue
                self._vain += 0.0 if replies else self._c.clock() - started
                for reply in replies:
                    answers = reply.metadata.reply_to_message_id
                    if answers in self.waiting:
                        yield answers, reply
                    elif answers in self._answered and not _is_flowers_own(reply):
                        self._ignore(self._answered[answers], "repeated: it has answered already")
            except httpx.HTTPStatusError as error:  # of this message: look at the others
                self._unreachable(error)
            except (httpx.HTTPError, OSError) as error:
                self._unreachable(error)
                return
            except Exception as error:  # a stranger's bytes: Flower may fail on them in any way
                del self.waiting[key]
                self._refuse(
                    asked.node, f"its reply cannot be read ({type(error).__name__}: {error!s:.200})"
                )
        self._drop_overdue()

    def _drop_overdue(self) -> None:
        for key, node in list(self._c._overdue.items()):
            with suppress(Exception):
                for reply in self._c._pulls.fetch(key) or []:
                    self._c._overdue.pop(key, None)
                    if not _is_flowers_own(reply):
                        self._ignore(node, "late: the time for it is over")

    def _unreachable(self, error: Exception) -> None:
        """The grid is out of reach: Flower's own retries are over; look again at the next turn."""
        self._c.observer.note(
            f"the SuperLink does not answer ({type(error).__name__}); trying again"
        )

    def _take(self, asked: _Asked, reply: Message) -> None:
        node = asked.node
        try:
            if _is_flowers_own(reply):
                self._wait_for(asked, _said(reply))
                return
            if reply.has_error():
                raise FederatedError(_said(reply))
            if reply.metadata.src_node_id != node:
                raise FederatedError(f"it came from node {reply.metadata.src_node_id}")
            again = self._handle(node, reply)
        except (FederatedError, QuanCryptError) as error:
            self._refuse(node, str(error))
        except Exception as error:  # a stranger's reply must not end the round, whatever it holds
            _LOG.exception("a reply of node %d", node)
            self._refuse(node, f"{type(error).__name__}: {error!s:.200}")
        else:
            if again is not None:
                self.push([again])

    # --- nodes that die and come back ---

    def _wait_for(self, asked: _Asked, reason: str) -> None:
        """A node died over a message: if it comes back in time it is asked again."""
        if self._restarts.get(asked.node, 0) >= _RESTARTS:
            self._lose(asked.node, reason)
            return
        self._away[asked.node] = (asked.message, self._c.clock() + self._c.patience, reason)

    def _look_after_nodes(self) -> None:
        if self._away:
            online = set(self._c.grid.get_node_ids())
            for node, (message, until, reason) in list(self._away.items()):
                if node in online:
                    del self._away[node]
                    self._ask_again(node, message, reason)
                elif self._c.clock() >= until:
                    del self._away[node]
                    self._lose(node, reason)
        if self.waiting and self._c.clock() - self._looked >= _LOOK_EVERY:
            self._looked = self._c.clock()
            self._look_for_restarts()

    def _look_for_restarts(self) -> None:
        """A SuperNode that started anew has forgotten its messages, and Flower does not say so."""
        started = _started(self._c.grid)
        for key, asked in list(self.waiting.items()):
            if started.get(asked.node, 0.0) > asked.sent:
                del self.waiting[key]
                self._c._overdue[key] = asked.node
                self._wait_for(asked, "it started anew while it was at work")

    def _ask_again(self, node: int, message: Message, reason: str) -> None:
        self._restarts[node] = self._restarts.get(node, 0) + 1
        self._c.observer.note(f"{self._c.name(node)} is asked again ({reason})")
        about = message.metadata
        self.push([Message(message.content, node, about.message_type, group_id=about.group_id)])

    def _lose(self, node: int, reason: str) -> None:
        self.lost.add(node)
        self._c.observer.lost(
            round=self._round,
            phase=self._phase,
            node=node,
            name=self._c.name(node),
            reason=reason,
        )

    def _ignore(self, node: int, reason: str) -> None:
        self._c.observer.ignored(
            round=self._round, node=node, name=self._c.name(node), reason=reason
        )

    def _refuse(self, node: int, reason: str) -> None:
        self._c.observer.refused(
            round=self._round,
            phase=self._phase,
            node=node,
            name=self._c.name(node),
            reason=printable(reason),
        )


def _started(grid: Grid) -> dict[int, float]:
    """When each node was last activated, in seconds since the epoch, where the grid knows."""
    started = {}
    with suppress(httpx.HTTPError, OSError):
        for info in getattr(grid, "get_nodes", list)():
            if info.last_activated_at:
                started[info.node_id] = datetime.fromisoformat(info.last_activated_at).timestamp()
    return started


def _is_flowers_own(reply: Message) -> bool:
    """Whether Flower answers in the place of a node that is gone, or of a lost message."""
    own = (ErrorCode.NODE_UNAVAILABLE, ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.CLIENT_APP_CRASHED)
    return reply.has_error() and reply.error.code in own


def _said(reply: Message) -> str:
    """An error reply's reason, short: it is the other side's text."""
    lines = [said for line in (reply.error.reason or "").splitlines() if (said := printable(line))]
    return f"error {reply.error.code}: {lines[-1][:300] if lines else 'no reason given'}"
