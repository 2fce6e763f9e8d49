"""Tensors that take turns, as in an adapter's mode ``alternate``, through Flower's messages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.fl.flower.faults import Lose
from tests.fl.flower.federation import NO_EVALUATION, NODES, Federation, assert_equal, final
from tests.fl.flower.joint_federation import JointFederation
from tests.fl.flower.test_catch_up import Schedule
from tests.fl.flower.test_joint_oracle import as_it_is, lying, noise, said

import quancrypt_native as qn
from quancrypt_fl.errors import ConfigError, FederatedError
from quancrypt_fl.flower import QuanCryptStrategy
from quancrypt_fl.flower.chain import agreed_facts
from quancrypt_fl.method.agreement import Agreement

WEIGHT, BIAS = "linear.weight", "linear.bias"
TURNS = ((WEIGHT,), (BIAS,))
ROUNDS = 4
LATE = NODES[-1]


def asks(federation: Federation, round: int) -> list[tuple[str, ...]]:
    """What clients were asked for in a round, counted from 1."""
    return sorted({e.asks for e in federation.grid.exchanges if e.round == round - 1} - {()})


def test_each_turn_agrees_on_bounds_once(federation: Federation, keys: qn.KeyPair) -> None:
    result = federation.train(ROUNDS, turns=TURNS)
    assert_equal(final(result, keys), federation.expected(turns=TURNS))
    for first in (1, 2):  # of each tensor
        assert ("train", "report") in asks(federation, first)
    for later in (3, 4):
        assert asks(federation, later) == [("train", "upload")]
    uploads = [record["bytes"]["upload"] for record in federation.last.records]
    assert uploads[3] < uploads[2]  # ten values, and 640


def test_a_failed_turn_is_agreed_on_later(federation: Federation, keys: qn.KeyPair) -> None:
    """Round 2 has no sum, so the first bounds of the bias are those of round 4."""
    federation.grid.inject(Lose(), round=1, asks="report")
    federation.grid.inject(Lose(), round=1, asks="upload")
    result = federation.train(ROUNDS, turns=TURNS)
    assert list(federation.failed) == [2]
    assert_equal(final(result, keys), federation.expected(turns=TURNS))
    assert ("train", "report") in asks(federation, 4)
    assert federation.held(NODES[0]).state.bounds is not None


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
    result = federation.train(ROUNDS, turns=TURNS, snapshot_every=1 if snapshots else 99)
    assert LATE in federation.counted(federation.last.records[-1])
    assert_equal(final(result, keys), federation.expected(turns=TURNS))
    late, other = (federation.held(node).state for node in (LATE, NODES[0]))
    assert set(late.bounds or {}) == {WEIGHT, BIAS}
    assert late.bounds == other.bounds


@pytest.mark.parametrize("what", [["reports"], ["updates"], ["reports", "updates"]], ids=str)
@pytest.mark.parametrize("turns", [TURNS, ((BIAS, WEIGHT), (BIAS,))], ids=["apart", "within"])
def test_replies_do_not_tell_whether_a_sum_opens(
    params: qn.Parameters,
    key_file: Path,
    tmp_path: Path,
    fast_disk: None,
    turns: Any,
    what: list[str],
) -> None:
    """Bounds that a client lacks because a sum did not open are nothing that a server hears of."""
    heard = []
    for name, spoil in {"opens": as_it_is, "does not": noise}.items():
        federation = Federation(params, key_file, tmp_path / name)
        with pytest.MonkeyPatch.context() as patch:
            lying(patch, spoil, *what)
            federation.train(3, turns=turns, snapshot_every=1, **NO_EVALUATION)
        heard.append(said(federation))
        assert federation.watcher.refusals == []
        assert federation.failed == {}
    assert heard[0] == heard[1]


def test_under_a_joint_key(joint_federation: JointFederation) -> None:
    joint_federation.train(3, turns=TURNS)
    assert joint_federation.failed == {}
    expected = joint_federation.expected(turns=TURNS)
    for node in NODES:
        assert_equal(dict(joint_federation.held(node).state.weights), expected)


def test_a_server_cannot_have_another_turn_trained(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The round that the app is told is that of the chain id, or the client trains nothing."""
    push = federation.grid.push_messages

    def out_of_turn(messages: Any) -> Any:
        messages = list(messages)
        for message in messages:
            message.content.config_records["config"]["server-round"] = 2
        return push(messages)

    monkeypatch.setattr(federation.grid, "push_messages", out_of_turn)
    with pytest.raises(FederatedError, match="no round succeeded"):
        federation.train(1, turns=TURNS)
    assert federation.trained == {}
    assert "server-round = 2 after 0 rounds" in federation.watcher.reasons(LATE)[0]


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([["linear.weights"]], "turns name 'linear.weights', which is none of the model's 2"),
        ([[]], "at least 1 item"),
    ],
)
def test_turns_are_of_the_models_tensors(federation: Federation, turns: Any, message: str) -> None:
    with pytest.raises((ConfigError, FederatedError), match=message):
        federation.train(1, turns=turns)


def test_without_turns_nothing_is_said_of_them(params: qn.Parameters) -> None:
    """Trainings that began before there were turns go on."""
    plain, turned = (
        Agreement(bits=8, max_weight=4, turns=turns) for turns in ((), ((WEIGHT,), (BIAS,)))
    )
    assert "turns" not in agreed_facts(plain, "")["agreement"]
    assert agreed_facts(turned, "")["agreement"]["turns"] == [[WEIGHT], [BIAS]]
    again = Agreement.model_validate_json(turned.model_dump_json())
    assert again == turned
    assert QuanCryptStrategy(params, turns=[{BIAS, WEIGHT}]).agreement.turns == ((BIAS, WEIGHT),)
