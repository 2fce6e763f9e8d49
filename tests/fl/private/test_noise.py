"""The noise as clients draw it, and as it comes out of the decrypted sum."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

pytest.importorskip("dp_accounting", reason="needs the [privacy] extra")
pytest.importorskip("opendp", reason="needs the [privacy] extra")

from hypothesis import given, settings
from hypothesis import strategies as st

from quancrypt_fl.errors import MethodError
from quancrypt_fl.method.private import bounded_integers
from quancrypt_fl.private.accounting import Mechanism, design
from quancrypt_fl.private.noise import discrete_gaussian, sampler_name
from quancrypt_fl.private.side import NoisySide
from quancrypt_fl.protect import Channel

F32 = np.float32
# Draws are the operating system's. Each assertion fails by chance less than once in 10^8 runs.
FEWEST = 5.8  # standard deviations


@pytest.mark.parametrize("scale", [1.0, 3.7, 195.0])
def test_draws_are_discrete_gaussian(scale: float) -> None:
    """Pearson's chi-square against the exact probabilities, and the variance."""
    draws = discrete_gaussian(scale)(20_000)
    assert draws.dtype == np.int64
    spread = np.arange(-math.ceil(12 * scale), math.ceil(12 * scale) + 1)
    pmf = np.exp(-(spread.astype(float) ** 2) / (2 * scale**2))
    pmf /= pmf.sum()
    edges = stats.norm.ppf(np.linspace(0, 1, 22)[1:-1]) * scale
    cells = np.digitize(spread, edges)
    expected = np.bincount(cells, weights=pmf, minlength=21) * draws.size
    seen = np.bincount(np.digitize(draws, edges), minlength=21)
    usual = expected > 20
    chi = float((np.square(seen[usual] - expected[usual]) / expected[usual]).sum())
    assert chi < stats.chi2.isf(1e-9, int(usual.sum()) - 1)
    variance = float((pmf * spread.astype(float) ** 2).sum())
    kurtosis = float((pmf * spread.astype(float) ** 4).sum()) / variance**2
    off = float(np.square(draws, dtype=np.float64).mean()) / variance - 1
    assert abs(off) < FEWEST * math.sqrt((kurtosis - 1) / draws.size)


def test_draws_differ_from_call_to_call() -> None:
    draw = discrete_gaussian(50.0)
    assert (draw(200) != draw(200)).any()
    assert draw(0).shape == (0,)
    assert "operating system" in sampler_name()


# --- through encryption ---


def mechanism(values: int, parties: int) -> Mechanism:
    return design(
        epsilon=8.0, delta=1e-5, rounds=2, parties=parties, shares=parties, values=values,
        bits=12, clip=1.0,
    )  # fmt: skip


@pytest.mark.parametrize("encrypted", [True, False])
def test_the_decrypted_sum_has_the_noise_of_all(encrypted: bool) -> None:
    """Six clients, updates of zeros: variance, mean and normality of what comes out."""
    parties, values = 6, 6000
    m = mechanism(values, parties)
    channel = Channel(bits=12, max_weight=8, security=128, values=values)
    draw = discrete_gaussian(m.scale)
    summing = channel.server()
    make = channel.client if encrypted else channel.plain_client
    if not encrypted:
        from quancrypt_fl.protect import PlainIntegerSummer

        summing = PlainIntegerSummer()  # type: ignore[assignment]
    side = NoisySide(make(), m, lambda t: np.random.default_rng(t), draw)
    for _ in range(parties):
        summing.add(side.protect({"w": np.zeros(values, F32)}, {}, 0).data, 1)
    mean, weight = side.unprotect(summing.result())
    assert weight == parties
    sums = np.rint(mean["w"].astype(np.float64) / m.step * parties)
    np.testing.assert_allclose(mean["w"] / m.step * parties, sums, atol=1e-3)  # whole steps
    off = float(np.square(sums).mean()) / (parties * m.scale**2) - 1
    assert abs(off) < FEWEST * math.sqrt(2 / values)
    assert abs(sums.mean()) < FEWEST * m.scale * math.sqrt(parties / values)
    assert stats.kstest(sums / (m.scale * math.sqrt(parties)), "norm").pvalue > 1e-9


