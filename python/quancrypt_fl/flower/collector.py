"""Messages out, replies in as they arrive: one in memory at a time, each handled once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import httpx
from flwr.app import Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from quancrypt_fl.errors import FederatedError
from quancrypt_fl.flower.observing import RunObserver
from quancrypt_native import QuanCryptError

__all__ = ["Collector", "Handler"]

Handler = Callable[[int, Message], Message | None]
"""Takes a node's reply; gives a message to send it next, or None if all is there.

What it raises as a FederatedError or QuanCryptError refuses the reply, and the round goes on.
"""

_LOG = logging.getLogger(__name__)
_LIVE_MARGIN = 60.0  # seconds that a message lives beyond the time in which it can be answered


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
        Seconds between two looks for replies.
    clock, sleep
        Time in seconds, and how to let it pass.
    """

    grid: Grid
    observer: RunObserver
    name: Callable[[int], str]
    poll: float = 0.25
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _overdue: dict[str, int] = field(default_factory=dict)

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
        deadline = self.clock() + timeout
        lost: set[int] = set()
        waiting = self._push(messages, timeout, lost)
        while waiting and self.clock() < deadline:
            arrived = False
            for reply in self._pull(waiting, round, phase):
                arrived = True
                node = waiting.pop(reply.metadata.reply_to_message_id, None)
                if node is None:
                    continue  # delivered twice
                again = self._handle(handle, node, reply, round, phase)
                if again is not None:
                    waiting |= self._push([again], max(1.0, deadline - self.clock()), lost)
            if waiting and not arrived:
                self.sleep(min(self.poll, max(0.0, deadline - self.clock())))
        self._overdue |= waiting
        for node in sorted([*lost, *waiting.values()]):
            self._lose(node, f"no answer within {timeout:g} s", round, phase)
        return lost | set(waiting.values())

    def _push(self, messages: Sequence[Message], timeout: float, lost: set[int]) -> dict[str, int]:
        nodes = [message.metadata.dst_node_id for message in messages]
        for message in messages:
            message.metadata.ttl = timeout + _LIVE_MARGIN
        ids = list(self.grid.push_messages(messages))
        lost |= {node for node, key in zip(nodes, ids, strict=False) if not key}
        lost |= set(nodes[len(ids) :])
        return {key: node for key, node in zip(ids, nodes, strict=False) if key}

    def _pull(self, waiting: dict[str, int], round: int, phase: str) -> Iterator[Message]:
        """What has arrived of ``waiting``; what comes too late is told and dropped.

        Messages are fetched one at a time: only one upload is in memory, and one whose bytes
        Flower cannot read takes no other with it.
        """
        for key, node in list(waiting.items()):
            try:
                yield from self.grid.pull_messages([key])
            except httpx.HTTPStatusError as error:  # of this message: look at the others
                self._lost_connection(error)
            except (httpx.HTTPError, OSError) as error:
                self._lost_connection(error)
                return
            except Exception as error:  # a stranger's bytes: Flower may fail on them in any way
                del waiting[key]
                reason = f"its reply cannot be read ({type(error).__name__}: {error!s:.200})"
                self._refuse(node, reason, round, phase)
        for key, node in list(self._overdue.items()):
            with suppress(Exception):
                for reply in self.grid.pull_messages([key]):
                    self._overdue.pop(key, None)
                    if not _is_flowers_own(reply):
                        self.observer.ignored(
                            round=round,
                            node=node,
                            name=self.name(node),
                            reason="late: the time for it is over",
                        )

    def _lost_connection(self, error: Exception) -> None:
        """The grid is out of reach: Flower's own retries are over; look again at the next turn."""
        self.observer.note(f"the SuperLink does not answer ({type(error).__name__}); trying again")

    def _handle(
        self, handle: Handler, node: int, reply: Message, round: int, phase: str
    ) -> Message | None:
        try:
            if _is_flowers_own(reply):
                self._lose(node, _said(reply), round, phase)
                return None
            if reply.has_error():
                raise FederatedError(_said(reply))
            if reply.metadata.src_node_id != node:
                raise FederatedError(f"it came from node {reply.metadata.src_node_id}")
            return handle(node, reply)
        except (FederatedError, QuanCryptError) as error:
            self._refuse(node, str(error), round, phase)
        except Exception as error:  # a stranger's reply must not end the round, whatever it holds
            _LOG.exception("a reply of node %d", node)
            self._refuse(node, f"{type(error).__name__}: {error!s:.200}", round, phase)
        return None

    def _lose(self, node: int, reason: str, round: int, phase: str) -> None:
        self.observer.lost(round=round, phase=phase, node=node, name=self.name(node), reason=reason)

    def _refuse(self, node: int, reason: str, round: int, phase: str) -> None:
        self.observer.refused(
            round=round, phase=phase, node=node, name=self.name(node), reason=reason
        )


def _is_flowers_own(reply: Message) -> bool:
    """Whether the SuperLink answers in the place of a node that is gone, or of a lost message."""
    own = (ErrorCode.NODE_UNAVAILABLE, ErrorCode.MESSAGE_UNAVAILABLE)
    return reply.has_error() and reply.error.code in own


def _said(reply: Message) -> str:
    """An error reply's reason, short: it is the other side's text."""
    lines = [line for line in (reply.error.reason or "").strip().splitlines() if line.strip()]
    return f"error {reply.error.code}: {lines[-1].strip()[:300] if lines else 'no reason given'}"
