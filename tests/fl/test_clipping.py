"""Clip bounds, statistics inside the ciphertext, smoothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quancrypt_fl.errors import MethodError
from quancrypt_fl.method.clipping import (
    MIN_BOUND,
    clip_bounds,
    from_unit,
    mean_magnitudes,
    to_unit,
)
from quancrypt_fl.method.smoothing import smooth
from quancrypt_fl.method.statistics import StatisticsCode

MEANS = st.floats(0, 2.0**17 - 2)


def test_bound_is_a_multiple_of_the_mean_magnitude() -> None:
    means = mean_magnitudes({"w": np.array([1, -3, 0, 4], np.float32)})
    assert means == {"w": 2.0}
    assert clip_bounds(means, 3.0) == {"w": 6.0}


def test_zero_and_empty_tensors_have_a_positive_bound() -> None:
    update = {"zero": np.zeros(5, np.float32), "empty": np.zeros(0, np.float32)}
    assert clip_bounds(mean_magnitudes(update), 3.0) == {"zero": MIN_BOUND, "empty": MIN_BOUND}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_divergence_names_the_tensor(bad: float) -> None:
    with pytest.raises(MethodError, match=r"'fc\.weight' holds NaN or infinity"):
        mean_magnitudes({"fc.weight": np.array([0, bad], np.float32)})


def test_to_unit_puts_the_bound_at_one() -> None:
    delta = np.array([-0.06, 0.03, 0.06], np.float32)
    unit = to_unit(delta, float(np.float32(0.06)))
    np.testing.assert_array_equal(unit, np.array([-1, 0.5, 1], np.float32))
    np.testing.assert_allclose(from_unit(unit, 0.06), delta, rtol=1e-6)


@given(
    data=st.data(),
    bits=st.integers(2, 16),
    max_weight=st.integers(1, 65_536),
    tensors=st.integers(1, 4),
)
def test_statistics_travel_exactly(
    data: st.DataObject, bits: int, max_weight: int, tensors: int
) -> None:
    """The decoded mean is the weighted mean of the fixed-point numbers, whatever the weights."""
    code = StatisticsCode(tuple(f"t{i}" for i in range(tensors)), bits, max_weight)
    weights = data.draw(st.lists(st.integers(1, max(1, max_weight // 3)), min_size=1, max_size=3))
    weights = weights if sum(weights) <= max_weight else [1]
    means = [{name: data.draw(MEANS) for name in code.names} for _ in weights]

    sums = np.zeros(code.shape, np.int64)
    for weight, mine in zip(weights, means, strict=True):
        digits = code.encode(mine)
        assert digits.min() >= 0
        assert digits.max() <= code.q_max
        np.testing.assert_array_equal(digits, np.rint(digits))
        sums += weight * digits.astype(np.int64)
    total = sum(weights)
    decoded = code.decode((sums / total).astype(np.float32), total)

    for name in code.names:
        fixed = [round(mine[name] * 2**32) for mine in means]
        exact = sum(w * f for w, f in zip(weights, fixed, strict=True))
        assert decoded[name] == exact / (total * 2**32)


def test_statistics_survive_the_largest_sums() -> None:
    code = StatisticsCode(("w",), 16, 65_536)
    digits = code.encode({"w": 2.0**17 - 1.5})
    assert code.decode(digits, 65_536) == {"w": 2.0**17 - 1.5}


@pytest.mark.parametrize("mean", [-1.0, 2.0**17, float("nan"), float("inf")])
def test_statistics_out_of_range_are_refused(mean: float) -> None:
    with pytest.raises(MethodError, match="'w' is out of range"):
        StatisticsCode(("w",), 8, 16).encode({"w": mean})


def test_smoothing_formula() -> None:
    before, aggregate = np.array([1, 2], np.float32), np.array([3, -2], np.float32)
    np.testing.assert_array_equal(smooth(before, aggregate, 1.0), aggregate)
    np.testing.assert_array_equal(smooth(before, aggregate, 0.25), np.array([1.5, 1], np.float32))