@pytest.mark.parametrize("encrypted", [True, False])
def test_with_one_source_of_noise_the_twin_in_the_clear_is_equal(encrypted: bool) -> None:
    """The seam: seeded noise in place of the system's; NumPy's sum is the reference."""
    parties, values = 5, 700
    m = mechanism(values, parties)
    rng = np.random.default_rng(9)
    updates = [{"a": rng.normal(0, 0.1, 300).astype(F32), "b": rng.normal(0, 1, 400).astype(F32)}
               for _ in range(parties)]  # fmt: skip
    channel = Channel(bits=12, max_weight=8, security=128, values=values)
    if encrypted:
        summing, inner = channel.server(), channel.client()
    else:
        from quancrypt_fl.protect import PlainIntegerSummer

        summing, inner = PlainIntegerSummer(), channel.plain_client()  # type: ignore[assignment]

    def seeded(client: int):  # type: ignore[no-untyped-def]
        source = np.random.default_rng((1, client))
        return lambda size: np.rint(source.normal(0, m.scale, size)).astype(np.int64)

    expected = {"a": np.zeros(300, np.int64), "b": np.zeros(400, np.int64)}
    for client, update in enumerate(updates):
        side = NoisySide(
            inner, m, lambda t, c=client: np.random.default_rng((t, c)), seeded(client)
        )
        summing.add(side.protect(update, {}, 4).data, 1)
        integers = bounded_integers(
            update, m.clip, m.step, m.norm, np.random.default_rng((4, client))
        )
        noise = seeded(client)
        for name, integer in integers.items():
            expected[name] += np.clip(integer + noise(integer.size), -m.q_max, m.q_max)
    mean, weight = side.unprotect(summing.result())
    assert weight == parties
    for name, total in expected.items():
        np.testing.assert_array_equal(
            mean[name], (total * (1.0 / parties)).astype(F32) * F32(m.step), err_msg=name
        )


def test_integers_beyond_are_cut_off_not_wrapped() -> None:
    m = mechanism(100, 2)
    channel = Channel(bits=12, max_weight=2, security=128, values=100)
    far = NoisySide(
        channel.client(), m, np.random.default_rng, lambda size: np.full(size, 10**6, np.int64)
    )
    summing = channel.server()
    for _ in range(2):
        summing.add(far.protect({"w": np.zeros(100, F32)}, {}, 0).data, 1)
    mean, _ = far.unprotect(summing.result())
    assert set((mean["w"] / F32(m.step)).tolist()) == {2047.0}


def test_more_values_than_were_accounted_for_are_refused() -> None:
    m = mechanism(100, 2)
    channel = Channel(bits=12, max_weight=2, security=128, values=101)
    side = NoisySide(channel.client(), m, np.random.default_rng, discrete_gaussian(m.scale))
    with pytest.raises(MethodError, match="more than the 100 values"):
        side.protect({"w": np.zeros(101, F32)}, {}, 0)
    with pytest.raises(MethodError, match="error_feedback is not allowed"):
        side.quantized({"w": np.zeros(101, F32)}, {}, 0)


# --- integers of bounded norm ---


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 400), st.integers(0, 2**32), st.floats(1e-6, 1e6), st.floats(1.0, 900.0)
)  # fmt: skip
def test_the_norm_of_integers_is_bounded_always(
    size: int, seed: int, length: float, units: float
) -> None:
    rng = np.random.default_rng(seed)
    update = {"w": (rng.standard_t(2, size) * length).astype(F32), "none": np.zeros((0, 3), F32)}
    norm = min(
        math.sqrt(units**2 + size / 4 + units + math.sqrt(size) / 2), units + math.sqrt(size)
    )
    clip = float(np.linalg.norm(update["w"].astype(float))) * rng.uniform(0.3, 3) + 1e-30
    integers = bounded_integers(update, clip, clip / units, norm, rng)
    assert integers["none"].shape == (0, 3)
    assert int(integers["w"] @ integers["w"]) <= norm * norm
    assert np.abs(integers["w"]).max() <= math.ceil(units)


def test_rounding_has_hardly_a_bias_and_scales_what_is_longer() -> None:
    """2,000 draws of one update, of four times the norm that is allowed."""
    rng = np.random.default_rng(1)
    update = {"w": rng.normal(0, 1, 50).astype(F32)}
    length = float(np.linalg.norm(update["w"].astype(float)))
    units, clip = 40.0, length / 4
    norm = math.sqrt(units**2 + 50 / 4 + units + math.sqrt(50) / 2)
    draws = [bounded_integers(update, clip, clip / units, norm, rng)["w"] for _ in range(2000)]
    exact = update["w"].astype(float) * units / length
    assert np.abs(np.mean(draws, axis=0) - exact).max() < 0.06  # 5 sigma of a rounding: 0.056


def test_if_draws_do_not_help_values_are_cut_off() -> None:
    """A bound that no rounding up can meet."""
    update = {"w": np.full(100, 0.9, F32)}
    integers = bounded_integers(update, 9.0, 1.0, 9.001, np.random.default_rng(1))["w"]
    assert int(integers @ integers) <= 81
    with pytest.raises(MethodError, match=r"norm is 0[.]5; allowed: above clip"):
        bounded_integers({"w": np.full(1, 9, F32)}, 9.0, 1.0, 0.5, np.random.default_rng(1))


def test_diverged_updates_are_refused() -> None:
    with pytest.raises(MethodError, match="NaN or infinity: local training diverged"):
        bounded_integers({"w": np.array([np.nan], F32)}, 1, 1, 2, np.random.default_rng(1))
    zeros = bounded_integers({"w": np.zeros(3, F32)}, 1, 1, 2, np.random.default_rng(1))
    assert not zeros["w"].any()
