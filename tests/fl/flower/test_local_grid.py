"""The in-memory grid against Flower's own FedAvg, and each of its faults."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.serverapp.strategy import FedAvg
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords
from tests.fl.flower import hostile, numpy_app
from tests.fl.flower.fake_clock import FakeClock
from tests.fl.flower.faults import (
    Damage,
    FailAt,
    Hang,
    Kill,
    KillAt,
    Killed,
    Lose,
    Raises,
    Repeat,
    Replace,
    ReplyOf,
    ScriptError,
    killing,
)
from tests.fl.flower.local_grid import LocalGrid, contexts_for
from tests.fl.flower.wire import deflate

NODES = (11, 2**63 + 5, 13)  # a node ID is any uint64


def counting_app() -> ClientApp:
    """An app that counts its messages in the context and replies with bytes and a header."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        record = context.state.get("count")
        count = (record["n"] if isinstance(record, MetricRecord) else 0) + 1
        context.state["count"] = MetricRecord({"n": count})
        Machine.work()
        data = f"{context.node_id} {count} ".encode() * 20
        header = f'{{"round": {count - 1}, "node": {context.node_id}}}'
        return Message(
            RecordDict(
                {
                    "quancrypt": ConfigRecord({"header": header}),
                    "quancrypt-data": ArrayRecord(
                        {
                            "upload": Array("uint8", (len(data),), "quancrypt", data),
                            "numpy": Array(np.frombuffer(data, np.uint8)),
                        }
                    ),
                    "metrics": MetricRecord({"num-examples": 5}),
                }
            ),
            reply_to=message,
        )

    return app


class Machine:
    """Where a test lets the counting app die or fail."""

    @staticmethod
    def work() -> None:
        """Cost no time."""


def ask(grid: LocalGrid, number: int = 0, nodes: tuple[int, ...] = NODES) -> list[str]:
    """Push one message for each node, with a header as the project's messages have it."""
    header = f'{{"round": {number}, "asks": ["train", "upload"]}}'
    content = RecordDict({"quancrypt": ConfigRecord({"header": header})})
    return list(grid.push_messages(Message(content, node, "train") for node in nodes))


def counting_grid(**options: object) -> LocalGrid:
    return LocalGrid(lambda node: counting_app(), NODES, **options)  # type: ignore[arg-type]


def count(grid: LocalGrid, node: int) -> int:
    record = grid.context(node).state.get("count")
    return int(record["n"]) if isinstance(record, MetricRecord) else 0  # type: ignore[arg-type]


def payload(reply: Message, kind: str = "upload") -> bytes:
    array = reply.content.array_records["quancrypt-data"][kind]
    return array.data if kind == "upload" else array.numpy().tobytes()


# Flower's own strategy.


def direct_fedavg(rounds: int, mu: float = 0.0) -> dict[str, np.ndarray]:
    """Compute what FedAvg computes, by calling the training function."""
    weights = numpy_app.weights_of(numpy_app.initial_arrays())
    for number in range(1, rounds + 1):
        contents = []
        for index in range(len(NODES)):
            images, labels, _, _ = numpy_app.partition(index, len(NODES))
            trained, _ = numpy_app.fit(
                weights,
                images,
                labels,
                epochs=1,
                lr=0.5,
                proximal_mu=mu,
                seed=1000 * number + index,
            )
            metrics = MetricRecord({"num-examples": len(labels)})
            contents.append(
                RecordDict({"arrays": numpy_app.arrays_of(trained), "metrics": metrics})
            )
        weights = numpy_app.weights_of(aggregate_arrayrecords(contents, "num-examples"))
    return weights


@pytest.mark.parametrize("compute", ["push", "pull"])
@pytest.mark.parametrize("mu", [0.0, 0.1])
def test_fedavg_learns_as_computed_by_hand(compute: str, mu: float) -> None:
    grid = LocalGrid(lambda node: numpy_app.make_app(), NODES, compute=compute, order=NODES)  # type: ignore[arg-type]
    result = FedAvg().start(
        grid,
        numpy_app.initial_arrays(),
        num_rounds=3,
        train_config=ConfigRecord({"proximal-mu": mu}),
    )
    for name, expected in direct_fedavg(3, mu).items():
        np.testing.assert_array_equal(result.arrays[name].numpy(), expected)
    accuracy = [float(m["eval_acc"]) for m in result.evaluate_metrics_clientapp.values()]  # type: ignore[arg-type]
    assert accuracy[0] < 0.85 < accuracy[-1]
    assert len(grid.exchanges) == 3 * 3 * 2
    assert [e.round for e in grid.exchanges[::6]] == [1, 2, 3]


