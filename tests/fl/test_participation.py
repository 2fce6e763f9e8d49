"""Who takes part, and who is lost on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from tests.fl.reference import recorded
from tests.fl.spies import watch

from quancrypt_fl import QuanCryptConfig, Simulation
from quancrypt_fl.method.participation import choose, lose
from quancrypt_fl.seeds import generator

TinyConfig = Callable[..., QuanCryptConfig]
FEW = {"max_train_samples": 200, "max_test_samples": 40}


@pytest.mark.parametrize(("clients", "count"), [(1, 1), (5, 1), (5, 4), (5, 5), (100, 10)])
def test_so_many_different_clients_in_order(clients: int, count: int) -> None:
    for seed in range(20):
        chosen = choose(clients, count, np.random.default_rng(seed))
        assert len(set(chosen)) == count
        assert chosen == sorted(chosen)
        assert set(chosen) <= set(range(clients))
        assert all(type(client) is int for client in chosen)


def test_each_set_of_clients_is_equally_likely() -> None:
    """Pearson's chi-square over the 10 pairs of 5 clients: below the 99.9 % quantile of 9 dof."""
    draws = 2000
    seen = Counter(tuple(choose(5, 2, generator(7, "participation", t))) for t in range(draws))
    assert set(seen) == set(combinations(range(5), 2))
    expected = draws / 10
    assert sum((count - expected) ** 2 / expected for count in seen.values()) < 27.88


def test_losses_are_independent_and_of_the_given_probability() -> None:
    chosen, draws, probability = [2, 3, 5, 7], 4000, 0.3
    fates = [lose(chosen, probability, generator(1, "dropout", t)) for t in range(draws)]
    assert all(fate <= set(chosen) for fate in fates)
    spread = np.sqrt(draws * probability * (1 - probability))
    for client in chosen:
        assert abs(sum(client in fate for fate in fates) - draws * probability) < 4 * spread
    for one, two in combinations(chosen, 2):
        both = sum({one, two} <= fate for fate in fates)
        assert abs(both - draws * probability**2) < 4 * np.sqrt(draws * probability**2)
    assert lose(chosen, 0.0, np.random.default_rng(1)) == frozenset()


@pytest.mark.parametrize(
    ("clients", "share", "expected"),
    [(10, 1.0, 10), (10, 0.3, 3), (10, 0.01, 1), (4, 0.5, 2), (3, 0.5, 2), (100, 0.255, 26)],
)
def test_participants_of_a_share(clients: int, share: float, expected: int) -> None:
    config = QuanCryptConfig(clients=clients, participation=share)
    assert config.participants == expected
    weight = config.resolved().max_weight
    assert weight is not None
    assert expected <= weight < 2 * expected
    assert (weight & (weight - 1)) == 0


def trained_clients(config: QuanCryptConfig, monkeypatch: pytest.MonkeyPatch) -> list[set[int]]:
    simulation = Simulation(config)
    uploads = watch(simulation, monkeypatch)
    simulation.run()
    return [{i for i, t in uploads.changes if t == round_} for round_ in range(config.rounds)]


def test_only_the_chosen_train_and_a_seed_chooses_them(
    tiny: TinyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    choices: dict[str, Any] = {"clients": 6, "participation": 0.5, "rounds": 5, **FEW}
    one, again = (trained_clients(tiny(**choices), monkeypatch) for _ in range(2))
    assert one == again
    assert all(len(part) == 3 for part in one)
    assert len({frozenset(part) for part in one}) > 1
    assert trained_clients(tiny(seed=2, **choices), monkeypatch) != one
    fewer_bits = trained_clients(tiny(bits=4, mask="client", **choices), monkeypatch)
    assert fewer_bits == one


def exact_mean(
    config: QuanCryptConfig, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, float]]]:
    """Per round: what weights became, the sample-weighted mean of arrivals in float64, bounds."""
    from tests.fl.reference import Recorder

    recorder = Recorder()
    simulation = recorder.simulation = Simulation(config, observer=recorder)
    uploads = watch(simulation, monkeypatch)
    before = simulation.state.weights
    simulation.run()
    result = []
    for t, state in enumerate(recorder.states):
        here = [i for i, round_ in uploads.opened if round_ == t]
        counts = {i: len(simulation._clients[i].data) for i in here}
        expected = {
            name: weights
            + sum(counts[i] * uploads.changes[i, t][name].astype(np.float64) for i in here)
            / max(1, sum(counts.values()))
            for name, weights in before.items()
        }
        bounds = dict(uploads.bounds[here[0], t]) if here else {}
        result.append((dict(state.weights), expected, bounds))
        before = state.weights
    return result


