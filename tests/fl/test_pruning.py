"""The pruning schedule, the shared mask, and clients' own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.fl.reference import kept_and_gain, recorded
from tests.fl.spies import STATISTICS, watch
from torch.nn.utils import prune

from quancrypt_fl import QuanCryptConfig, Simulation
from quancrypt_fl.errors import MethodError
from quancrypt_fl.method.pruning import (
    Mask,
    PruningSchedule,
    kept_count,
    prune_smallest,
    scatter,
    select,
    shared_masks,
    zero_smallest,
)

FLOATS = hnp.arrays(np.float32, hnp.array_shapes(max_dims=3), elements=st.floats(-2, 2, width=32))
RATES = st.floats(0, 0.99)

TinyConfig = Callable[..., QuanCryptConfig]
FEW = {"max_train_samples": 160, "max_test_samples": 30, "rounds": 3}


@pytest.mark.parametrize(
    ("t", "rate"),
    [(0, 0.2), (40, 0.2), (41, 0.2 + 0.3 / 260), (170, 0.35), (300, 0.5), (301, 0.5), (9999, 0.5)],
)
def test_schedule_of_the_paper_with_a_cap(t: int, rate: float) -> None:
    assert PruningSchedule().rate(t) == pytest.approx(rate)


@given(t=st.integers(0, 10_000))
def test_rate_never_exceeds_target_and_never_falls(t: int) -> None:
    schedule = PruningSchedule(0.1, 0.4, 5, 50)
    assert 0.1 <= schedule.rate(t) <= schedule.rate(t + 1) <= 0.4


@pytest.mark.parametrize(
    "choices",
    [
        {"t_eff": 300},
        {"t_eff": 301},
        {"p_0": -0.1},
        {"p_0": 1.0, "p_target": 1.0},
        {"p_0": 0.6},
        {"p_target": float("nan")},
    ],
)
def test_impossible_schedules_are_refused(choices: dict[str, float]) -> None:
    with pytest.raises(MethodError):
        PruningSchedule(**choices)  # type: ignore[arg-type]


@given(tensor=FLOATS, rate=RATES, t=st.integers(0, 400))
def test_exactly_the_smallest_whose_turn_it_is_are_pruned(
    tensor: np.ndarray, rate: float, t: int
) -> None:
    mask = prune_smallest(tensor, rate, t)
    assert mask.kept.shape == tensor.shape
    assert mask.size == tensor.size - int(rate * tensor.size + 1e-9)
    if mask.gain is not None:
        assert mask.gain.shape == (mask.size,)
        ordinary = np.abs(tensor[mask.kept][mask.gain == 1])
        if ordinary.size:
            assert np.abs(tensor[~mask.kept]).max() <= ordinary.min()


@given(tensor=FLOATS, rate=RATES)
def test_every_coordinate_comes_back(tensor: np.ndarray, rate: float) -> None:
    """In as many rounds as there are turns, a small coordinate counts once for each of them."""
    turns = max(2, int(np.ceil(1 / (1 - rate) - 1e-9)))
    counted = np.zeros(tensor.shape)
    for t in range(turns):
        mask = prune_smallest(tensor, rate, t)
        counted += scatter(np.ones(mask.size, np.float32), mask)
    assert counted.size == 0 or counted.min() >= 1


def test_small_coordinates_are_made_up_for() -> None:
    tensor = np.array([[0.1, -0.1, 5, 6], [-0.3, 0.3, 7, 8]], np.float32)
    ones = [prune_smallest(tensor, 0.25, t) for t in (0, 1)]
    even, odd = (scatter(np.ones(mask.size, np.float32), mask) for mask in ones)
    assert even.tolist() == [[2, 0, 1, 1], [2, 0, 1, 1]]
    assert odd.tolist() == [[0, 2, 1, 1], [0, 2, 1, 1]]


def test_ties_are_pruned_in_memory_order() -> None:
    mask = prune_smallest(np.ones((2, 4), np.float32), 0.25, 0)
    assert mask.kept.tolist() == [[True, False, True, False], [True, True, True, True]]


def test_no_rate_no_mask() -> None:
    mask = prune_smallest(np.zeros((2, 2), np.float32), 0.0, 3)
    assert mask.kept.all()
    assert mask.gain is None


@given(tensor=FLOATS)
def test_scatter_undoes_select(tensor: np.ndarray) -> None:
    mask = Mask(tensor > 0)
    restored = scatter(select(tensor, mask), mask)
    np.testing.assert_array_equal(restored, np.where(tensor > 0, tensor, 0))


def test_biases_are_not_pruned() -> None:
    weights = {"w": np.arange(10, dtype=np.float32).reshape(2, 5), "b": np.zeros(5, np.float32)}
    masks = shared_masks(weights, 0.5, 0)
    assert masks["w"].size == 5
    assert masks["b"].size == 5


@given(
    tensor=hnp.arrays(
        np.float32, hnp.array_shapes(min_dims=2, max_dims=4), elements=st.floats(-2, 2, width=32)
    ),
    rate=RATES,
)
def test_a_clients_own_mask_is_numpys_argsort(tensor: np.ndarray, rate: float) -> None:
    count = int(rate * tensor.size + 1e-9)
    expected = tensor.ravel().copy()
    expected[np.argsort(np.abs(expected), kind="stable")[:count]] = 0
    np.testing.assert_array_equal(zero_smallest(tensor, rate), expected.reshape(tensor.shape))


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.2, 0.5, 0.9])
def test_a_clients_own_mask_is_torchs_l1_unstructured(rate: float) -> None:
    """Where magnitudes differ and ``rate * size`` is whole, so that both round alike."""
    tensor = np.random.default_rng(1).standard_normal((20, 5, 3)).astype(np.float32)
    module = torch.nn.Module()
    module.w = torch.nn.Parameter(torch.from_numpy(tensor.copy()))
    prune.l1_unstructured(module, "w", amount=rate)
    np.testing.assert_array_equal(zero_smallest(tensor, rate), module.w.detach().numpy())
    assert np.count_nonzero(zero_smallest(tensor, rate) == 0) == round(rate * 300)


def test_vectors_keep_all_of_theirs() -> None:
    vector = np.linspace(-1, 1, 9, dtype=np.float32)
    assert zero_smallest(vector, 0.9) is vector
    assert zero_smallest(np.float32([[1, 2]]), 0.0).tolist() == [[1, 2]]


@pytest.mark.parametrize("update", ["delta", "weights"])
@pytest.mark.parametrize("rate", [0.3, 0.5])
def test_clients_choose_for_themselves_and_send_zeros(
    tiny: TinyConfig, update: str, rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulation = Simulation(tiny(mask="client", update=update, p_0=rate, **FEW))
    uploads = watch(simulation, monkeypatch)
    simulation.run()
    masks = set()
    for (client, t), tensors in uploads.protected.items():
        change = uploads.changes[client, t]
        for name, tensor in tensors.items():
            if name == STATISTICS:
                continue
            assert tensor.size == change[name].size
            zeros = np.flatnonzero(tensor == 0)
            if change[name].ndim < 2:
                assert zeros.size == 0
                continue
            assert zeros.size == int(rate * tensor.size + 1e-9)
            if update == "delta":
                smallest = np.argsort(np.abs(change[name].ravel()), kind="stable")[: zeros.size]
                np.testing.assert_array_equal(np.sort(smallest), zeros)
            masks.add(zeros.tobytes())
    # Tensors, clients, rounds; the smallest whole weights are hardly moved by one round.
    assert len(masks) == 2 * 4 * 3 if update == "delta" else len(masks) > 2 * 4


def test_what_the_shared_mask_leaves_out_is_in_no_upload(
    tiny: TinyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What clients hand over are exactly the kept coordinates of their updates."""
    config = tiny(p_0=0.5, **FEW)
    simulation = Simulation(config)
    states = [simulation.state]
    uploads = watch(simulation, monkeypatch)
    whole = simulation._observer.round_finished
    monkeypatch.setattr(
        simulation._observer,
        "round_finished",
        lambda record: (states.append(simulation.state), whole(record)),
    )
    simulation.run()
    for (client, t), tensors in uploads.protected.items():
        assert set(tensors) == {*states[t].weights, STATISTICS}
        for name, weights in states[t].weights.items():
            kept, _ = kept_and_gain(weights, 0.5, t)
            assert np.count_nonzero(kept) == weights.size - (
                weights.size // 2 if weights.ndim >= 2 else 0
            )
            sent = uploads.changes[client, t][name][kept]
            unit = sent / np.float32(uploads.bounds[client, t][name])
            np.testing.assert_array_equal(tensors[name], unit)


