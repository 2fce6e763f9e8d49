"""Clients and server are killed at random, again and again, wherever they happen to be.

The training ends, with the very model that it would have had. Real processes and real signals are
in tests/fl/deployment/test_kills.py.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file
from tests.fl.flower import numpy_app
from tests.fl.flower.faults import Death, Killed, dying
from tests.fl.flower.federation import NO_EVALUATION, Federation, Reference, assert_equal, final

import quancrypt_native as qn
from quancrypt_fl.flower import client, mod
from quancrypt_fl.flower.exchanges import Exchanges
from quancrypt_fl.flower.history import History, RoundSum
from quancrypt_fl.flower.history_files import Folder
from quancrypt_fl.flower.ledger import Ledger
from quancrypt_fl.flower.server_round import ServerRound
from quancrypt_fl.flower.stores import FolderStore, finished_model
from quancrypt_fl.protect import Protector

ROUNDS = 16

# What a process does, where it dies, and of how many calls one is chosen: those of about a round.
CLIENT: list[tuple[str, Any, str, int]] = [
    ("receiving", mod, "read_request", 10),
    ("opening a sum", Protector, "unprotect", 5),
    ("training", numpy_app, "fit", 5),
    ("amid an epoch", numpy_app, "probabilities", 40),
    ("keeping the training", FolderStore, "keep_pending", 10),
    ("forming the update", client, "form_update", 5),
    ("encrypting", Protector, "protect", 5),
    ("holding the model", FolderStore, "hold", 5),
    ("counting what it carries over", FolderStore, "remember", 5),
    ("letting go of a training", FolderStore, "drop_pending", 5),
    ("writing a file", Path, "replace", 20),
    ("uploading", mod, "write", 10),
]
SERVER: list[tuple[str, Any, str, int]] = [
    ("asking", Exchanges, "run", 2),
    ("adding an upload", Ledger, "add", 5),
    ("closing a ledger", Ledger, "close", 1),
    ("counting a round", History, "append", 1),
    ("noting clients", History, "note", 2),
    ("keeping a snapshot", History, "keep_snapshot", 1),
    ("writing a file", Folder, "write", 6),
    ("adding a line", Folder, "extend", 2),
    ("syncing", Folder, "sync", 5),
    ("evaluating", ServerRound, "evaluate", 1),
]


Place = tuple[str, tuple[str, Any, str, int]]
"""Whose process, and an entry of one of these lists."""


def deaths(rng: random.Random, places: Sequence[Place]) -> list[Death]:
    """One in each place, at a random call, before or after it."""
    return [
        Death(what, target, attribute, rng.randint(1, calls), rng.choice(("before", "after")), side)
        for side, (what, target, attribute, calls) in places
    ]


def plan_of(seed: int) -> list[Death]:
    """Each place once, in random order, and the end of the training last."""
    rng = random.Random(seed)
    places = [("client", place) for place in CLIENT] + [("server", place) for place in SERVER]
    rng.shuffle(places)
    return [
        *deaths(rng, places),
        Death("ending", ServerRound, "finish", at=rng.choice(("before", "after")), side="server"),
        Death("ending", FolderStore, "finish", rng.randint(1, 5), rng.choice(("before", "after"))),
    ]


@dataclass
class Survivors:
    """A federation whose processes are started again, and what they had promised before."""

    federation: Federation
    server: Path
    plan: list[Death]
    returns: bool
    away: set[int] = field(default_factory=set)
    died: list[Death] = field(default_factory=list)
    acknowledged: dict[int, RoundSum] = field(default_factory=dict)
    evaluated: dict[int, dict[str, Any]] = field(default_factory=dict)
    kept: dict[tuple[int, int], int] = field(default_factory=dict)

    def run(self, rounds: int, **options: Any) -> Any:
        """Let the training run to its end, over as many servers as it takes."""
        options = {"state": self.server, "resume": True, "sleep": self.sleep, **options}
        with dying(self.plan, self.dies):
            for _ in range(len(self.plan) + 1):
                try:
                    return self.federation.train(rounds, **options)
                except Killed:
                    for node in self.missing():
                        self.federation.grid.join(node)
                    self.federation.grid.new_run()
        raise AssertionError("more servers died than were to")

    def dies(self, death: Death) -> Killed:
        self.died.append(death)
        return Killed(comes_back=not self.returns)

    def sleep(self, seconds: float) -> None:
        """While the server waits, SuperNodes that were killed start again, once it has noticed."""
        self.federation.clock.sleep(seconds)
        for node in self.away & self.missing():
            self.federation.grid.join(node)
        self.away = self.missing()

    def missing(self) -> set[int]:
        return set(self.federation.nodes) - set(self.federation.grid.get_node_ids())

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        """Note what is promised: rounds that the server has finished, trainings that are kept."""
        nodes = {self.federation.state_of(node): node for node in self.federation.nodes}
        append, amend, keep = History.append, History.amend, FolderStore.keep_pending

        def appended(history: History, link: RoundSum, sums: bytes, record: Any) -> None:
            append(history, link, sums, record)
            assert self.acknowledged.setdefault(link.round, link) == link

        def amended(history: History, round: int, record: Any) -> None:
            amend(history, round, record)
            self.evaluated[round] = record

        def kept(store: FolderStore, pending: Any) -> None:
            keep(store, pending)
            key = nodes[store._folder], pending.round + 1  # the app's call is counted by now
            self.kept.setdefault(key, self.federation.trained[key])

        patch.setattr(History, "append", appended)
        patch.setattr(History, "amend", amended)
        patch.setattr(FolderStore, "keep_pending", kept)

    def check(self) -> None:
        """Nothing that was promised is lost, and every round's account is right."""
        federation = self.federation
        with History.resume(self.server) as history:
            rounds, records = history.rounds, history.records
        for index, link in self.acknowledged.items():
            assert rounds[index] == link
        for index, record in self.evaluated.items():
            assert records[index] == record
        for link, record in zip(rounds, records, strict=True):
            assert sum(federation.counted(record).values()) == record["weight"] == link.weight
        trained = {key: federation.trained[key] for key in self.kept}
        assert trained == self.kept, "a training that was kept was done again"


