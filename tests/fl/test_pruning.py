"""The pruning schedule and the shared mask."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from quancrypt_fl.errors import MethodError
from quancrypt_fl.method.pruning import (
    Mask,
    PruningSchedule,
    prune_smallest,
    scatter,
    select,
    shared_masks,
)

FLOATS = hnp.arrays(np.float32, hnp.array_shapes(max_dims=3), elements=st.floats(-2, 2, width=32))
RATES = st.floats(0, 0.99)


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