def test_fedprox_pulls_towards_the_global_model() -> None:
    free, held = direct_fedavg(1), direct_fedavg(1, mu=1.0)
    assert np.linalg.norm(held["linear.weight"]) < np.linalg.norm(free["linear.weight"])


def test_fedavg_goes_on_without_a_client_that_raises() -> None:
    grid = LocalGrid(lambda node: numpy_app.make_app(), NODES)
    fault = grid.inject(Raises(), node=13, round=2, message_type="train")
    result = FedAvg().start(grid, numpy_app.initial_arrays(), num_rounds=3)
    assert fault.fired == 1
    assert len(result.train_metrics_clientapp) == 3


def test_fedavg_with_a_client_that_hangs_takes_no_real_time() -> None:
    clock = FakeClock()
    grid = LocalGrid(lambda node: numpy_app.make_app(), NODES, clock=clock)
    grid.inject(Hang(), node=11, round=1, message_type="train")
    result = FedAvg().start(grid, numpy_app.initial_arrays(), num_rounds=2, timeout=600)
    assert 600 <= clock.now - 1000 < 610
    assert len(result.train_metrics_clientapp) == 2


def test_arrays_arrive_as_copies() -> None:
    """What the app does to its message's arrays does not reach the server's."""
    seen: list[np.ndarray] = []
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        record = message.content["a"]
        assert isinstance(record, ArrayRecord)
        seen.append(record["x"].numpy())
        del record["x"]
        return Message(RecordDict(), reply_to=message)

    grid = LocalGrid({11: app}, [11])
    arrays = ArrayRecord({"x": ArrayRecord([np.arange(5)])["0"]})
    content = RecordDict({"a": arrays})
    grid.push_messages([Message(content, 11, "train")])
    assert list(arrays) == ["x"]
    np.testing.assert_array_equal(seen[0], np.arange(5))


def test_bytes_are_those_of_the_serialized_objects() -> None:
    grid = counting_grid()
    message = Message(RecordDict({"c": ConfigRecord({"x": b"\x01" * 1000})}), 11, "train")
    (message_id,) = grid.push_messages([message])
    (reply,) = grid.pull_messages([message_id])
    assert grid.nbytes("down", 11) == sum(map(len, deflate(message).values())) > 1000
    assert grid.nbytes("up", 11) == sum(map(len, deflate(reply).values())) == grid.nbytes("up")
    assert grid.nbytes("down", 13) == 0
    assert b"\x01" * 1000 in b"".join(grid.wire("down"))
    assert payload(reply) in b"".join(grid.wire("up"))


# When replies come, and in which order.


@pytest.mark.parametrize("compute", ["push", "pull"])
def test_order_and_replies_per_pull(compute: str) -> None:
    grid = counting_grid(compute=compute, order=(13, 11), per_pull=1)
    ids = ask(grid)
    nodes = [[r.metadata.src_node_id for r in grid.pull_messages(ids_left(grid, ids))] for _ in ids]
    assert nodes == [[13], [11], [2**63 + 5]]


def ids_left(grid: LocalGrid, ids: list[str]) -> list[str]:
    return [i for i in ids if any(e.message_id == i for e in grid._open.values())]


def test_random_order_is_that_of_its_seed() -> None:
    def order(seed: int) -> list[int]:
        grid = counting_grid(order=random.Random(seed))
        return [reply.metadata.src_node_id for reply in grid.pull_messages(ask(grid))]

    assert order(1) == order(1)
    assert len({tuple(order(seed)) for seed in range(8)}) > 1


def test_lazy_clients_work_when_they_are_asked_for() -> None:
    grid = counting_grid(compute="pull")
    ids = ask(grid)
    assert count(grid, 11) == 0
    list(grid.pull_messages(ids[:1]))
    assert [count(grid, node) for node in NODES] == [1, 0, 0]


def test_replies_take_the_seconds_of_their_node() -> None:
    clock = FakeClock()
    grid = counting_grid(clock=clock, seconds={11: 5.0, 13: 20.0})
    ids = ask(grid)
    assert [r.metadata.src_node_id for r in grid.pull_messages(ids)] == [NODES[1]]
    clock.advance(5)
    assert [r.metadata.src_node_id for r in grid.pull_messages([ids[0], ids[2]])] == [11]
    clock.advance(14.5)
    assert list(grid.pull_messages([ids[2]])) == []
    clock.advance(0.5)
    assert len(list(grid.pull_messages([ids[2]]))) == 1


