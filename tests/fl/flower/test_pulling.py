"""Replies whose bytes are slow to come: they wait aside, and the others go on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from quancrypt_fl.flower.collector import Collector
from quancrypt_fl.flower.observing import RunObserver
from quancrypt_fl.flower.pulling import Pulls

SOON = 30.0  # seconds: more than anything here takes on the slowest machine


class SlowGrid:
    """Answers each message at once, but the replies of some nodes come only when they are let."""

    def __init__(self, slow: Iterable[int] = ()) -> None:
        self.gates = {node: threading.Event() for node in slow}
        self.sent: dict[str, Message] = {}
        self.pulled: list[int] = []
        self.at_once = 0
        self.most_at_once = 0
        self._lock = threading.Lock()

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        keys = []
        for message in messages:
            key = f"message {len(self.sent)}"
            message.metadata.__dict__["_message_id"] = key
            self.sent[key] = message
            keys.append(key)
        return keys

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        (key,) = message_ids
        message = self.sent[key]
        node = message.metadata.dst_node_id
        with self._lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        if node in self.gates:
            assert self.gates[node].wait(SOON)
        with self._lock:
            self.at_once -= 1
            self.pulled.append(node)
        yield Message(RecordDict({"said": ConfigRecord({"node": node})}), reply_to=message)

    def get_node_ids(self) -> list[int]:
        return []


class Told(RunObserver):
    def __init__(self) -> None:
        self.lost_nodes: dict[int, str] = {}
        self.ignored_nodes: dict[int, str] = {}

    def lost(self, **what: Any) -> None:
        self.lost_nodes[what["node"]] = what["reason"]

    def ignored(self, **what: Any) -> None:
        self.ignored_nodes[what["node"]] = what["reason"]


@pytest.fixture(autouse=True)
def the_task() -> None:
    """Flower's processes know for which task they make messages."""
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1


@pytest.fixture
def told() -> Told:
    return Told()


def requests(nodes: Iterable[int]) -> list[Message]:
    return [Message(RecordDict(), node, "train") for node in nodes]


def pulls(grid: SlowGrid, **options: Any) -> Pulls:
    return Pulls(cast(Grid, grid), **options)


def collector(grid: SlowGrid, told: Told) -> Collector:
    return Collector(cast(Grid, grid), told, lambda node: f"client-{node}", poll=0.01)


def eventually(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_reply_that_is_there_comes_at_once() -> None:
    grid = SlowGrid()
    (key,) = grid.push_messages(requests([1]))
    fetched = pulls(grid, hold=SOON).fetch(key)
    assert fetched is not None
    assert [reply.metadata.src_node_id for reply in fetched] == [1]


def test_a_slow_one_goes_aside_and_is_pulled_once() -> None:
    grid = SlowGrid(slow=[1])
    slow, quick = grid.push_messages(requests([1, 2]))
    fetching = pulls(grid, hold=0.05)
    assert fetching.fetch(slow) is None
    assert slow in fetching
    assert fetching.fetch(quick) is not None
    assert fetching.fetch(slow) is None
    grid.gates[1].set()
    eventually(lambda: fetching.fetch(slow) is not None)
    assert slow not in fetching
    assert len(fetching) == 0
    assert grid.pulled == [2, 1]


def test_no_more_than_allowed_are_aside() -> None:
    """Each can hold an upload in memory."""
    grid = SlowGrid(slow=range(6))
    keys = grid.push_messages(requests(range(6)))
    fetching = pulls(grid, hold=0.01, at_most=2)
    assert [fetching.fetch(key) for key in keys] == [None] * 6
    assert [key in fetching for key in keys] == [True, True, False, False, False, False]
    for gate in grid.gates.values():
        gate.set()
    for key in keys:
        eventually(lambda key=key: fetching.fetch(key) is not None)  # type: ignore[misc]
    assert grid.most_at_once == 2


@pytest.mark.parametrize("error", [ValueError("of Flower's"), KeyboardInterrupt()])
def test_what_a_pull_raises_is_raised_here(error: BaseException) -> None:
    class Broken(SlowGrid):
        def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
            raise error

    fetching = pulls(Broken())
    with pytest.raises(type(error)) as caught:
        fetching.fetch("message 0")
    assert caught.value is error
    assert len(fetching) == 0


def test_waiting_ends_when_a_pull_does() -> None:
    grid = SlowGrid(slow=[1])
    (key,) = grid.push_messages(requests([1]))
    fetching = pulls(grid, hold=0.01)
    assert fetching.fetch(key) is None
    threading.Timer(0.1, grid.gates[1].set).start()
    begin = time.monotonic()
    while fetching.fetch(key) is None:
        fetching.wait(SOON)
    assert time.monotonic() - begin < SOON


def test_a_client_that_died_over_its_upload_does_not_hold_up_the_others(told: Told) -> None:
    """Its reply is listed and never complete: the time-out names it, and the others are in."""
    grid = SlowGrid(slow=[1])
    answered: list[int] = []
    lost = collector(grid, told).exchange(
        requests([1, 2, 3]),
        lambda node, _: answered.append(node),
        round=1,
        phase="train",
        timeout=4.0,
    )
    assert answered == [2, 3]
    assert lost == {1}
    assert told.lost_nodes == {1: "no answer within 4 s"}
    grid.gates[1].set()


def test_a_slow_upload_counts_when_it_is_complete(told: Told) -> None:
    grid = SlowGrid(slow=[1])
    answered: list[int] = []

    def handle(node: int, _: Message) -> None:
        answered.append(node)
        if node == 3:
            grid.gates[1].set()

    lost = collector(grid, told).exchange(
        requests([1, 2, 3]), handle, round=1, phase="train", timeout=SOON
    )
    assert answered == [2, 3, 1]
    assert not lost


def test_an_upload_complete_after_its_round_is_late(told: Told) -> None:
    grid = SlowGrid(slow=[1])
    collecting = collector(grid, told)

    def ask(nodes: list[int], seconds: float) -> set[int]:
        return collecting.exchange(
            requests(nodes), lambda *_: None, round=1, phase="train", timeout=seconds
        )

    assert ask([1], 3.0) == {1}
    assert ask([2], SOON) == set()
    assert not told.ignored_nodes
    grid.gates[1].set()
    eventually(lambda: not ask([2], SOON) and bool(told.ignored_nodes))
    assert told.ignored_nodes == {1: "late: the time for it is over"}
    assert grid.pulled.count(1) == 1
