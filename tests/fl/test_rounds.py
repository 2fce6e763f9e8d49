"""Encryption costs no accuracy: every round equals that of the same method in the clear."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tests.fl.reference import Recorder, Reference, assert_same_tensors, recorded
from tests.fl.small_nets import batch_norm_net
from torch import nn

from quancrypt_fl import QuanCryptConfig, Simulation
from quancrypt_fl.models import MODELS
from quancrypt_fl.seeds import derive_seed

TinyConfig = Callable[..., QuanCryptConfig]
FEW = {"max_train_samples": 200, "max_test_samples": 50}

COMBINATIONS: list[dict[str, Any]] = [
    {},
    {"bits": 2, "error_feedback": True},
    {"bits": 3, "mask": "client", "p_0": 0.5},
    {"bits": 5, "partition": "dirichlet", "dirichlet_alpha": 0.3},
    {"bits": 16, "pruning": False},
    {"bits": 12, "error_feedback": True, "mask": "client", "dropout": 0.4},
    {"bits": 4, "error_feedback": True, "p_0": 0.6, "p_target": 0.8, "participation": 0.5},
    {"update": "weights"},
    {"update": "weights", "mask": "client", "bits": 10, "smoothing": 0.5},
    {"update": "weights", "weighting": "prescaled", "partition": "dirichlet", "dropout": 0.3},
    {"participation": 0.5, "weighting": "uniform", "partition": "shards"},
    {"dropout": 0.5, "weighting": "prescaled", "partition": "dirichlet"},
    {"dropout": 0.9, "seed": 3},
    {"prune_global": True, "p_0": 0.3},
    {"prune_global": True, "mask": "client", "smoothing": 0.7, "error_feedback": True},
    {"smoothing": 0.25, "p_0": 0.1, "p_target": 0.7, "t_eff": 0, "t_target": 2},
    {"clip_factor": 1.0, "max_weight": 1000, "partition": "dirichlet"},
    {"max_bound": 1e-3, "bits": 6, "error_feedback": True},
    {"clients": 1},
    {"patience": 1},
]


def compare_with_reference(config: QuanCryptConfig) -> None:
    simulation, _, encrypted = recorded(config)
    reference = Reference(Simulation(config))
    for t, state in enumerate(encrypted.states):
        reference.round(t)
        assert_same_tensors(reference.weights, state.weights)
        assert reference.bounds == state.bounds
        for client, residual in encrypted.residuals[t].items():
            assert_same_tensors(reference.residual.get(client, {}), residual)
    for client in simulation._clients:
        assert_same_tensors(reference.buffers.get(client.index, {}), client.memory.buffers)


def compare_with_plain(config: QuanCryptConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    _, with_encryption, encrypted = recorded(config)
    _, without, plain = recorded(config.model_copy(update={"encryption": False}))
    assert len(encrypted.states) == len(plain.states)
    for one, two in zip(encrypted.states, plain.states, strict=True):
        assert_same_tensors(one.weights, two.weights)
        assert one.bounds == two.bounds
    for left, right in zip(encrypted.residuals, plain.residuals, strict=True):
        for client, residual in left.items():
            assert_same_tensors(residual, right[client])
    for one_round, other in zip(with_encryption["rounds"], without["rounds"], strict=True):
        for field in ("test_accuracy", "test_loss", "train_loss", "participants", "lost"):
            assert one_round[field] == other[field]
    assert with_encryption["receipt"]["protected"] is True
    assert without["receipt"]["protected"] is False
    return with_encryption, without


@pytest.mark.parametrize("choices", COMBINATIONS, ids=str)
def test_a_round_is_the_same_in_numpy(tiny: TinyConfig, choices: dict[str, Any]) -> None:
    compare_with_reference(tiny(**FEW, **choices))


@pytest.mark.parametrize(
    "choices",
    [
        *COMBINATIONS[1:13:3],
        {"rounding": "stochastic", "bits": 4},
        {"rounding": "stochastic", "bits": 2, "error_feedback": True, "mask": "client"},
        {"rounding": "stochastic", "bits": 6, "dropout": 0.5, "participation": 0.5},
        {"rounding": "stochastic", "update": "weights", "prune_global": True, "smoothing": 0.8},
        *({"bits": bits, "rounds": 2} for bits in range(2, 17)),
    ],
    ids=str,
)
def test_a_round_is_the_same_without_encryption(tiny: TinyConfig, choices: dict[str, Any]) -> None:
    compare_with_plain(tiny(**FEW, **choices))


def test_stochastic_rounding_differs_from_nearest_and_by_client(tiny: TinyConfig) -> None:
    nearest = recorded(tiny(**FEW, rounds=1))[2].states[0]
    stochastic = recorded(tiny(**FEW, rounds=1, rounding="stochastic"))[2].states[0]
    assert any((nearest.weights[n] != stochastic.weights[n]).any() for n in nearest.weights)
    one, two = (c.updates for c in Simulation(tiny(rounding="stochastic"))._clients[:2])
    x = {"w": np.full(400, 0.5, np.float32)}
    first = one.quantized(x, {"w": 1.0}, 0)["w"]
    np.testing.assert_array_equal(first, one.quantized(x, {"w": 1.0}, 0)["w"])
    assert (first != two.quantized(x, {"w": 1.0}, 0)["w"]).any()
    assert (first != one.quantized(x, {"w": 1.0}, 1)["w"]).any()


@pytest.mark.parametrize(
    "choices",
    [
        {"batch_norm": "average"},
        {"batch_norm": "local"},
        {"batch_norm": "average", "error_feedback": True, "mask": "client", "bits": 4},
        {"batch_norm": "local", "participation": 0.5, "dropout": 0.3, "patience": 2},
        {"batch_norm": "average", "update": "weights", "prune_global": True},
    ],
    ids=str,
)
def test_batch_norm_rounds_are_the_same(
    tiny: TinyConfig, choices: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "resnet18", batch_norm_net)
    config = tiny(model="resnet18", threads=1, **FEW, **choices)
    compare_with_reference(config)
    compare_with_plain(config)


@pytest.mark.parametrize("batch_norm", ["average", pytest.param("local", marks=pytest.mark.slow)])
def test_resnet18_is_the_same(batch_norm: str) -> None:
    config = QuanCryptConfig(
        model="resnet18", batch_norm=batch_norm, clients=2, rounds=1, batch_size=32,
        local_epochs=1, threads=1, max_train_samples=60, max_test_samples=10,
    )  # fmt: skip
    _, _, encrypted = recorded(config)
    reference = Reference(Simulation(config))
    reference.round(0)
    assert_same_tensors(reference.weights, encrypted.states[0].weights)


def plain_fedavg(simulation: Simulation, rounds: int) -> list[dict[str, np.ndarray]]:
    """FedAvg as a loop over torch modules: no code of the package but the network and seeds."""
    config = simulation.config
    torch.manual_seed(derive_seed(config.seed, "initial-weights"))
    net = MODELS["mlp"]((1, 8, 8), 10)
    current = {name: p.detach().clone() for name, p in net.state_dict().items()}
    history = []
    for t in range(rounds):
        sums = {name: np.zeros(tuple(p.shape)) for name, p in current.items()}
        samples = 0
        for i, client in enumerate(simulation._clients):
            net.load_state_dict(current)
            adam = torch.optim.Adam(net.parameters(), lr=config.lr, weight_decay=1e-4, fused=True)
            x, y = torch.from_numpy(client.data.images), torch.from_numpy(client.data.labels)
            torch.manual_seed(derive_seed(config.seed, "training", t, i))
            for batch in torch.randperm(len(y)).split(16):
                adam.zero_grad()
                nn.functional.cross_entropy(net(x[batch]), y[batch]).backward()
                adam.step()
            for name, p in net.state_dict().items():
                sums[name] += len(y) * (p - current[name]).double().numpy()
            samples += len(y)
        for name, total in sums.items():
            current[name] = current[name] + torch.from_numpy((total / samples).astype(np.float32))
        history.append({name: p.numpy().copy() for name, p in current.items()})
    return history


def test_vanilla_is_plain_fedavg(tiny: TinyConfig) -> None:
    config = tiny(method="vanilla", partition="dirichlet", **FEW)
    recorder = Recorder()
    simulation = recorder.simulation = Simulation(config, observer=recorder)
    simulation.run()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng():
            expected = plain_fedavg(simulation, 3)
    finally:
        torch.set_num_threads(threads)
    for state, tensors in zip(recorder.states, expected, strict=True):
        assert state.bounds is None
        assert_same_tensors(tensors, state.weights)


@pytest.mark.parametrize("update", ["delta", "weights"])
@pytest.mark.parametrize("participation", [1.0, 0.5])
def test_vanilla_sends_weights_or_differences(
    tiny: TinyConfig, update: str, participation: float
) -> None:
    """The same mean, up to float32, and losses are left out of it."""
    choices = {"method": "vanilla", "participation": participation, "dropout": 0.3, **FEW}
    _, results, states = recorded(tiny(update=update, **choices))
    assert sum(record["lost"] for record in results["rounds"]) > 0
    _, _, others = recorded(tiny(update="delta", **choices))
    for one, two in zip(states.states, others.states, strict=True):
        for name, tensor in one.weights.items():
            np.testing.assert_allclose(tensor, two.weights[name], atol=2e-6)