def test_a_reply_is_delivered_once() -> None:
    grid = counting_grid()
    ids = ask(grid)
    assert all(reply.has_content() for reply in grid.pull_messages(ids))
    again = list(grid.pull_messages([*ids, "0" * 64]))
    assert [reply.error.code for reply in again] == [ErrorCode.MESSAGE_UNAVAILABLE] * 4
    assert {reply.metadata.reply_to_message_id for reply in again} == {*ids, "0" * 64}
    assert {reply.metadata.src_node_id for reply in again} == {SUPERLINK_NODE_ID}


# Nodes and runs.


def test_nodes_leave_and_join() -> None:
    grid = counting_grid()
    ids = ask(grid)
    grid.leave(13)
    assert [node.node_id for node in grid.get_nodes()] == [11, 2**63 + 5]
    replies = {r.metadata.reply_to_message_id: r for r in grid.pull_messages(ids)}
    assert replies[ids[2]].error.code == ErrorCode.NODE_UNAVAILABLE
    assert ask(grid, 1, (13,)) == [None]
    grid.join(13)
    grid.join(17)
    assert list(grid.get_node_ids()) == [11, 2**63 + 5, 13, 17]
    assert len(list(grid.pull_messages(ask(grid, 1, (13, 17))))) == 2
    assert (count(grid, 13), count(grid, 17)) == (2, 1)


def test_a_new_run_forgets_messages_and_contexts() -> None:
    grid = counting_grid()
    ids = ask(grid)
    grid.new_run()
    assert all(reply.has_error() for reply in grid.pull_messages(ids))
    assert count(grid, 11) == 0
    replies = list(grid.pull_messages(ask(grid)))
    assert {reply.metadata.run_id for reply in replies} == {8}
    grid.new_run(keep_contexts=True)
    assert count(grid, 11) == 1


def test_contexts_have_their_own_node_configuration() -> None:
    contexts = contexts_for(NODES, node_config=lambda i, n: {"quancrypt-name": f"site {i}"})
    assert contexts[13].node_config == {
        "partition-id": 2,
        "num-partitions": 3,
        "quancrypt-name": "site 2",
    }


# Faults on the client's side.


def test_an_exception_is_an_error_reply_and_what_the_app_stored_stays() -> None:
    grid = counting_grid()
    grid.inject(Raises(ValueError("no data"), at="after"), node=11)
    reply = next(iter(grid.pull_messages(ask(grid, nodes=(11,)))))
    assert reply.error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    assert reply.error.reason == "<class 'ValueError'>:<'no data'>"
    assert reply.metadata.src_node_id == 11
    assert count(grid, 11) == 1


@pytest.mark.parametrize("at", ["before", "after"])
@pytest.mark.parametrize("context", ["lost", "kept"])
def test_a_killed_client_answers_nothing(at: str, context: str) -> None:
    grid = counting_grid()
    list(grid.pull_messages(ask(grid)))
    grid.inject(Kill(at, context), node=13, nth=2)  # type: ignore[arg-type]
    replies = list(grid.pull_messages(ask(grid, 1)))
    assert [reply.metadata.src_node_id for reply in replies] == list(NODES[:2])
    assert [count(grid, node) for node in NODES] == [2, 2, 0 if context == "lost" else 1]
    assert len(list(grid.pull_messages(ask(grid, 2)))) == 3


@pytest.mark.parametrize("compute", ["push", "pull"])
def test_a_killed_node_that_does_not_come_back_is_unavailable(compute: str) -> None:
    grid = counting_grid(compute=compute)
    grid.inject(Kill("after", comes_back=False), node=11, times=1)
    ids = ask(grid)
    list(grid.pull_messages(ids[1:]))
    replies = [reply for _ in range(2) for reply in grid.pull_messages(ids[:1])][:1]
    assert replies[0].error.code == ErrorCode.NODE_UNAVAILABLE
    grid.join(11)
    assert [r.metadata.src_node_id for r in grid.pull_messages(ask(grid, 1, (11,)))] == [11]


def test_a_client_dies_inside_its_app() -> None:
    grid = counting_grid()
    grid.inject(KillAt(Machine, "work", at="after"), node=11, times=1)
    assert len(list(grid.pull_messages(ask(grid)))) == 2
    assert count(grid, 11) == 0
    grid.inject(FailAt(Machine, "work", OSError(28, "No space left on device")), node=13)
    errors = [r.error.reason for r in grid.pull_messages(ask(grid)) if r.has_error()]
    assert errors == ["<class 'OSError'>:<'[Errno 28] No space left on device'>"]


