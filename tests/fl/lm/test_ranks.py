"""Clients with smaller ranks train a corner of what is shared; the aggregate stays exact."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from quancrypt_fl.lm.config import FinetuneConfig
from quancrypt_fl.lm.rank_list import parse_ranks
from quancrypt_fl.lm.ranks import RankedClients
from quancrypt_fl.lm.run import Finetuning

Make = Callable[..., FinetuneConfig]

B = "layer.lora_B.weight"
R = "layer.lora_R.weight"
HEAD = "classifier.weight"


def test_a_client_works_with_its_leading_part_and_gives_back_the_rest_as_it_was() -> None:
    clients = RankedClients((3, 1))
    weights = {name: np.full((3, 3), 2.0, np.float32) for name in (B, R, HEAD)}
    taken = clients.taken(weights, 1)
    assert taken[B].tolist() == [[2, 0, 0]] * 3
    assert taken[R].tolist() == [[2, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert taken[HEAD].tolist() == [[2, 2, 2]] * 3
    given = clients.given_back({name: 0 * t + 5 for name, t in taken.items()}, weights, 1)
    assert given[B].tolist() == [[5, 2, 2]] * 3
    assert given[R].tolist() == [[5, 2, 2], [2, 2, 2], [2, 2, 2]]
    assert given[HEAD].tolist() == [[5, 5, 5]] * 3
    assert clients.taken(weights, 2)[B].tolist() == [[2, 2, 2]] * 3, "ranks begin again"
    assert all(tensor.dtype == np.float32 for tensor in (*taken.values(), *given.values()))


def test_gradients_reach_a_clients_part_only_while_it_trains() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2, 3))
    with RankedClients((1,)).training({B: parameter}, 0):
        parameter.sum().backward()
        assert parameter.grad is not None
        assert parameter.grad.tolist() == [[1, 0, 0], [1, 0, 0]]
    parameter.grad = None
    parameter.sum().backward()
    assert parameter.grad.tolist() == [[1, 1, 1], [1, 1, 1]]


@pytest.mark.parametrize("mode", ["ffa", "sb"])
def test_ranks_of_clients_leave_the_aggregate_exact(causal: Make, mode: str) -> None:
    choices = {"mode": mode, "rank": 4, "client_ranks": "4,2,4,1", "clients": 4, "rounds": 2}
    encrypted = Finetuning(causal(**choices))
    before = {name: tensor.copy() for name, tensor in encrypted.task.weights.items()}
    results = encrypted.run()
    plain = Finetuning(causal(**choices, encryption=False))
    plain.run()
    for name, tensor in encrypted.model.items():
        np.testing.assert_array_equal(tensor, plain.model[name])
    assert max(record["lora_error"] for record in results["rounds"]) < 1e-12
    moved = [
        np.abs(tensor - before[name]).sum(axis=0)
        for name, tensor in encrypted.model.items()
        if ".lora_" in name
    ]
    assert all((columns > 0).all() for columns in moved), "two clients have the full rank"


@pytest.mark.parametrize("mode", ["ffa", "sb"])
def test_what_no_client_has_the_rank_for_stays_as_it_was(causal: Make, mode: str) -> None:
    run = Finetuning(causal(mode=mode, rank=4, client_ranks="2", rounds=2))
    run.run()
    for name, tensor in run.model.items():
        if ".lora_" in name:
            assert not tensor[:, 2:].any()
            assert tensor[:, :2].any()


def test_clients_of_the_full_rank_train_as_without_ranks(causal: Make) -> None:
    full = Finetuning(causal(mode="ffa", rank=4, alpha=8.0, client_ranks="4,4", rounds=1))
    none = Finetuning(causal(mode="ffa", rank=4, alpha=8.0, rounds=1))
    full.run()
    none.run()
    for name, tensor in none.model.items():
        np.testing.assert_array_equal(full.model[name], tensor)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"client_ranks": "8,x"}, "client_ranks = '8,x'; allowed: whole numbers from 1 on"),
        ({"client_ranks": "0"}, "whole numbers from 1 on"),
        ({"client_ranks": ""}, "whole numbers from 1 on"),
        ({"client_ranks": "8,4,2", "rank": 8}, "gives the largest rank, 8, to 1 of 3 clients"),
        ({"client_ranks": "8,4,8", "rank": 8, "min_arrivals": 3}, "allowed: 3 or more of it"),
        ({"client_ranks": "8", "rank": 8, "participation": 0.7}, "participation = 0.7"),
        ({"client_ranks": "9,2", "rank": 8}, "client_ranks = '9,2' is above rank = 8"),
        ({"client_ranks": "2", "mode": "both"}, "client_ranks with mode = 'both'"),
        ({"client_ranks": "2", "mode": "alternate"}, "allowed: ffa, sb"),
    ],
)
def test_ranks_that_cannot_be_are_refused(
    causal: Make, choices: dict[str, object], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        causal(**choices)


def test_ranks_are_numbers_with_commas() -> None:
    assert parse_ranks("8, 4,2") == (8, 4, 2)
