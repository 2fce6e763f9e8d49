"""What one client can do at most: attained by a client that tries, and not exceeded."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.fl.fakes import FakeFederation, Tensors, federation

from quancrypt_fl import QuanCryptConfig, Simulation
from quancrypt_fl.claims import claim_lines
from quancrypt_fl.method.clipping import clip_bounds
from quancrypt_fl.method.influence import distance, largest_share
from quancrypt_fl.method.statistics import STATISTICS, StatisticsCode
from quancrypt_fl.method.weighting import Share
from quancrypt_fl.receipts import receipt, receipt_lines

F32 = np.float32
TinyConfig = Callable[..., QuanCryptConfig]


def three_clients(attack: float, **choices: Any) -> FakeFederation:
    """Two honest clients and one whose second update is ``attack`` everywhere; rates are low enough
    that everything is sent in the first round, so that bounds are honest ones.
    """
    rng = np.random.default_rng(3)
    weights = {"w": rng.normal(size=(6, 8)).astype(F32), "b": rng.normal(size=5).astype(F32)}
    changes = [
        {"w": rng.normal(0, 0.01, (6, 8)).astype(F32), "b": rng.normal(0, 0.1, 5).astype(F32)}
        for _ in range(3)
    ]
    fed = federation(
        weights, changes, samples=lambda i: (100, 100, 200)[i], max_weight=8, **choices
    )
    fed.round()
    fed.clients[2].change = {name: np.full_like(t, attack) for name, t in changes[2].items()}
    return fed


@pytest.mark.parametrize(
    "choices",
    [
        {"pruning": False},
        {"pruning": False, "bits": 4, "smoothing": 0.5},
        {"p_0": 0.4},  # coordinates count twice when it is their turn
        {"pruning": False, "encryption": False},
    ],
    ids=str,
)
def test_the_bound_is_what_a_client_attains(choices: dict[str, Any]) -> None:
    """An update far above the clip bound, against one of zeros from the same state."""
    nothing, all_of_it, reverse = (three_clients(a, **choices) for a in (0.0, 1e4, -1e4))
    figures = [fed.round().influence for fed in (nothing, all_of_it, reverse)]
    assert figures[0] is not None
    assert figures[1] is not None
    assert figures[1]["weight_share"] == 0.5
    for name in ("coordinate", "l2", "malformed_l2"):
        assert figures[0][name] == figures[1][name]  # type: ignore[index]
    zeros, far, other = (fed.state.weights for fed in (nothing, all_of_it, reverse))
    moved = max(float(np.abs(far[name] - zeros[name]).max()) for name in zeros)
    assert moved == pytest.approx(figures[1]["coordinate"], rel=1e-4)
    assert distance(far, zeros) == pytest.approx(figures[1]["l2"], rel=1e-4)
    assert distance(far, other) == pytest.approx(2 * figures[1]["l2"], rel=1e-4)
    assert figures[1]["malformed_l2"] == pytest.approx(2 * figures[1]["l2"])  # W / w = 2
    assert figures[1]["malformed_coordinate"] == pytest.approx(2 * figures[1]["coordinate"])


def test_the_ratio_is_to_what_the_round_did() -> None:
    fed = three_clients(0.0, pruning=False)
    before = fed.state.weights
    figures = fed.round().influence
    assert figures is not None
    assert figures["update_l2"] == distance(fed.state.weights, before) > 0
    assert figures["l2_over_update"] == figures["l2"] / figures["update_l2"]
    squares = sum(
        float(bound) ** 2 * before[name].size
        for name, bound in (three_clients(0.0, pruning=False).state.bounds or {}).items()
    )
    assert figures["malformed_l2"] == pytest.approx(math.sqrt(squares))


def test_nothing_bounds_a_plain_mean() -> None:
    fed = three_clients(0.0, method="vanilla")
    assert fed.round().influence is None


def test_the_client_that_counts_most() -> None:
    assert largest_share([Share(1), Share(5), Share(2)]) == 0.625


# --- clip bounds, which clients' statistics set ---


def lied(fed: FakeFederation, mean: float) -> dict[str, float]:
    """Bounds after a round in which the third client states ``mean`` for every tensor."""
    method = fed.parties.method
    inner = fed.clients[2].sides.updates
    digits = method.statistics.encode(dict.fromkeys(fed.state.weights, mean))  # type: ignore[attr-defined]

    class Liar:
        def protect(self, tensors: Tensors, clips: Any, t: int) -> Any:
            return inner.protect({**tensors, STATISTICS: digits}, clips, t)

        def unprotect(self, data: bytes) -> Any:
            return inner.unprotect(data)

    object.__setattr__(fed.clients[2].sides, "updates", Liar())
    fed.round()
    assert fed.state.bounds is not None
    return dict(fed.state.bounds)


def test_one_report_raises_bounds_by_as_much_as_is_said() -> None:
    largest = 2**17 - 2.0
    fed = three_clients(0.0, pruning=False)
    bounds = lied(fed, largest)
    figures = fed.round().influence
    assert figures is not None
    assert all(
        0.99 * figures["next_bound"] < bound <= figures["next_bound"] for bound in bounds.values()
    )


def test_a_largest_bound_holds_whatever_is_reported() -> None:
    fed = three_clients(0.0, pruning=False, max_bound=0.5)
    assert set(lied(fed, 2**17 - 2.0).values()) == {0.5}
    figures = fed.round().influence
    assert figures is not None
    assert figures["next_bound"] == 0.5
    assert figures["malformed_coordinate"] == 0.5
    assert clip_bounds({"a": 1.0, "b": 0.0}, 3.0, 2.0) == {"a": 2.0, "b": 2.0**-32}


@pytest.mark.parametrize(("bits", "max_weight"), [(2, 4), (4, 16), (8, 16), (8, 65_536), (16, 1)])
def test_the_largest_statistic_is_that_of_the_largest_digits(bits: int, max_weight: int) -> None:
    code = StatisticsCode(("a",), bits, max_weight)
    digits = np.full(code.shape, code.q_max, dtype=np.float32)
    assert code.decode(digits, 1)["a"] == code.largest
    assert code.largest >= 2**17 - 1


# --- where it is said ---


def test_a_run_says_it(tiny: TinyConfig) -> None:
    results = Simulation(tiny(max_bound=2.0)).run()
    last = results["rounds"][-1]["influence"]
    assert results["influence"] == results["receipt"]["influence"] == last
    assert set(last) == {
        "weight_share", "coordinate", "l2", "malformed_coordinate", "malformed_l2", "update_l2",
        "l2_over_update", "next_bound",
    }  # fmt: skip
    line = dict(receipt_lines(results["receipt"]))["One client can"]
    assert f"move a weight by {last['coordinate']:.3g} at most" in line
    assert f"{last['l2_over_update']:.2f} x what the last round did" in line
    assert f"clip bounds rise to {last['next_bound']:.3g}" in line


def test_rounds_that_opened_nothing_say_nothing(tiny: TinyConfig) -> None:
    results = Simulation(tiny(rounds=1, min_arrivals=4, dropout=0.9)).run()
    assert "influence" not in results["rounds"][0]
    assert "influence" not in results
    assert "One client can" not in dict(receipt_lines(results["receipt"]))


@pytest.mark.parametrize("value", [None, True, "1", -1.0, math.nan, math.inf, 10**400, [], {}])
@pytest.mark.parametrize("name", ["coordinate", "l2", "malformed_coordinate"])
def test_claims_of_strangers_are_left_out_if_they_are_none(name: str, value: Any) -> None:
    claim: dict[str, Any] = {"coordinate": 1.0, "l2": 2.0, "malformed_coordinate": 3.0}
    assert claim_lines({"influence": claim}) == [
        (
            "One client can",
            "move a weight by 1 at most and all together by 2 (L2); with a malformed ciphertext, a "
            "weight by 3",
        )
    ]
    assert claim_lines({"influence": claim | {name: value}}) == []
    assert claim_lines({"influence": value, "privacy": value, "aggregation": value}) == []


def test_receipts_without_rounds_claim_nothing() -> None:
    assert "influence" not in receipt({}, [], [])