@pytest.fixture
def survivors(
    federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Survivors]:
    def make(plan: list[Death], *, returns: bool) -> Survivors:
        made = Survivors(federation, tmp_path / "server", plan, returns)
        made.watch(monkeypatch)
        return made

    return make


@pytest.mark.parametrize("seed", range(2))
def test_clients_that_come_back_are_asked_again(
    survivors: Callable[..., Survivors],
    federation: Federation,
    params: qn.Parameters,
    keys: qn.KeyPair,
    seed: int,
) -> None:
    """The end is that of a training in which nothing happened, bit for bit, at every client."""
    made = survivors(plan_of(seed), returns=True)
    result = made.run(ROUNDS, error_feedback=True, snapshot_every=2)
    assert made.died == made.plan
    made.check()
    expected = Reference(params, error_feedback=True).train(ROUNDS)
    assert_equal(final(result, keys), expected)
    assert [record["participants"] for record in federation.last.records] == [5] * ROUNDS
    for node in federation.nodes:
        assert_equal(dict(federation.held(node).state.weights), expected)
        (training,) = (path.parent for path in federation.state_of(node).glob("*/held"))
        model = load_file(finished_model(training.parent, training.name))
        assert_equal({name: model[name] for name in expected}, expected)


@pytest.mark.parametrize("seed", range(2))
def test_rounds_that_go_on_without_the_dead(
    survivors: Callable[..., Survivors],
    federation: Federation,
    keys: qn.KeyPair,
    seed: int,
) -> None:
    """Their updates are in no sum of the round: the model is what the ledgers say."""
    made = survivors(plan_of(seed), returns=False)
    result = made.run(ROUNDS, error_feedback=True, snapshot_every=2)
    assert made.died == made.plan
    made.check()
    assert any(record["lost"] for record in federation.last.records)
    assert_equal(final(result, keys), federation.expected(error_feedback=True))


def test_a_snapshot_that_leads_past_a_counted_update(
    survivors: Callable[..., Survivors], params: qn.Parameters, keys: qn.KeyPair
) -> None:
    """The client dies before it has noted what it carries over from round 1, the server between
    the next snapshot and the end of round 2: with that snapshot, round 1 is not told again.
    """
    plan = [
        Death("counting what it carries over", FolderStore, "remember"),
        Death("counting a round", History, "append", side="server"),
    ]
    made = survivors(plan, returns=False)
    options = {"error_feedback": True, "snapshot_every": 1, **NO_EVALUATION}
    result = made.run(4, **options)
    assert made.died == plan
    made.check()
    assert_equal(final(result, keys), Reference(params, error_feedback=True).train(4))
