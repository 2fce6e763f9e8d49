"""Clients that missed rounds, lost their state or come late reach the others' model bit for bit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable
from tests.fl.flower import numpy_app
from tests.fl.flower.faults import Kill, Lose, Replace
from tests.fl.flower.federation import (
    NO_EVALUATION,
    NODES,
    Federation,
    assert_equal,
    final,
)
from tests.fl.flower.hostile import header_with
from tests.fl.flower.local_grid import LocalGrid
from tests.fl.flower.wire import describe

import quancrypt_native as qn
from quancrypt_fl.flower.history import History
from quancrypt_fl.flower.protocol import read_request
from quancrypt_fl.flower.stores import FolderStore

LATE = 15


class Schedule:
    """Lets something happen when a round's training is first asked for."""

    def __init__(self, grid: LocalGrid, finished: int = 0, **at_round: Any) -> None:
        self._left = {int(name.removeprefix("round_")): do for name, do in at_round.items()}
        self._push = grid.push_messages
        grid.get_node_ids = self._wrapped(grid.get_node_ids)  # type: ignore[method-assign]
        grid.push_messages = self._noting  # type: ignore[method-assign]
        self._round = finished

    def _noting(self, messages: Any) -> Any:
        messages = list(messages)
        for message in messages:
            number, asks = describe(message.content)
            if "train" in asks and number is not None:
                self._round = max(self._round, number + 1)
        return self._push(messages)

    def _wrapped(self, real: Any) -> Any:
        """Nodes are listed before a round: what is due for the next one is done."""

        def listed() -> Any:
            if do := self._left.pop(self._round + 1, None):
                do()
            return real()

        return listed


def all_hold_the_final_model(federation: Federation, keys: qn.KeyPair, result: Any) -> None:
    model = final(result, keys)
    assert_equal(model, federation.expected())
    for node in federation.grid.get_node_ids():
        held = federation.held(node)
        assert held.state.round == len(federation.last.records)
        assert_equal(dict(held.state.weights), model)


def requests_of(federation: Federation, node: int) -> list[Any]:
    return [
        read_request(exchange.request())
        for exchange in federation.grid.exchanges
        if exchange.node == node
    ]


@pytest.mark.parametrize("missed", [1, 3])
def test_a_client_that_was_away(federation: Federation, keys: qn.KeyPair, missed: int) -> None:
    grid = federation.grid
    Schedule(
        grid,
        round_2=lambda: grid.leave(LATE),
        **{f"round_{2 + missed}": lambda: grid.join(LATE)},
    )
    result = federation.train(5, **NO_EVALUATION)
    all_hold_the_final_model(federation, keys, result)
    took_part = [LATE in federation.counted(r) for r in federation.last.records]
    assert took_part == [True, *[False] * missed, *[True] * (4 - missed)]
    # It still had its state: the sums that it missed, and no model again.
    assert [r.initial for r in requests_of(federation, LATE)].count(True) == 1


@pytest.mark.parametrize("at", ["before", "after"])
def test_a_client_that_is_killed_and_comes_back(
    federation: Federation, keys: qn.KeyPair, at: Any
) -> None:
    kill = federation.grid.inject(Kill(at), node=LATE, round=1, asks="upload", times=9)
    result = federation.train(4, **NO_EVALUATION)
    assert kill.fired
    assert [node for _, _, node, _ in federation.watcher.losses] == [LATE]
    assert LATE not in federation.counted(federation.last.records[1])
    assert LATE in federation.counted(federation.last.records[2])
    all_hold_the_final_model(federation, keys, result)


