"""Differential privacy: accounting against closed forms and the library, norms, noise."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save
from scipy import stats
from scipy.optimize import brentq

pytest.importorskip("dp_accounting", reason="needs the [baselines] extra")

import dp_accounting
from dp_accounting import pld

from quancrypt_fl.baselines.differential_privacy import (
    MECHANISMS,
    PrivateProtector,
    calibrate,
    epsilon_of,
    guarantee,
    privatize,
    update_norm,
)
from quancrypt_fl.baselines.vanilla import PlainProtector, PlainSummer
from quancrypt_fl.errors import MethodError

DELTA = 1e-5


def update(seed: int, size: int = 50) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    return {
        "w": rng.normal(0, 1, (size, 2)).astype(np.float32),
        "none": np.zeros(0, np.float32),
        "b": rng.normal(0, 1, size).astype(np.float32),
    }


def flat(tensors: dict[str, NDArray[np.float32]]) -> NDArray[np.float64]:
    return np.concatenate([tensor.reshape(-1) for tensor in tensors.values()]).astype(np.float64)


# --- accounting ---


def analytic_delta(multiplier: float, epsilon: float) -> float:
    """Balle and Wang (ICML 2018), theorem 8, for sensitivity 1."""
    near, far = 0.5 / multiplier, epsilon * multiplier
    return float(stats.norm.cdf(near - far) - math.exp(epsilon) * stats.norm.cdf(-near - far))


@pytest.mark.parametrize("rounds", [1, 10, 300])
@pytest.mark.parametrize("epsilon", [0.5, 2.0, 8.0])
def test_gaussian_is_the_analytic_mechanism(epsilon: float, rounds: int) -> None:
    """R rounds are one with noise divided by sqrt(R)."""
    z = calibrate("gaussian", epsilon, DELTA, rounds)
    assert analytic_delta(z / math.sqrt(rounds), epsilon) == pytest.approx(DELTA, rel=1e-3)
    assert epsilon_of("gaussian", z, DELTA, rounds) == pytest.approx(epsilon, rel=1e-4)
    exact = brentq(lambda x: analytic_delta(x / math.sqrt(rounds), epsilon) - DELTA, 0.2, 500)
    assert z == pytest.approx(exact, rel=1e-4)


def library_epsilon(event: object) -> float:
    accountant = pld.PLDAccountant(
        dp_accounting.NeighboringRelation.REPLACE_SPECIAL, value_discretization_interval=1e-3
    )
    return float(accountant.compose(event).get_epsilon(DELTA))


@pytest.mark.parametrize(("multiplier", "rounds"), [(1.0, 1), (3.0, 10), (20.0, 300)])
def test_gaussian_agrees_with_the_librarys_accountant(multiplier: float, rounds: int) -> None:
    event = dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(multiplier), rounds)
    assert epsilon_of("gaussian", multiplier, DELTA, rounds) == pytest.approx(
        library_epsilon(event), rel=2e-3
    )


@pytest.mark.parametrize(("multiplier", "rounds"), [(0.5, 1), (2.0, 10), (30.0, 100)])
def test_laplace_covers_the_librarys_one_dimensional_event(multiplier: float, rounds: int) -> None:
    """Ours holds for every mechanism of the same pure loss, so it is no less, and not much more."""
    event = dp_accounting.SelfComposedDpEvent(dp_accounting.LaplaceDpEvent(multiplier), rounds)
    one = library_epsilon(event)
    ours = epsilon_of("laplace", multiplier, DELTA, rounds)
    assert one * 0.995 <= ours <= min(1.6 * one, rounds / multiplier)


def optimal_composition(loss: float, rounds: int, epsilon: float) -> float:
    """Delta by Kairouz, Oh and Viswanath (2015): ``rounds`` randomized responses."""
    up = 1 / (1 + math.exp(-loss))
    losses = loss * (2 * np.arange(rounds + 1) - rounds)
    chances = stats.binom.pmf(np.arange(rounds + 1), rounds, up)
    return float(np.sum(chances * np.clip(1 - np.exp(epsilon - losses), 0, None)))


@pytest.mark.parametrize(("multiplier", "rounds"), [(2.0, 4), (10.0, 40), (30.0, 100)])
def test_laplace_is_the_optimal_composition(multiplier: float, rounds: int) -> None:
    epsilon = epsilon_of("laplace", multiplier, DELTA, rounds)
    exact = brentq(
        lambda e: optimal_composition(1 / multiplier, rounds, e) - DELTA, 0, rounds / multiplier
    )
    assert epsilon == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("rounds", [1, 7, 300])
def test_pure_laplace_adds_up(rounds: int) -> None:
    assert calibrate("laplace", 8.0, 0.0, rounds) == rounds / 8.0
    assert epsilon_of("laplace", 2.5, 0.0, rounds) == rounds / 2.5
    assert epsilon_of("laplace", 1e-3, DELTA, 2) == 2000  # no gain by composition, no overflow


@pytest.mark.parametrize("rounds", [1, 10, 100])
def test_laplace_calibration_inverts(rounds: int) -> None:
    z = calibrate("laplace", 4.0, DELTA, rounds)
    assert epsilon_of("laplace", z, DELTA, rounds) <= 4.0
    assert epsilon_of("laplace", z * 0.99, DELTA, rounds) > 4.0
    assert z <= rounds / 4.0


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_participation_lowers_nothing(mechanism: str) -> None:
    assert calibrate(mechanism, 8.0, DELTA, 5, 0.1) == calibrate(mechanism, 8.0, DELTA, 5)
    with pytest.raises(MethodError, match="participation is 0; allowed: above 0, at most 1"):
        calibrate(mechanism, 8.0, DELTA, 5, 0)


def test_the_gaussian_guarantee() -> None:
    told = guarantee("gaussian", 5.0, DELTA, 20, parties=10, clip=0.5)
    assert told["epsilon"] == epsilon_of("gaussian", 5.0, DELTA, 20)
    single = 5.0 / math.sqrt(10)
    assert told["epsilon_against_server"] == epsilon_of("gaussian", single, DELTA, 20)
    assert told["epsilon_against_server"] > told["epsilon"]
    assert (told["clip_norm"], told["clip"]) == ("l2", 0.5)
    assert told["amplification_by_sampling"] is False
    assert told["accountant"].startswith("dp-accounting ")
    fewer = guarantee("gaussian", 5.0, DELTA, 20, parties=10, clip=0.5, participants=4)
    weaker = 5.0 * math.sqrt(0.4)
    assert fewer["epsilon"] == pytest.approx(epsilon_of("gaussian", weaker, DELTA, 20))
    alone = guarantee("gaussian", 5.0, DELTA, 20, parties=1, clip=0.5)
    assert alone["epsilon"] == alone["epsilon_against_server"]


def test_the_laplace_guarantee() -> None:
    told = guarantee("laplace", 50.0, DELTA, 20, parties=10, clip=2.0)
    assert told["epsilon"] == epsilon_of("laplace", 50.0, DELTA, 20)
    assert told["epsilon_against_server"] is None  # gamma differences of shape 0.1
    assert told["clip_norm"] == "l1"
    fewer = guarantee("laplace", 50.0, DELTA, 20, parties=10, clip=2.0, participants=9)
    assert fewer["epsilon"] is None
    alone = guarantee("laplace", 50.0, DELTA, 20, parties=1, clip=2.0)
    assert alone["epsilon"] == alone["epsilon_against_server"] == told["epsilon"]
    with pytest.raises(MethodError, match="11 participants; allowed: 1 to 10"):
        guarantee("laplace", 50.0, DELTA, 20, parties=10, clip=2.0, participants=11)


# --- clipping and noise ---


@pytest.mark.parametrize(("mechanism", "order"), [("gaussian", 2), ("laplace", 1)])
def test_updates_are_clipped_as_a_whole(mechanism: str, order: int) -> None:
    tensors, rng = update(1), np.random.default_rng(1)
    norm = float(np.linalg.norm(flat(tensors), order))
    assert update_norm(tensors, mechanism) == pytest.approx(norm)
    for clip in (norm / 7, norm * 2):
        clipped = privatize(tensors, mechanism, clip, 0.0, 4, rng)
        expected = flat(tensors) * min(1, clip / norm)
        np.testing.assert_allclose(flat(clipped), expected, rtol=1e-6)
        assert np.linalg.norm(flat(clipped), order) <= clip * (1 + 1e-6)
        assert [x.shape for x in clipped.values()] == [x.shape for x in tensors.values()]
        assert {x.dtype for x in clipped.values()} == {np.dtype(np.float32)}
    zeros = {"w": np.zeros(3, np.float32)}
    np.testing.assert_array_equal(privatize(zeros, mechanism, 1.0, 0.0, 4, rng)["w"], zeros["w"])


@pytest.mark.parametrize("parties", [1, 2, 10])
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_the_noise_of_all_sums_to_its_target(mechanism: str, parties: int) -> None:
    """Kolmogorov-Smirnov, fixed seeds: the sum's distribution, and not a neighbouring one."""
    clip, multiplier, zeros = 0.5, 3.0, {"w": np.zeros(20_000, np.float32)}
    total = np.zeros(20_000)
    for client in range(parties):
        rng = np.random.default_rng((17, client))
        total += privatize(zeros, mechanism, clip, multiplier, parties, rng)["w"]
    target = (stats.norm if mechanism == "gaussian" else stats.laplace)(scale=clip * multiplier)
    assert stats.kstest(total, target.cdf).pvalue > 0.01
    wider = (stats.norm if mechanism == "gaussian" else stats.laplace)(scale=1.1 * 1.5)
    assert stats.kstest(total, wider.cdf).pvalue < 1e-6


