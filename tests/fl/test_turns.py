"""Tensors that travel in turn: what is sent, what stays, and what is agreed on when."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.fl.fakes import FakeClient, FakeFederation

from quancrypt_fl import QuanCryptConfig
from quancrypt_fl.engines.arrangements import arrange
from quancrypt_fl.method.quancrypt import QuanCrypt
from quancrypt_fl.method.roles import GlobalState

SHAPES = {"head": (3,), "a": (4, 5), "b": (6, 2)}
TURNS = (frozenset({"head", "b"}), frozenset({"head", "a"}))
IN_TURN = (["head", "b"], ["head", "a"])


def tensors(seed: int, size: float) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {n: np.float32(size * rng.standard_normal(s)) for n, s in SHAPES.items()}


def in_turn(clients: int = 3, **choices: Any) -> FakeFederation:
    config = QuanCryptConfig(clients=clients, **{"pruning": False, **choices}).resolved()
    weights = tensors(0, 1.0)
    parties = arrange(config, weights, TURNS)
    made = [FakeClient(i, parties.sides(i), tensors(i + 1, 0.1), i + 1) for i in range(clients)]
    return FakeFederation(parties, made, GlobalState(0, weights))


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"pruning": True, "p_0": 0.4},
        {"error_feedback": True, "bits": 4},
        {"update": "weights"},
        {"mask": "client", "pruning": True},
        {"dp": "discrete-gaussian", "bits": 12, "rounds": 2, "dp_epsilon": 100.0},
        {"method": "vanilla"},
    ],
    ids=str,
)
def test_what_does_not_travel_stays(choices: dict[str, Any]) -> None:
    federation = in_turn(**choices)
    for t in range(4):
        before = federation.state.weights
        federation.round()
        changed = [n for n in SHAPES if federation.state.weights[n] is not before[n]]
        assert changed == IN_TURN[t % 2]
        assert all((federation.state.weights[n] != before[n]).any() for n in changed)


@pytest.mark.parametrize("choices", [{}, {"error_feedback": True}, {"rounding": "stochastic"}])
def test_encrypted_turns_are_those_of_plain_integers(choices: dict[str, Any]) -> None:
    encrypted, plain = (in_turn(**choices, encryption=e) for e in (True, False))
    for _ in range(4):
        encrypted.round()
        plain.round()
        assert encrypted.state.bounds == plain.state.bounds
        for name, tensor in encrypted.state.weights.items():
            np.testing.assert_array_equal(tensor, plain.state.weights[name])


def test_bounds_are_agreed_on_before_a_first_turn_and_kept_in_between() -> None:
    federation, reports = in_turn(), []
    known = []
    for _ in range(4):
        meter = federation.round()
        reports.append(meter.bytes_per_client["download"])
        known.append(dict(federation.state.bounds or {}))
    assert [set(bounds) for bounds in known] == [{"head", "b"}, *[set(SHAPES)] * 3]
    assert reports[0] > reports[2]
    assert reports[1] > reports[3]
    assert known[1]["b"] == known[0]["b"]  # as the clients' last statistics of it set it


def test_the_layout_is_that_of_the_round() -> None:
    method = in_turn().parties.method
    assert isinstance(method, QuanCrypt)
    for t in range(4):
        *sent, statistics = method.upload_layout(SHAPES, t)
        assert sent == IN_TURN[t % 2]
        assert method.upload_layout(SHAPES, t)[statistics][0][0] == len(sent)
        assert method.at(t).report_layout()[statistics][0][0] == len(sent)
    state = GlobalState(1, tensors(0, 1.0))
    assert list(method.masks(state)) == IN_TURN[1]
    assert list(method.masks(replace(state, round=2))) == IN_TURN[0]


def test_what_was_left_out_waits_for_the_tensor_to_travel() -> None:
    federation = in_turn(error_feedback=True, bits=2)
    federation.round()
    left = dict(federation.clients[0].memory.residual)
    assert set(left) == {"head", "b"}
    federation.round()
    after = federation.clients[0].memory.residual
    assert set(after) == set(SHAPES)
    np.testing.assert_array_equal(after["b"], left["b"])
    assert (after["head"] != left["head"]).any()


def test_the_global_model_is_pruned_where_it_travelled() -> None:
    federation = in_turn(pruning=True, p_0=0.5, p_target=0.5, prune_global=True)
    before = federation.state.weights
    federation.round()
    after = federation.state.weights
    np.testing.assert_array_equal(after["a"], before["a"])
    assert (after["b"] == 0).sum() == 6