@pytest.mark.parametrize("snapshots", [True, False], ids=["snapshots", "sums"])
def test_a_client_that_joins_in_mid_training(
    params: qn.Parameters,
    keys: qn.KeyPair,
    key_file: Path,
    tmp_path: Path,
    fast_disk: None,
    snapshots: bool,
) -> None:
    federation = Federation(params, key_file, tmp_path, absent=[LATE])
    Schedule(federation.grid, round_4=lambda: federation.grid.join(LATE))
    result = federation.train(5, snapshot_every=1 if snapshots else 99, **NO_EVALUATION)
    all_hold_the_final_model(federation, keys, result)
    assert [LATE in federation.counted(r) for r in federation.last.records] == [
        *[False] * 3,
        *[True] * 2,
    ]
    caught = [r for r in requests_of(federation, LATE) if r.round == 3 and "train" in r.asks]
    # A snapshot and one sum are fewer bytes than the model and three.
    assert (caught[-1].snapshot is not None, caught[-1].initial) == (snapshots, not snapshots)
    assert len(caught[-1].links) == (1 if snapshots else 3)


def test_the_cheaper_way_is_taken(federation: Federation, keys: qn.KeyPair) -> None:
    """A sum is smaller than the snapshot that is there too: nobody who follows gets one."""
    result = federation.train(4, snapshot_every=1, **NO_EVALUATION)
    all_hold_the_final_model(federation, keys, result)
    for node in NODES:
        caught = [r for r in requests_of(federation, node) if r.round > 1]
        assert caught
        assert [r.snapshot for r in caught] == [None] * len(caught)
        assert [link.round for link in caught[0].links] == [1]


@pytest.mark.parametrize("sums", [True, False], ids=["sums", "another snapshot"])
def test_a_damaged_snapshot(
    params: qn.Parameters,
    keys: qn.KeyPair,
    key_file: Path,
    tmp_path: Path,
    fast_disk: None,
    sums: bool,
) -> None:
    """A client sealed rubbish: the server cannot see it, the client that needs it says so."""
    federation = Federation(params, key_file, tmp_path, absent=[LATE])
    Schedule(federation.grid, round_4=lambda: federation.grid.join(LATE))

    def rubbish(reply: Message) -> Message:
        record = reply.content.array_records["quancrypt-data"]
        if (sealed := record.get("snapshot")) is not None:
            sealed.data = sealed.data[:-40] + bytes(40)
        return reply

    for node in NODES[:4]:
        federation.grid.inject(Replace(rubbish), node=node, round=2)
    if not sums:  # and no room for old sums
        for node in NODES[:4]:
            federation.grid.inject(Replace(rubbish), node=node, round=1)
    limit = 1 << 30 if sums else 1
    result = federation.train(6, snapshot_every=1, history_bytes=limit, **NO_EVALUATION)
    caught = [r for r in requests_of(federation, LATE) if r.round == 3 and "train" in r.asks]
    assert any(r.snapshot and r.snapshot[0] == 2 for r in caught)
    if sums:
        assert caught[-1].snapshot is None or caught[-1].snapshot[0] < 2
        assert LATE in federation.counted(federation.last.records[3])
    else:
        assert LATE not in federation.counted(federation.last.records[3])
        assert LATE in federation.counted(federation.last.records[5])
    all_hold_the_final_model(federation, keys, result)


@pytest.mark.parametrize("loses", ["folder", "held", "half"])
def test_a_client_that_lost_its_state(federation: Federation, keys: qn.KeyPair, loses: str) -> None:
    def lose() -> None:
        for path in federation.state_of(LATE).glob("*/*"):
            if loses == "folder" or path.name == "held":
                if loses == "half":
                    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
                else:
                    path.unlink()

    Schedule(federation.grid, round_3=lose)
    result = federation.train(4, **NO_EVALUATION)
    all_hold_the_final_model(federation, keys, result)
    assert all(record["participants"] == 5 for record in federation.last.records)
    assert any("client-5 catches up, from nothing" in note for note in federation.watcher.notes)


