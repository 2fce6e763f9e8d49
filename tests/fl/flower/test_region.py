"""An aggregator of aggregators gives the model that one aggregator gives, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import Result
from flwr.supercore.task_identity import TaskIdentity
from tests.fl.flower import numpy_app
from tests.fl.flower.fake_clock import FakeClock
from tests.fl.flower.faults import Hang, Raises
from tests.fl.flower.federation import EARLY, NODES, Reference, Watcher, assert_equal, final
from tests.fl.flower.local_grid import LocalGrid, contexts_for

import quancrypt_native as qn
from quancrypt_fl.errors import ConfigError, MethodError
from quancrypt_fl.flower import QuanCryptStrategy, quancrypt_mod
from quancrypt_fl.flower.ledger import Ledger
from quancrypt_fl.flower.observing import RunObserver, RunObservers
from quancrypt_fl.flower.region import Region
from quancrypt_fl.flower.region_app import region_app
from quancrypt_fl.flower.region_mailbox import Mailbox, MailboxError
from quancrypt_fl.method.weighting import Share

NORTH, SOUTH = 101, 102
OF_REGION = {NORTH: NODES[:2], SOUTH: NODES[2:]}
UNIFORM = {"weighting": "uniform"}


@dataclass
class Tree:
    """A root, two regions with mailboxes, and five clients, of which one may be the root's own."""

    params: qn.Parameters
    keys: qn.KeyPair
    key_file: Path
    folder: Path
    clients: Mapping[int, Sequence[int]] = field(default_factory=lambda: OF_REGION)
    key_files: Mapping[int, Path] = field(default_factory=dict)
    forgetful: bool = False  # a new process of each region answers each request
    watcher: Watcher = field(default_factory=Watcher)
    inner: Watcher = field(default_factory=Watcher)
    clock: FakeClock = field(default_factory=FakeClock)

    def __post_init__(self) -> None:
        self.grids = {
            region: LocalGrid(
                lambda _: numpy_app.make_app(mods=[quancrypt_mod]),
                contexts_for(nodes, node_config=self._client),
                clock=FakeClock(),
            )
            for region, nodes in self.clients.items()
        }
        self.regions = {node: self._region(node) for node in self.clients}
        inside = {node for nodes in self.clients.values() for node in nodes}
        flat = [node for node in NODES if node not in inside]
        self.grid = LocalGrid(
            self._app,
            contexts_for([*self.clients, *flat], node_config=self._client),
            clock=self.clock,
        )

    def _client(self, index: int, node: int) -> dict[str, Any]:
        if node in self.clients:
            return {"quancrypt-mailbox": str(self.folder / str(node))}
        return {
            "quancrypt-key": str(self.key_files.get(node, self.key_file)),
            "quancrypt-name": f"client-{NODES.index(node) + 1}",
            "partition-id": NODES.index(node),
            "num-partitions": len(NODES),
        }

    def _region(self, node: int) -> Region:
        clock = FakeClock()
        return Region(
            self.grids[node], key_id=self.keys.secret.key_id, name=f"region-{node}", timeout=30,
            observer=self.inner, clock=clock, sleep=clock.sleep,
        )  # fmt: skip

    def _app(self, node: int) -> ClientApp:
        if node not in self.clients:
            return numpy_app.make_app(mods=[quancrypt_mod])

        def region_works(seconds: float) -> None:
            self.clock.sleep(seconds)
            names = ("run_id", "node_id", "task_id")
            outside = [getattr(TaskIdentity, name) for name in names]
            if self.forgetful:
                self.regions[node] = self._region(node)
            self.grids[node]._identify(1)
            self.regions[node].step(Mailbox(self.folder / str(node)))
            for name, value in zip(names, outside, strict=True):
                setattr(TaskIdentity, name, value)

        return region_app(timeout=50, clock=self.clock, sleep=region_works)

    def train(self, rounds: int = 3, observer: RunObserver | None = None, **options: Any) -> Result:
        observers = RunObservers(self.watcher, *([observer] if observer else []))
        self.last = QuanCryptStrategy(
            self.params,
            **{
                "pruning": EARLY, "clock": self.clock, "sleep": self.clock.sleep,
                "observer": observers, "regions": {n: len(c) for n, c in self.clients.items()},
                **UNIFORM, **options,
            },
        )  # fmt: skip
        return self.last.start(
            self.grid,
            numpy_app.initial_arrays(),
            num_rounds=rounds,
            timeout=60,
            train_config=ConfigRecord({}),
        )

    def column(self, name: str) -> list[Any]:
        return [record[name] for record in self.last.records]


@pytest.fixture
def tree(params: qn.Parameters, keys: qn.KeyPair, key_file: Path, tmp_path: Path) -> Tree:
    return Tree(params, keys, key_file, tmp_path)


