"""Sample counts as integer weights."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quancrypt_fl.errors import MethodError
from quancrypt_fl.method.weighting import Share, integer_weights, sample_shares, shares

COUNTS = st.lists(st.integers(1, 5000), min_size=1, max_size=20)


@given(counts=COUNTS, spare=st.integers(0, 300))
def test_weights_fit_and_are_fair(counts: list[int], spare: int) -> None:
    max_weight = len(counts) + spare
    weights = integer_weights(counts, max_weight)
    assert sum(weights) <= max_weight
    assert min(weights) >= 1
    ordered = sorted(zip(counts, weights, strict=True))
    for (fewer, less), (more, greater) in pairwise(ordered):
        assert less <= greater
        if fewer == more:
            assert less == greater


@pytest.mark.parametrize(
    ("counts", "max_weight", "weights"),
    [
        ([800] * 10, 16, [1] * 10),
        ([115] * 7 + [116] * 3, 16, [1] * 10),
        ([100, 100, 200], 16, [1, 1, 2]),
        ([300, 200, 100], 6, [3, 2, 1]),
        ([1, 10_000], 16, [1, 15]),
        ([7], 65_536, [1]),
    ],
)
def test_known_weights(counts: list[int], max_weight: int, weights: list[int]) -> None:
    assert integer_weights(counts, max_weight) == weights


def test_more_room_means_truer_shares() -> None:
    counts = [523, 61, 190, 26]
    exact = [count / sum(counts) for count in counts]

    def error(max_weight: int) -> float:
        weights = integer_weights(counts, max_weight)
        return max(abs(w / sum(weights) - e) for w, e in zip(weights, exact, strict=True))

    assert error(1024) <= error(64) <= error(8)
    assert error(1024) < 0.001


def test_prescaled_shares_are_exact() -> None:
    result = shares("prescaled", [1, 3], 2)
    assert result == [Share(1, 0.5), Share(1, 1.5)]


def test_uniform_and_sample_shares() -> None:
    assert shares("uniform", [1, 3], 2) == [Share(1), Share(1)]
    assert sample_shares([5, 7]) == [Share(5), Share(7)]


@pytest.mark.parametrize(
    ("counts", "max_weight", "message"),
    [
        ([1, 1, 1], 2, "3 clients need max_weight of at least 3, given 2"),
        ([5, 0], 8, "client 1 has no training samples"),
        ([], 8, "at least one client"),
    ],
)
def test_impossible_weights_are_refused(counts: list[int], max_weight: int, message: str) -> None:
    with pytest.raises(MethodError, match=message):
        shares("integer", counts, max_weight)