def test_a_context_that_is_lost(params: qn.Parameters, keys: qn.KeyPair, key_file: Path) -> None:
    """A SuperNode that started again, where the state lies in Flower's context."""
    federation = Federation(params, key_file)
    kill = federation.grid.inject(Kill("before", "lost"), node=LATE, round=2, times=1)
    federation.grid.inject(Lose("request"), node=LATE, round=1)
    result = federation.train(5, snapshot_every=2, **NO_EVALUATION)
    assert kill.fired == 1
    assert LATE in federation.counted(federation.last.records[3])
    assert_equal(final(result, keys), federation.expected())


def test_a_state_of_another_training(
    params: qn.Parameters, keys: qn.KeyPair, key_file: Path, tmp_path: Path, fast_disk: None
) -> None:
    """The folders hold another training's state, of more rounds: nothing of it is used."""
    before = Federation(params, key_file, tmp_path)
    before.train(3, smoothing=0.5, **NO_EVALUATION)
    first = {path.name for path in (tmp_path / "client-1").iterdir() if path.is_dir()}
    after = Federation(params, key_file, tmp_path)
    result = after.train(2, **NO_EVALUATION)
    assert after.watcher.refusals == []
    assert_equal(final(result, keys), after.expected())
    there = {path.name for path in (tmp_path / "client-1").iterdir() if path.is_dir()}
    assert there > first


@pytest.mark.parametrize("ahead", [2, 0, -1])
def test_a_state_of_another_branch(
    federation: Federation, keys: qn.KeyPair, tmp_path: Path, ahead: int
) -> None:
    """The server's folder came from a backup: a client holds rounds that never were."""
    server, backup = tmp_path / "server", tmp_path / "backup"
    grid = federation.grid
    federation.train(2, state=server, snapshot_every=99, **NO_EVALUATION)
    shutil.copytree(server, backup)
    grid.leave(11)  # so that the branch differs
    federation.go_on(4, state=server, snapshot_every=99, **NO_EVALUATION)
    grid.leave(LATE)  # it holds round 4 of the branch that is given up
    grid.join(11)
    shutil.rmtree(server)
    shutil.copytree(backup, server)
    join = 4 - ahead + 1
    Schedule(grid, 2, **{f"round_{join}": lambda: grid.join(LATE)})
    result = federation.go_on(6, state=server, snapshot_every=99, **NO_EVALUATION)
    assert LATE in federation.counted(federation.last.records[5])
    all_hold_the_final_model(federation, keys, result)


def test_what_the_server_keeps_is_bounded(
    federation: Federation, keys: qn.KeyPair, tmp_path: Path
) -> None:
    """A limit of three sums: the folder does not grow with the rounds, and latecomers catch up."""
    one = federation.params.upload_bytes(700)
    sizes: list[int] = []

    def measure() -> None:
        kept = [p.stat().st_size for p in (tmp_path / "server").glob("s*-*.bin")]
        sizes.append(sum(kept))

    grid = federation.grid
    steps: dict[str, Any] = {f"round_{t}": measure for t in range(3, 13)}
    steps["round_2"] = lambda: grid.leave(LATE)
    Schedule(grid, **steps)
    options = {"state": tmp_path / "server", "snapshot_every": 4, "history_bytes": 3 * one}
    federation.train(12, **options, **NO_EVALUATION)
    assert max(sizes) < 10 * one
    assert max(sizes[5:]) <= max(sizes[:5]) + one
    grid.join(LATE, None)
    result = federation.go_on(13, **options, **NO_EVALUATION)
    all_hold_the_final_model(federation, keys, result)


def test_sums_lost_on_the_server(federation: Federation, keys: qn.KeyPair, tmp_path: Path) -> None:
    """A sum's file is damaged: who needs it goes another way, who does not is not disturbed."""
    grid, server = federation.grid, tmp_path / "server"
    grid.leave(LATE)
    federation.train(4, state=server, snapshot_every=3, **NO_EVALUATION)
    for path in server.glob("sum-00001.bin"):
        path.write_bytes(bytes(path.stat().st_size))
    grid.join(LATE)
    result = federation.go_on(6, state=server, snapshot_every=3, **NO_EVALUATION)
    assert LATE in federation.counted(federation.last.records[5])
    all_hold_the_final_model(federation, keys, result)