@pytest.mark.parametrize(
    "choices",
    [{}, {"smoothing": 0.5, "mask": "client"}, {"rounding": "stochastic", "seed": 3}],
    ids=lambda choices: ",".join(choices) or "default",
)
def test_the_model_is_that_of_one_process(
    tree: Tree, params: qn.Parameters, keys: qn.KeyPair, choices: dict[str, Any]
) -> None:
    result = tree.train(**choices)
    assert_equal(final(result, keys), Reference(params, **UNIFORM, **choices).train())
    assert tree.column("participants") == tree.column("weight") == [5, 5, 5]
    assert tree.watcher.refusals == tree.inner.refusals == []
    clients = tree.last.records[0]["clients"]
    assert {c["name"]: c["weight"] for c in clients} == {"region-101": 2, "region-102": 3}


def test_metrics_are_those_of_all_clients(tree: Tree, keys: qn.KeyPair) -> None:
    result = tree.train()
    weights, right, count = final(result, keys), 0.0, 0
    for index in range(len(NODES)):
        _, _, images, labels = numpy_app.partition(index, len(NODES))
        right += numpy_app.loss_and_accuracy(weights, images, labels)[1] * len(labels)
        count += len(labels)
    assert result.evaluate_metrics_clientapp[3]["eval_acc"] == pytest.approx(right / count)
    samples = sum(len(numpy_app.partition(index, len(NODES))[1]) for index in range(len(NODES)))
    assert sum(c["samples"] for c in tree.last.records[0]["clients"]) == samples


def test_regions_and_clients_side_by_side(
    params: qn.Parameters, keys: qn.KeyPair, key_file: Path, tmp_path: Path
) -> None:
    tree = Tree(params, keys, key_file, tmp_path, clients={NORTH: NODES[:2], SOUTH: NODES[2:4]})
    assert_equal(final(tree.train(), keys), Reference(params, **UNIFORM).train())
    assert tree.column("participants") == [5, 5, 5]


def test_a_region_that_forgets_everything_between_two_requests(
    params: qn.Parameters, keys: qn.KeyPair, key_file: Path, tmp_path: Path
) -> None:
    tree = Tree(params, keys, key_file, tmp_path, forgetful=True)
    assert_equal(final(tree.train(), keys), Reference(params, **UNIFORM).train())


@pytest.mark.parametrize("fault", [Hang(), Raises(RuntimeError("no data"))], ids=["hangs", "fails"])
def test_a_client_of_a_region_falls_silent(
    tree: Tree, params: qn.Parameters, keys: qn.KeyPair, fault: Any
) -> None:
    tree.grids[SOUTH].inject(fault, node=NODES[3], round=1, asks="upload")
    assert_equal(final(tree.train(), keys), Reference(params, **UNIFORM).train(lost={1: {3}}))
    assert tree.column("participants") == [5, 4, 5]


def test_a_region_falls_silent(tree: Tree, params: qn.Parameters, keys: qn.KeyPair) -> None:
    tree.grid.inject(Hang(), node=NORTH, round=1, asks="upload")
    assert_equal(final(tree.train(), keys), Reference(params, **UNIFORM).train(lost={1: {0, 1}}))
    assert tree.column("participants") == [5, 3, 5]
    assert [node for _, _, node, _ in tree.watcher.losses] == [NORTH]


class _Away(RunObserver):
    """A client of the south is away in round 2; so is all that it held, if ``forgets``."""

    def __init__(self, grid: LocalGrid, forgets: bool) -> None:
        self._grid = grid
        self._forgets = forgets

    def round_started(self, *, round: int, asked: Mapping[int, str]) -> None:
        del asked
        if round == 2:
            context = self._grid.leave(NODES[4])
            if self._forgets:
                context.state = RecordDict()
        if round == 3:
            self._grid.join(NODES[4])


@pytest.mark.parametrize("forgets", [False, True])
def test_a_client_that_missed_a_round_catches_up_through_its_region(
    tree: Tree, params: qn.Parameters, keys: qn.KeyPair, forgets: bool
) -> None:
    result = tree.train(rounds=4, observer=_Away(tree.grids[SOUTH], forgets))
    reference = Reference(params, **UNIFORM)
    for present in (range(5), range(4), range(5), range(5)):
        reference.round(present)
    assert_equal(final(result, keys), dict(reference.state.weights))
    assert tree.column("participants") == [5, 4, 5, 5]
    assert [note for note in tree.watcher.notes if "region-102 catches up" in note]


def test_a_snapshot_comes_from_a_client(tree: Tree, params: qn.Parameters) -> None:
    asked: list[tuple[str, ...]] = []
    tree.train(rounds=4, snapshot_every=1)
    for grid in tree.grids.values():
        asked += [exchange.asks for exchange in grid.exchanges if "snapshot" in exchange.asks]
    assert len(asked) >= 3
    assert tree.watcher.refusals == []


def test_a_stranger_in_a_region_is_left_out(
    params: qn.Parameters, keys: qn.KeyPair, key_file: Path, other_key_file: Path, tmp_path: Path
) -> None:
    tree = Tree(params, keys, key_file, tmp_path, key_files={NODES[4]: other_key_file})
    result = tree.train()
    reference = Reference(params, **UNIFORM)
    for _ in range(3):
        reference.round(range(4))
    assert_equal(final(result, keys), dict(reference.state.weights))
    assert "its key is" in tree.inner.reasons(NODES[4])[0]