def test_one_clients_part_is_small() -> None:
    zeros = {"w": np.zeros(20_000, np.float32)}
    rng = np.random.default_rng(3)
    gaussian = privatize(zeros, "gaussian", 1.0, 2.0, 16, rng)["w"]
    assert stats.kstest(gaussian, stats.norm(scale=0.5).cdf).pvalue > 0.01
    laplace = privatize(zeros, "laplace", 1.0, 2.0, 16, rng)["w"]
    assert laplace.var() == pytest.approx(2 * 2.0**2 / 16, rel=0.1)


def test_noise_repeats_with_its_generator() -> None:
    first, again, other = (
        flat(privatize(update(1), "laplace", 1.0, 1.0, 3, np.random.default_rng(seed)))
        for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_both_sides_of_a_round() -> None:
    server, sides = PlainSummer(), []
    for client in range(3):
        sides.append(
            PrivateProtector(
                "gaussian", 1.0, 0.1, 3, lambda t, c=client: np.random.default_rng((t, c))
            )
        )
        server.add(sides[-1].protect(update(client), {}, t=2).data, 1)
    means, weight = sides[0].unprotect(server.result())
    expected = np.mean(
        [
            flat(privatize(update(c), "gaussian", 1.0, 0.1, 3, np.random.default_rng((2, c))))
            for c in range(3)
        ],
        axis=0,
    )
    assert weight == 3
    np.testing.assert_allclose(flat({name: means[name] for name in update(0)}), expected, atol=1e-7)


def test_wrong_arguments_are_named() -> None:
    rng = np.random.default_rng(1)
    good = {"w": np.ones(2, np.float32)}
    for call, message in (
        (lambda: calibrate("uniform", 1, DELTA, 1), "mechanism is 'uniform'; allowed: gaussian"),
        (lambda: calibrate("gaussian", 0, DELTA, 1), "epsilon is 0"),
        (lambda: calibrate("gaussian", 1, 0, 1), "delta is 0 with gaussian noise"),
        (lambda: calibrate("laplace", 1, 1, 1), "delta is 1 with laplace noise"),
        (lambda: calibrate("laplace", 1, 0, 0), "rounds is 0"),
        (lambda: epsilon_of("laplace", 0, 0, 1), "the noise multiplier is 0"),
        (lambda: privatize(good, "laplace", 0, 1, 1, rng), "clip is 0"),
        (lambda: privatize(good, "laplace", 1, -1, 1, rng), "the noise multiplier is -1"),
        (lambda: privatize(good, "laplace", 1, 1, 0, rng), "parties is 0"),
        (
            lambda: privatize({"w": np.full(2, np.nan, np.float32)}, "laplace", 1, 1, 1, rng),
            "holds NaN or infinity",
        ),
    ):
        with pytest.raises(MethodError, match=message):
            call()


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(MethodError, match=r"needs 'dp_accounting'.*quancrypt-native\[baselines\]"):
        calibrate("gaussian", 1.0, DELTA, 1)


FLOATS = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(1, np.float32)}