def test_a_death_that_does_not_happen_is_an_error_of_the_test() -> None:
    grid = counting_grid()
    grid.inject(KillAt(np, "linspace"), node=11)
    with pytest.raises(ScriptError, match="called it 0 times"):
        ask(grid)


def test_killing_a_server_at_a_call() -> None:
    grid = counting_grid()
    ids = ask(grid)
    with killing(grid, "pull_messages", call=2) as calls:
        assert len(list(grid.pull_messages(ids[:1]))) == 1
        with pytest.raises(Killed):
            grid.pull_messages(ids[1:])
    assert calls == [2]
    assert len(list(grid.pull_messages(ids[1:]))) == 2
    assert not issubclass(Killed, Exception)


def test_a_late_reply_comes_in_a_later_pull() -> None:
    grid = counting_grid()
    fault = grid.inject(Hang(pulls=2), node=13, asks="upload")
    ids = ask(grid)
    assert len(list(grid.pull_messages(ids))) == 2
    assert count(grid, 13) == 1
    assert list(grid.pull_messages(ids[2:])) == []
    assert [r.metadata.src_node_id for r in grid.pull_messages(ids[2:])] == [13]
    assert fault.fired == 1


def test_late_by_the_clock() -> None:
    clock = FakeClock()
    grid = counting_grid(clock=clock)
    grid.inject(Hang(seconds=100), node=13)
    ids = ask(grid)
    assert len(list(grid.pull_messages(ids))) == 2
    clock.advance(100)
    assert len(list(grid.pull_messages(ids[2:]))) == 1


@pytest.mark.parametrize(("what", "done"), [("request", 0), ("reply", 1)])
def test_lost_messages(what: str, done: int) -> None:
    grid = counting_grid()
    grid.inject(Lose(what), node=11)  # type: ignore[arg-type]
    ids = ask(grid)
    assert len(list(grid.pull_messages(ids))) == 2
    assert list(grid.pull_messages(ids[:1])) == []
    assert count(grid, 11) == done


def test_a_lost_reply_without_a_time_out_is_reported() -> None:
    grid = counting_grid()
    grid.inject(Lose(), node=11)
    message = Message(RecordDict(), 11, "train")
    with pytest.raises(TimeoutError, match="1 replies never come"):
        grid.send_and_receive([message])


def test_repeated_replies() -> None:
    grid = counting_grid()
    grid.inject(Repeat(), node=11, times=1)
    replies = [payload(r) for r in grid.pull_messages(ask(grid, nodes=(11,)))]
    assert replies[0] == replies[1]

    grid.inject(Repeat("later"), node=13, times=1)
    (first,) = grid.pull_messages(ask(grid, nodes=(13,)))
    replies = list(grid.pull_messages(ask(grid, nodes=(11,))))
    assert {r.metadata.message_id for r in replies} >= {first.metadata.message_id}

    grid.inject(Repeat("rerun"), node=NODES[1], times=1)
    replies = [payload(r) for r in grid.pull_messages(ask(grid, nodes=(NODES[1],)))]
    assert replies[0] != replies[1]
    assert count(grid, NODES[1]) == 2


def test_a_broken_connection() -> None:
    grid = counting_grid()
    ids = ask(grid)
    grid.break_connection("pull_messages", ConnectionError("reset by peer"))
    with pytest.raises(ConnectionError, match="reset"):
        grid.pull_messages(ids)
    assert len(list(grid.pull_messages(ids))) == 3


def test_faults_that_met_nothing_are_listed() -> None:
    grid = counting_grid()
    never = grid.inject(Raises(), node=11, round=99)
    grid.inject(Hang(), node=13, round=0)
    ask(grid)
    assert grid.unfired() == [never]


# Hostile replies.

EDITS: dict[str, hostile.MessageEdit] = {
    "random_payload": hostile.random_payload(),
    "truncated_payload": hostile.truncated_payload(),
    "extended_payload": hostile.extended_payload(),
    "flipped_bit": hostile.flipped_bit(),
    "huge_counts": hostile.huge_counts(),
    "empty_payload": hostile.empty_payload(),
    "huge_shape": hostile.huge_shape(),
    "pickled_array": hostile.pickled_array(),
    "not_an_array": hostile.not_an_array(),
    "other_stype": hostile.other_stype(),
    "lying_shape": hostile.lying_shape(),
    "float_arrays": hostile.float_arrays(),
    "many_arrays": hostile.many_arrays(),
    "huge_header": hostile.huge_header(),
    "deep_header": hostile.deep_header(),
    "broken_header": hostile.broken_header(),
    "without_records": hostile.without_records(),
    "other_kinds": hostile.other_kinds(),
    "long_error": hostile.long_error(),
}