def test_with_a_shared_mask_pruned_weights_stand_still(tiny: TinyConfig) -> None:
    _, _, run = recorded(tiny(p_0=0.5, **FEW))
    for t in (1, 2):
        before, after = run.states[t - 1].weights, run.states[t].weights
        kept, _ = kept_and_gain(before["1.weight"], 0.5, t)
        np.testing.assert_array_equal(before["1.weight"][~kept], after["1.weight"][~kept])
        assert (before["1.weight"][kept] != after["1.weight"][kept]).mean() > 0.5


@pytest.mark.parametrize("mask", ["shared", "client"])
@pytest.mark.parametrize("smoothing", [1.0, 0.5])
def test_the_global_model_is_pruned(tiny: TinyConfig, mask: str, smoothing: float) -> None:
    choices: dict[str, Any] = {"p_0": 0.4, "mask": mask, "smoothing": smoothing, **FEW}
    _, _, pruned = recorded(tiny(prune_global=True, **choices))
    _, _, plain = recorded(tiny(**choices))
    for state in pruned.states:
        for tensor in state.weights.values():
            least = int(0.4 * tensor.size) if tensor.ndim >= 2 else 0
            assert np.count_nonzero(tensor == 0) >= least
    for name, tensor in plain.states[0].weights.items():
        flat = tensor.ravel().copy()
        if tensor.ndim >= 2:
            flat[np.argsort(np.abs(flat), kind="stable")[: int(0.4 * flat.size + 1e-9)]] = 0
        np.testing.assert_array_equal(pruned.states[0].weights[name].ravel(), flat)