def test_a_failed_round_is_caught_up_with(federation: Federation, keys: qn.KeyPair) -> None:
    """A round without a sum still moves everybody on, those who were away among them."""
    grid = federation.grid
    Schedule(grid, round_2=lambda: grid.leave(LATE), round_4=lambda: grid.join(LATE))
    for node in NODES[:4]:
        grid.inject(Lose("reply"), node=node, round=1)
    result = federation.train(4, **NO_EVALUATION)
    assert list(federation.failed) == [2]
    assert "0 clients answered" in federation.failed[2]
    all_hold_the_final_model(federation, keys, result)


def test_a_client_alone_in_the_wrong_state_is_named(
    federation: Federation, keys: qn.KeyPair
) -> None:
    """One that never gets there says so again and again; the others do not wait for it."""

    def behind(reply: Message) -> Message:
        return header_with(behind=True, held=None, did=[])(reply)

    federation.grid.inject(Replace(behind), node=LATE)
    result = federation.train(2, **NO_EVALUATION)
    assert any("could not reach the model" in r for r in federation.watcher.reasons(LATE))
    assert_equal(final(result, keys), federation.expected())


def test_nothing_is_trained_twice_for_a_round(federation: Federation, keys: qn.KeyPair) -> None:
    """A client that catches up in the middle of a round trains once for it."""
    grid = federation.grid
    Schedule(grid, round_2=lambda: grid.leave(LATE), round_4=lambda: grid.join(LATE))
    federation.train(5, **NO_EVALUATION)
    assert max(federation.trained.values()) == 1


def test_the_history_of_a_memory_only_server_leads_anywhere(
    params: qn.Parameters, keys: qn.KeyPair, key_file: Path, tmp_path: Path, fast_disk: None
) -> None:
    """Without a state folder the server's sums lie in memory, and latecomers use them too."""
    federation = Federation(params, key_file, tmp_path, absent=[LATE])
    Schedule(federation.grid, round_3=lambda: federation.grid.join(LATE))
    result = federation.train(3, **NO_EVALUATION)
    all_hold_the_final_model(federation, keys, result)


def test_the_app_sees_plain_flower(
    params: qn.Parameters, keys: qn.KeyPair, key_file: Path, tmp_path: Path, fast_disk: None
) -> None:
    """What the app is given after a catch-up: the model, its configuration, nothing of ours."""
    seen: list[dict[str, Any]] = []

    def look(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        seen.append({name: type(record).__name__ for name, record in message.content.items()})
        weights = numpy_app.weights_of(message.content.array_records["arrays"])
        assert {name: w.dtype.name for name, w in weights.items()} == {
            "linear.weight": "float32",
            "linear.bias": "float32",
        }
        return call_next(message, context)

    federation = Federation(params, key_file, tmp_path, absent=[LATE], mods={LATE: look})
    Schedule(federation.grid, round_3=lambda: federation.grid.join(LATE))
    federation.train(3, snapshot_every=1)
    assert seen == [{"config": "ConfigRecord", "arrays": "ArrayRecord"}] * len(seen)
    assert len(seen) >= 2


def test_damage_at_rest_is_not_loaded(
    federation: Federation, keys: qn.KeyPair, tmp_path: Path
) -> None:
    """A client's files of a finished training are whole, and what the history says."""
    result = federation.train(2, state=tmp_path / "server", **NO_EVALUATION)
    with History.resume(tmp_path / "server") as history:
        for node in NODES:
            held = federation.held(node)
            assert held.chain == history.chain
            with FolderStore(federation.state_of(node), history.training) as store:
                assert store.pending() is None or store.pending().round == 1  # type: ignore[union-attr]
    assert_equal(final(result, keys), federation.expected())