@pytest.mark.parametrize("name", EDITS)
def test_hostile_replies_arrive_and_differ_from_the_honest_one(name: str) -> None:
    grid = counting_grid()
    grid.inject(Replace(EDITS[name]), node=11)
    ids = ask(grid)
    replies = {r.metadata.src_node_id: r for r in grid.pull_messages(ids)}
    assert set(replies) == set(NODES)
    honest = grid.reply_content(11, 0, ("train", "upload"))
    changed = replies[11]
    assert changed.metadata.reply_to_message_id == ids[0]
    assert changed.has_error() or changed.content.object_id != honest.object_id
    assert payload(replies[13]).startswith(b"13 1 ")


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (hostile.truncated_payload(0.25), lambda data: data[: len(data) // 4]),
        (hostile.extended_payload(3), lambda data: data + b"\0\0\0"),
        (hostile.empty_payload(), lambda data: b""),
        (hostile.huge_counts(8, 4), lambda data: data[:8] + b"\xff" * 4 + data[12:]),
    ],
)
def test_payloads_are_changed_in_either_serialization(
    edit: hostile.MessageEdit, expected: Callable[[bytes], bytes]
) -> None:
    grid = counting_grid()
    grid.inject(Replace(edit))
    (reply,) = grid.pull_messages(ask(grid, nodes=(11,)))
    honest = b"11 1 " * 20
    assert payload(reply) == payload(reply, "numpy") == expected(honest)


def test_hostile_arrays_do_not_load() -> None:
    for name in ("huge_shape", "pickled_array", "not_an_array", "other_stype"):
        grid = counting_grid()
        grid.inject(Replace(EDITS[name]))
        (reply,) = grid.pull_messages(ask(grid, nodes=(11,)))
        with pytest.raises((ValueError, TypeError, MemoryError, EOFError)):
            payload(reply, "numpy")


def test_header_fields_and_metrics_are_changed() -> None:
    grid = counting_grid()
    grid.inject(Replace(hostile.header_with(round=7)), nth=1)
    grid.inject(Replace(hostile.header_without("round")), nth=2)
    grid.inject(Replace(hostile.metrics_with({"num-examples": -5})), nth=3)
    replies = [next(iter(grid.pull_messages(ask(grid, i, (11,))))) for i in range(3)]
    assert replies[0].content["quancrypt"] == {"header": '{"round": 7, "node": 11}'}
    assert replies[1].content["quancrypt"] == {"header": '{"node": 11}'}
    assert replies[2].content["metrics"] == {"num-examples": -5}


def test_replayed_and_swapped_replies() -> None:
    grid = counting_grid()
    list(grid.pull_messages(ask(grid, 0)))
    grid.inject(ReplyOf(round=0), node=13, round=1)
    grid.inject(ReplyOf(node=11), node=13, round=2)
    for expected in (b"13 1 ", b"11 3 "):
        replies = list(grid.pull_messages(ask(grid, 1 if expected == b"13 1 " else 2)))
        assert payload(replies[2]).startswith(expected)
        assert replies[2].metadata.src_node_id == 13


@pytest.mark.parametrize("kind", ["RecordDict", "ArrayRecord", "Array", "ConfigRecord"])
def test_objects_that_do_not_inflate_raise_out_of_the_pull(kind: str) -> None:
    """As in Flower 1.41: one client's reply takes the whole pull with it."""
    grid = counting_grid()
    fault = grid.inject(Damage(hostile.unreadable(kind)), node=11)
    ids = ask(grid)
    with pytest.raises(Exception) as raised:  # noqa: PT011  Flower's choice: JSON, protobuf, ...
        grid.pull_messages(ids)
    assert not isinstance(raised.value, ScriptError | LookupError)
    assert fault.fired == 1
    assert all(reply.has_error() for reply in grid.pull_messages(ids))
    ids = ask(grid, 1)
    with pytest.raises(type(raised.value)):
        grid.pull_messages(ids[:1])
    assert all(reply.has_content() for reply in grid.pull_messages(ids[1:]))


def test_objects_that_the_superlink_refuses_are_an_error_reply() -> None:
    grid = counting_grid()
    grid.inject(Damage(hostile.refused()), node=11)
    ids = ask(grid)
    replies = list(grid.pull_messages(ids))
    assert [reply.has_error() for reply in replies] == [True, False, False]
    assert replies[0].error.code == ErrorCode.MESSAGE_UNAVAILABLE
    assert replies[0].metadata.reply_to_message_id == ids[0]