@pytest.mark.parametrize("weighting", ["prescaled", "integer"])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_mean_over_those_that_arrived(
    tiny: TinyConfig, monkeypatch: pytest.MonkeyPatch, weighting: str, seed: int
) -> None:
    """By sample counts, whoever is lost: within quantization, and shares rounded to 1/2000."""
    config = tiny(
        dropout=0.4, partition="dirichlet", weighting=weighting, bits=16, pruning=False, seed=seed,
        clip_factor=200.0, max_weight=4000 if weighting == "integer" else None, **FEW,
    )  # fmt: skip
    for weights, expected, bounds in exact_mean(config, monkeypatch):
        for name, tensor in weights.items():
            step = bounds.get(name, 0.0) / (2**15 - 1)
            # A client that is small among those that arrived has been scaled down before rounding.
            np.testing.assert_allclose(tensor, expected[name], rtol=1e-3, atol=4 * step + 2e-6)


def test_vanilla_averages_those_that_arrived_exactly(
    tiny: TinyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(dropout=0.4, partition="dirichlet", method="vanilla", **FEW)
    for weights, expected, _ in exact_mean(config, monkeypatch):
        for name, tensor in weights.items():
            np.testing.assert_allclose(tensor, expected[name], rtol=0, atol=1e-6)


def seed_that_loses(config: QuanCryptConfig, rounds: set[int]) -> int:
    """The first seed with which all clients are lost in exactly these rounds."""
    everybody = list(range(config.clients))
    for seed in range(10_000):
        empty = {
            t for t in range(config.rounds)
            if len(lose(everybody, config.dropout, generator(seed, "dropout", t))) == len(everybody)
        }  # fmt: skip
        if empty == rounds:
            return seed
    raise AssertionError("no seed")


@pytest.mark.parametrize("method", ["quancrypt", "vanilla"])
@pytest.mark.parametrize("empty", [{0}, {1}, {0, 1}, {0, 1, 2}])
def test_a_round_without_arrivals_changes_nothing(
    tiny: TinyConfig, method: str, empty: set[int]
) -> None:
    config = tiny(clients=2, dropout=0.7, method=method, **FEW)
    config = config.model_copy(update={"seed": seed_that_loses(config, empty)})
    simulation, results, recorder = recorded(config)
    start = Simulation(config).state
    assert [record["round"] for record in results["rounds"]] == [1, 2, 3]
    for t, record in enumerate(results["rounds"]):
        before = recorder.states[t - 1] if t else start
        changed = any((before.weights[n] != w).any() for n, w in recorder.states[t].weights.items())
        assert changed == (t not in empty)
        assert record["participants"] + record["lost"] == 2
        assert (record["participants"] == 0) == (t in empty)
        assert record["train_loss"] > 0
        if method == "vanilla":
            assert (record["bytes"]["upload"] == 0) == (t in empty)
    assert results["totals"]["test_accuracy"] == results["rounds"][-1]["test_accuracy"]
    if method == "quancrypt":
        assert [entry["uploads"] for entry in results["receipt"]["rounds"]] == [
            record["participants"] for record in results["rounds"]
        ]
        assert simulation.state.bounds is not None


def test_records_count_arrivals_and_losses(tiny: TinyConfig) -> None:
    config = tiny(clients=6, participation=0.67, dropout=0.5, rounds=5, **FEW)
    _, results, _ = recorded(config)
    for t, record in enumerate(results["rounds"]):
        chosen = choose(6, 4, generator(1, "participation", t))
        lost = lose(chosen, 0.5, generator(1, "dropout", t))
        assert record["lost"] == len(lost)
        assert record["participants"] == 4 - len(lost)
    assert 0 < sum(record["lost"] for record in results["rounds"]) < 20


def test_too_few_arrivals_open_no_sum(tiny: Callable[..., QuanCryptConfig]) -> None:
    """A sum of one would show that one's update to everybody who can decrypt."""
    simulation = Simulation(tiny(clients=2, rounds=4, dropout=0.5, min_arrivals=2, seed=3))
    results = simulation.run()
    arrivals = [record["participants"] for record in results["rounds"]]
    assert {1, 2} <= set(arrivals)
    before = None
    for record in results["rounds"]:
        if record["participants"] < 2 and before is not None:
            assert record["test_accuracy"] == before["test_accuracy"]
            assert record["test_loss"] == before["test_loss"]
        before = record
    free = Simulation(tiny(clients=2, rounds=4, dropout=0.5, seed=3)).run()
    assert [record["participants"] for record in free["rounds"]] == arrivals
    assert free["totals"]["test_loss"] != results["totals"]["test_loss"]