@pytest.mark.parametrize(
    ("upload", "message"),
    [
        (b"", "an upload is damaged"),
        (save(FLOATS)[:-4], "an upload is damaged"),
        (save({"w": FLOATS["w"]}), "other tensors than the sum so far"),
        (save({**FLOATS, "v": FLOATS["b"]}), "other tensors than the sum so far"),
        (save({**FLOATS, "total weight": np.ones(1, np.float32)}), "as only sums have"),
        (save({**FLOATS, "b": np.ones(3, np.float32)}), r"'b' of an upload has the shape \(3,\)"),
        (save({**FLOATS, "b": np.ones((), np.float32)}), r"'b' of an upload has the shape \(\)"),
        (save({**FLOATS, "w": np.ones(3, np.float32)}), "'w' of an upload has the shape"),
        (save({**FLOATS, "b": np.ones(1, np.int64)}), "'b' of an upload is int64, not float32"),
        (save({**FLOATS, "b": np.full(1, np.inf, np.float32)}), "'b' .* holds NaN or infinity"),
    ],
)
def test_malformed_uploads_leave_a_plain_sum_as_it_was(upload: bytes, message: str) -> None:
    server = PlainSummer()
    server.add(save(FLOATS), 2)
    with pytest.raises(MethodError, match=message):
        server.add(upload, 1)
    server.add(save(FLOATS), 1)
    means, weight = PlainProtector().unprotect(server.result())
    assert weight == 3
    assert means.keys() == FLOATS.keys()
    for name, tensor in FLOATS.items():
        np.testing.assert_array_equal(means[name], tensor)
