"""Noise for a guarantee: against closed forms, exact distributions and the library's accountant."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

pytest.importorskip("dp_accounting", reason="needs the [privacy] extra")

import dp_accounting
from dp_accounting import rdp

from quancrypt_fl.errors import MethodError
from quancrypt_fl.private.accounting import (
    MAX_INFLATION,
    Mechanism,
    design,
    epsilon_of,
    least_shares,
)

DIGITS: dict[str, Any] = {
    "epsilon": 8.0, "delta": 1e-5, "rounds": 10, "parties": 10, "shares": 10, "values": 7700,
    "bits": 12, "clip": 1.0,
}  # fmt: skip


def made(**changes: Any) -> Mechanism:
    return design(**{**DIGITS, **changes})


CASES: list[dict[str, Any]] = [
    {},
    {"bits": 10},
    {"bits": 16, "epsilon": 0.5, "clip": 0.03},
    {"epsilon": 40.0, "rounds": 1, "bits": 9},
    {"shares": 7, "delta": 1e-9},
    {"parties": 100, "shares": 80, "rounds": 100, "values": 421_642, "bits": 14},
    {"parties": 1, "shares": 1, "values": 1, "bits": 8, "rounds": 3},
]


@pytest.mark.parametrize("changes", CASES, ids=str)
def test_epsilon_is_the_librarys(changes: dict[str, Any]) -> None:
    """Round by round, from the published theorem with its terms written out again."""
    m = made(**changes)
    noise = m.shares * m.scale**2
    tau = 10 * sum(math.exp(-2 * math.pi**2 * m.scale**2 * k / (k + 1)) for k in range(1, m.shares))
    rho = min(
        m.norm**2 / (2 * noise) + tau * m.values,
        (m.norm / math.sqrt(noise) + tau * math.sqrt(m.values)) ** 2 / 2,
    )
    accountant = rdp.RdpAccountant(
        neighboring_relation=dp_accounting.NeighboringRelation.REPLACE_SPECIAL
    )
    for _ in range(m.rounds):
        accountant.compose(dp_accounting.ZCDpEvent(rho))
    tails = m.delta * 1e-3
    theirs = accountant.get_epsilon(m.delta - tails)
    assert m.spent(m.rounds) == pytest.approx(theirs, rel=1e-9)
    assert m.epsilon * (1 - 1e-4) < m.spent(m.rounds) <= m.epsilon * (1 + 1e-9)
    assert m.facts("test")["epsilon"] == m.spent(m.rounds)
    spent = [m.spent(rounds) for rounds in range(1, m.rounds + 1)]
    assert spent == sorted(spent)


@pytest.mark.parametrize("changes", CASES, ids=str)
def test_integers_fit_but_with_the_probability_that_delta_covers(changes: dict[str, Any]) -> None:
    m = made(**changes)
    assert math.ceil(m.clip / m.step) + m.tail <= m.q_max
    # The exact tail of the discrete Gaussian; terms beyond 40 deviations are below 1e-340.
    x = np.arange(m.tail + 1, m.tail + 1 + math.ceil(40 * m.scale), dtype=np.float64)
    body = np.arange(-math.ceil(40 * m.scale), math.ceil(40 * m.scale) + 1, dtype=np.float64)
    total = np.exp(-(body**2) / (2 * m.scale**2)).sum()
    tail = 2 * np.exp(-(x**2) / (2 * m.scale**2)).sum() / total
    beta = m.parties * m.rounds * m.values * float(tail)
    assert (1 + math.exp(m.epsilon)) * beta <= m.delta * 1e-3


@pytest.mark.parametrize("changes", CASES, ids=str)
def test_the_norm_of_rounded_updates(changes: dict[str, Any]) -> None:
    """Theorem 1 of arXiv 2102.06387 with b = exp(-1/2), gamma = 1 and c in steps."""
    m = made(**changes)
    c, d = m.clip / m.step, m.values
    assert m.norm == pytest.approx(
        min(math.sqrt(c * c + d / 4 + c + math.sqrt(d) / 2), c + math.sqrt(d)), rel=1e-12
    )
    assert 1 <= m.inflation <= MAX_INFLATION


def log_pmf(scale: float, shares: int, reach: int) -> NDArray[np.float64]:
    """Logarithms of the probabilities of a sum of discrete Gaussians, from -reach to reach."""
    x = np.arange(-reach, reach + 1, dtype=np.float64)
    one = -(x**2) / (2 * scale**2)
    one -= np.logaddexp.reduce(one)
    total = one
    for _ in range(shares - 1):
        shifts = np.arange(-reach, reach + 1)
        terms = np.full((x.size, x.size), -np.inf)
        for row, shift in enumerate(shifts):  # total[y - shift] + one[shift]
            start, stop = max(0, shift), min(x.size, x.size + shift)
            terms[row, start:stop] = total[start - shift : stop - shift] + one[row]
        total = np.logaddexp.reduce(terms, axis=0)
    return total


@pytest.mark.parametrize("scale", [1.0, 1.3, 2.5])
@pytest.mark.parametrize("shares", [1, 2, 3, 5])
@pytest.mark.parametrize("shift", [1, 2, 4])
def test_one_round_is_as_private_as_is_said(scale: float, shares: int, shift: int) -> None:
    """Renyi divergences of the exact sum of discrete Gaussians and the same shifted, for one value:
    at most ``alpha rho``, and at these scales not much less.
    """
    largest = 6.0
    reach = math.ceil(largest * shift + 14 * scale * math.sqrt(shares))
    log_p = log_pmf(scale, shares, 2 * reach)
    rho = Mechanism(1, 1, shift, scale, 100, 127, 1, 1, shares, shares, 1.0, 1e-5).rho(shares)
    inner = slice(reach, 3 * reach + 1)  # where sums are not cut off at the ends
    here, there = log_p[inner], np.roll(log_p, shift)[inner]
    for alpha in (1.5, 2.0, 3.0, largest):
        for p, q in ((here, there), (there, here)):
            divergence = np.logaddexp.reduce(alpha * p + (1 - alpha) * q) / (alpha - 1)
            assert 0.85 * alpha * rho < divergence <= alpha * rho * (1 + 1e-9)


def test_noise_is_that_of_the_gaussian_mechanism_but_for_rounding() -> None:
    """With fine steps up to 10 % above exact accounting of continuous noise: zCDP is not tight."""
    z = made(bits=16).facts("test")["noise_multiplier"]
    exact = dp_accounting.get_sigma_gaussian(8.0, 1e-5) * math.sqrt(10)
    assert exact < z < 1.1 * exact
    coarse = made(bits=10)
    ratio = coarse.facts("test")["noise_multiplier"] / z
    assert ratio == pytest.approx(coarse.inflation / made(bits=16).inflation, rel=1e-6)


def test_missing_noise_is_made_up_for() -> None:
    """With 7 of 10 shares as private as asked; with all ten, more so."""
    m = made(shares=7)
    assert m.spent(10) == pytest.approx(8.0, rel=1e-4)
    assert m.spent(10, 10) < 8.0 < m.spent(10, 6)
    facts = m.facts("test")
    assert facts["epsilon_against_participants"] == m.spent(10, 6)
    assert facts["epsilon_of_single_updates"] == m.spent(10, 1)
    assert made(parties=1, shares=1, values=1).facts("test")["epsilon_against_participants"] is None
    assert [least_shares(10, missing) for missing in (0.0, 0.1, 0.25, 0.3, 0.99)] == [
        10,
        9,
        8,
        7,
        1,
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bits": 8}, "allowed here: bits = 10 or more"),
        ({"bits": 2}, "do not fit integers up to 1"),
        (
            {"epsilon": 1e-3, "values": 10**7, "parties": 2, "shares": 2},
            "fits no integers of up to 16 bits; allowed: a larger dp-epsilon, fewer rounds, more",
        ),
        ({"epsilon": 0.0}, "dp-epsilon is 0.0; allowed: finite and positive"),
        ({"epsilon": math.inf}, "dp-epsilon is inf"),
        ({"delta": 0.0}, "dp-delta is 0.0; allowed: above 0, below 1"),
        ({"clip": -1.0}, "dp-clip is -1.0; allowed: finite and positive"),
        ({"rounds": 0}, "rounds is 0; allowed: 1 or more"),
        ({"values": 0}, "values is 0; allowed: 1 or more"),
        ({"shares": 11}, "11 shares of noise; allowed: 1 to 10, the parties"),
        ({"shares": 0}, "0 shares of noise"),
    ],
)
def test_impossible_configurations_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(MethodError) as caught:
        made(**changes)
    assert message in str(caught.value)


def test_the_bits_that_are_named_do() -> None:
    with pytest.raises(MethodError, match="bits = 9 with"):
        made(bits=9)
    assert made(bits=10).q_max == 511


def test_epsilon_of_concentrated_privacy() -> None:
    """Below the textbook's conversion, rho + 2 sqrt(rho log(1 / delta)), and above the exact
    Gaussian mechanism's of the same rho."""
    for rho in (0.01, 0.3, 2.0):
        ours = epsilon_of(rho, 1e-5)
        assert ours <= rho + 2 * math.sqrt(rho * math.log(1e5))
        mu = math.sqrt(2 * rho)
        exact = stats.norm.cdf(mu / 2 - ours / mu) - math.exp(ours) * stats.norm.cdf(
            -mu / 2 - ours / mu
        )
        assert exact <= 1e-5