def test_a_region_that_the_root_does_not_know(tree: Tree) -> None:
    """Its app says what is missing; the others go on without it."""
    tree.train(rounds=1, regions={SOUTH: 3})
    assert "name it in the strategy" in tree.watcher.reasons(NORTH)[0]
    assert tree.column("participants") == [3]


def test_a_region_ends_some_time_after_the_training(tree: Tree) -> None:
    tree.train(rounds=1)
    region = tree.regions[NORTH]
    before = region._clock()
    region.serve(Mailbox(tree.folder / str(NORTH)), linger=5)
    assert 5 <= region._clock() - before < 6


# --- the root's ledger ---

LAYOUT = {"w": ((8,), 1.0)}


def ledger_of(params: qn.Parameters, keys: qn.KeyPair) -> Ledger:
    shares = dict.fromkeys((NORTH, 11), Share(1))
    return Ledger(params, keys.secret.key_id, LAYOUT, shares, {NORTH: 3})


def sum_of(params: qn.Parameters, keys: qn.KeyPair, clients: int) -> bytes:
    encryptor = qn.Encryptor(params, keys.secret)
    one = np.ones(8, np.float32)
    return qn.aggregate([encryptor.encrypt({"w": one}, {"w": 1.0})] * clients).to_bytes()


@pytest.mark.parametrize(
    ("node", "clients", "parts", "reason"),
    [
        (NORTH, 2, 3, "a sum has the weight 2; its ledger says 3"),
        (NORTH, 2, 1, "a sum has the weight 2; its ledger says 1"),
        (NORTH, 4, 4, "a sum of 4 clients; allowed for the region: 3"),
        (11, 2, 2, "an upload of [0-9,]+ bytes; allowed"),
    ],
)
def test_a_sum_is_what_its_ledger_says_or_is_not_added(
    params: qn.Parameters, keys: qn.KeyPair, node: int, clients: int, parts: int, reason: str
) -> None:
    ledger = ledger_of(params, keys)
    with pytest.raises(MethodError, match=reason):
        ledger.add(node, sum_of(params, keys, clients), parts)
    assert ledger.entries == {}
    ledger.add(NORTH, sum_of(params, keys, 3), 3)
    assert (ledger.close().weight, ledger.clients) == (3, 3)


def test_a_sum_under_another_key_is_refused(
    params: qn.Parameters, keys: qn.KeyPair, other_keys: qn.KeyPair
) -> None:
    with pytest.raises(MethodError, match="under the key"):
        ledger_of(params, keys).add(NORTH, sum_of(params, other_keys, 2), 2)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"weighting": "integer"}, "allowed: 'uniform', False"),
        ({"error_feedback": True}, "error_feedback=True; allowed: 'uniform', False"),
        ({"regions": {NORTH: 40, SOUTH: 40}}, "80 in all; allowed: at least 1 each"),
        ({"regions": {NORTH: 0}}, "allowed: at least 1 each"),
    ],
)
def test_what_regions_do_not_go_with(tree: Tree, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        tree.train(**options)


# --- the mailbox ---


@pytest.fixture
def letter() -> Callable[[str], Message]:
    def make(text: str) -> Message:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 7, 1, 1
        content = RecordDict({"c": ConfigRecord({"text": text})})
        return Message(content, 5, "train", group_id="2")

    return make


def test_letters_are_answered_once_and_in_order(
    tmp_path: Path, letter: Callable[[str], Message]
) -> None:
    mailbox = Mailbox(tmp_path)
    first = mailbox.send(letter("first"))
    assert mailbox.send(letter("first")) == first
    second = mailbox.send(letter("second"))
    assert mailbox.take_answer(first) is None
    found = mailbox.next_request()
    assert found is not None
    name, message = found
    assert (name, message.content["c"]["text"], message.metadata.group_id) == (first, "first", "2")
    mailbox.answer(first, RecordDict({"c": ConfigRecord({"text": "answer"})}))
    answer = mailbox.take_answer(first)
    assert answer is not None
    assert dict(answer.config_records) == {"c": ConfigRecord({"text": "answer"})}
    assert mailbox.take_answer(first) is None
    mailbox.refuse(second, "too late")
    with pytest.raises(MailboxError, match="too late"):
        mailbox.take_answer(second)
    assert mailbox.next_request() is None


def test_half_a_letter_is_none(tmp_path: Path, letter: Callable[[str], Message]) -> None:
    mailbox = Mailbox(tmp_path)
    name = mailbox.send(letter("whole"))
    whole = tmp_path / "requests" / name
    whole.rename(whole.with_name(f"{name}.1.tmp"))  # as a process leaves it that is killed
    assert mailbox.next_request() is None
    assert mailbox.send(letter("whole")) == name
    assert mailbox.next_request() is not None


def test_a_region_without_clients_says_so(tree: Tree, tmp_path: Path) -> None:
    for node in NODES[:2]:
        tree.grids[NORTH].leave(node)
    tree.train(rounds=1)
    assert "0 clients are connected to the region region-101" in tree.watcher.reasons(NORTH)[0]
    assert tree.column("participants") == [3]