@pytest.mark.parametrize("rate", [1 - 1e-12, 1 - 2**-53, 0.9999])
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (40, 50)])
@pytest.mark.parametrize("t", [0, 1, 7])
def test_rates_near_one_prune_no_more_than_there_is(
    rate: float, shape: tuple[int, ...], t: int
) -> None:
    tensor = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    mask = prune_smallest(tensor, PruningSchedule(rate, rate).rate(t), t)
    assert mask.kept.shape == shape
    assert tensor.size - mask.size <= rate * tensor.size + 1e-9
    if t == 0:
        assert mask.kept.ravel()[0]  # its turn
    restored = scatter(select(tensor, mask), mask)
    assert np.isfinite(restored).all()
    assert not restored[~mask.kept].any()
    assert np.count_nonzero(zero_smallest(tensor, rate)) <= tensor.size


@given(
    shape=st.lists(st.integers(1, 9), min_size=0, max_size=4),
    rate=st.floats(0.0, 0.999),
    t=st.integers(0, 1000),
    seed=st.integers(0, 10),
)
def test_what_is_kept_is_known_without_the_weights(
    shape: list[int], rate: float, t: int, seed: int
) -> None:
    tensor = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    mask = shared_masks({"w": tensor}, rate, t)["w"]
    assert kept_count(tuple(shape), rate, t) == mask.size
