"""BatchCrypt's arithmetic: clip bounds, rounding, lanes. Nothing is encrypted here."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from quancrypt_fl.baselines.batchcrypt import Lanes, clips_from_ranges, layer_ranges
from quancrypt_fl.baselines.batchcrypt.daciq import MAX_BITS, MIN_BITS, sigma, unit_factor
from quancrypt_fl.baselines.batchcrypt.quantize import dequantize_mean, quantize
from quancrypt_fl.errors import MethodError
from quancrypt_fl.method.clipping import MIN_BOUND

# --- clip bounds ---

PUBLISHED = {
    2: 1.71063516, 3: 2.02612148, 4: 2.39851063, 5: 2.76873681, 6: 3.12262004, 7: 3.45733738,
    8: 3.77355322, 9: 4.07294252, 10: 4.35732563, 11: 4.62841243, 12: 4.88765043, 13: 5.1363822,
    14: 5.37557768, 15: 5.60671468, 16: 5.82964388,
}  # fmt: skip


def slope(a: float, bits: int) -> float:
    """Derivative of the function that ``a_b`` minimises, by hand."""
    tail = a * math.erfc(a / math.sqrt(2)) - math.sqrt(2 / math.pi) * math.exp(-a * a / 2)
    return 2 * tail + 4 * a * (2**bits - 2) / (3 * 2 ** (3 * bits))


@pytest.mark.parametrize("bits", range(MIN_BITS, MAX_BITS + 1))
def test_the_factor_minimises_the_printed_function(bits: int) -> None:
    a = unit_factor(bits)
    assert slope(a * (1 - 1e-5), bits) < 0 < slope(a * (1 + 1e-5), bits)
    # The published figures were minimised with `1 - erf`, which loses digits at many bits.
    assert a == pytest.approx(PUBLISHED[bits], abs=4e-4)


def test_the_factors_of_the_reference() -> None:
    assert unit_factor(8) == pytest.approx(3.7736, abs=5e-5)
    assert unit_factor(16) == pytest.approx(5.8296, abs=3e-4)


@pytest.mark.parametrize("bits", [1, 17])
def test_bits_out_of_range(bits: int) -> None:
    with pytest.raises(MethodError, match=f"bits is {bits}; allowed: 2 to 16"):
        unit_factor(bits)


def test_clip_is_factor_times_sigma() -> None:
    reports = [{"w": np.array(pair, np.float32)} for pair in ((-0.25, 0.5), (-0.75, 0.25))]
    clips = clips_from_ranges(reports, {"w": 500}, bits=8, parties=4)
    constant = 0.175 * (1 + math.sqrt(math.pi * math.log(4)))
    expected = 1.25 * constant / math.sqrt(2 * math.log(2000))
    assert sigma(-0.75, 0.5, 2000) == pytest.approx(expected)
    assert clips["w"] == pytest.approx(unit_factor(8) * expected)


def test_sigma_is_right_for_gaussian_values() -> None:
    values = np.random.default_rng(1).normal(0, 0.02, 400_000)
    assert sigma(values.min(), values.max(), values.size) == pytest.approx(0.02, rel=0.1)


def test_degenerate_layers_have_a_bound() -> None:
    tensors = {
        "zeros": np.zeros(7, np.float32),
        "equal": np.full(7, -0.5, np.float32),
        "one": np.array([0.25], np.float32),
        "none": np.zeros(0, np.float32),
    }
    sizes = {name: tensor.size for name, tensor in tensors.items()}
    clips = clips_from_ranges([layer_ranges(tensors)], sizes, bits=8, parties=1)
    assert clips == {"zeros": MIN_BOUND, "equal": 0.5, "one": 0.25, "none": MIN_BOUND}
    lanes = Lanes.fill(8, 1, 512)
    rng = np.random.default_rng(1)
    for name, tensor in tensors.items():
        integers = quantize(name, tensor, clips[name], lanes, rng)
        back = dequantize_mean(integers, clips[name], lanes, 1)
        np.testing.assert_array_equal(back, tensor)


def test_reports_are_checked() -> None:
    good = {"w": np.array([-1, 1], np.float32)}
    for reports, message in (
        ([], "0 reports of ranges"),
        ([good] * 3, "3 reports of ranges; allowed: 1 to 2"),
        ([{"v": good["w"]}], r"names \['v'\]; the layers are \['w'\]"),
        ([{"w": np.array([1, -1], np.float32)}], "minimum above its maximum"),
        ([{"w": np.array([np.nan, 1], np.float32)}], "not two finite numbers"),
        ([{"w": np.zeros(3, np.float32)}], "not two finite numbers"),
    ):
        with pytest.raises(MethodError, match=message):
            clips_from_ranges(reports, {"w": 5}, bits=8, parties=2)
    with pytest.raises(MethodError, match="'w' holds NaN or infinity"):
        layer_ranges({"w": np.array([1, np.inf], np.float32)})


# --- rounding ---


@pytest.mark.parametrize("parties", [1, 3, 10, 127, 1000])
def test_rounding_is_unbiased_and_in_range(parties: int) -> None:
    lanes = Lanes.fill(8, parties, 2048)
    rng = np.random.default_rng(7)
    x = np.float32(0.013)
    q = quantize("w", np.full(200_000, x), 0.05, lanes, rng)
    exact = float(x) * lanes.q_max / (0.05 * parties)
    assert set(np.unique(q)) <= {math.floor(exact), math.floor(exact) + 1}
    part = exact - math.floor(exact)
    assert q.mean() == pytest.approx(exact, abs=5 * math.sqrt(part * (1 - part) / q.size))
    ends = quantize("w", np.array([-9, -0.05, 0.05, 9], np.float32), 0.05, lanes, rng)
    assert np.abs(ends).max() <= lanes.limit
    assert (np.sign(ends) * np.array([-1, -1, 1, 1]) >= 0).all()


def test_what_cannot_be_quantized() -> None:
    lanes, rng = Lanes.fill(8, 2, 512), np.random.default_rng(1)
    with pytest.raises(MethodError, match="'w' holds NaN"):
        quantize("w", np.array([np.nan], np.float32), 1.0, lanes, rng)
    for clip in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(MethodError, match=f"bound of 'w' is {clip}"):
            quantize("w", np.ones(1, np.float32), clip, lanes, rng)


# --- lanes ---


def naive_pack(values: NDArray[np.int32], lanes: Lanes) -> list[int]:
    """The definition, value by value."""
    packed = []
    for start in range(0, len(values), lanes.count):
        number = 0
        for place, value in enumerate(values[start : start + lanes.count].tolist()):
            number += (value % 2**lanes.sum_bits) << (lanes.lane_bits * place)
        packed.append(number)
    return packed


def naive_lane(number: int, place: int, lanes: Lanes) -> int:
    low = (number >> (lanes.lane_bits * place)) % 2**lanes.sum_bits
    return low - 2**lanes.sum_bits if low >> (lanes.sum_bits - 1) else low


@given(
    bits=st.integers(2, 16),
    parties=st.integers(1, 100),
    modulus_bits=st.integers(64, 600),
    size=st.integers(0, 150),
    seed=st.integers(0, 2**32 - 1),
)
def test_lanes_equal_their_definition(
    bits: int, parties: int, modulus_bits: int, size: int, seed: int
) -> None:
    lanes = Lanes.fill(bits, parties, modulus_bits)
    rng = np.random.default_rng(seed)
    updates = rng.integers(-lanes.limit, lanes.limit, (parties, size), np.int32, endpoint=True)
    packed = [lanes.pack(update) for update in updates]
    assert packed[0] == naive_pack(updates[0], lanes)
    assert all(0 <= n < 2 ** (modulus_bits - 1) for n in packed[0])
    sums = [sum(numbers) for numbers in zip(*packed, strict=True)]
    assert all(n < 2 ** (modulus_bits - 1) for n in sums)  # below every modulus of these bits
    decoded = lanes.unpack(sums, size)
    np.testing.assert_array_equal(decoded, updates.sum(axis=0))
    naive = [naive_lane(sums[i // lanes.count], i % lanes.count, lanes) for i in range(size)]
    assert decoded.tolist() == naive


@pytest.mark.parametrize("bits", [2, 3, 8, 16])
def test_sums_of_any_number_of_parties_are_exact(bits: int) -> None:
    """All at the limits, all rounded up or down, and random, for 1 to 100 parties."""
    rng = np.random.default_rng(bits)
    for parties in range(1, 101):
        lanes = Lanes.fill(bits, parties, 512)
        updates = rng.integers(-lanes.limit, lanes.limit, (parties, 60), np.int32, endpoint=True)
        updates[:, 0], updates[:, 1], updates[:, 2] = lanes.limit, -lanes.limit, -1
        updates[:, -1] = -lanes.limit
        sums = [sum(numbers) for numbers in zip(*map(lanes.pack, updates), strict=True)]
        np.testing.assert_array_equal(lanes.unpack(sums, 60), updates.sum(axis=0))


def test_lanes_are_no_wider_than_needed() -> None:
    for bits, parties in ((8, 10), (16, 10), (8, 100), (8, 2)):
        lanes = Lanes.fill(bits, parties, 2048)
        assert lanes.lane_bits == bits + 1 + math.ceil(math.log2(parties))
        assert lanes.count == 2047 // lanes.lane_bits
    assert Lanes.fill(8, 10, 2048).count == 157
    with pytest.raises(MethodError, match="10 parties at 8 bits need at least one of 13"):
        Lanes(8, 10, 12, 100)


def test_the_published_layout() -> None:
    lanes = Lanes.published()
    assert (lanes.bits, lanes.lane_bits, lanes.count) == (16, 19, 100)
    assert lanes.integers(421_642) == 4217
    assert Lanes.fill(16, 10, 2048).integers(421_642) == 4347  # right for 10 parties, not for 4
    with pytest.raises(MethodError, match="10 parties at 16 bits need at least one of 21"):
        Lanes(16, 10, lanes.lane_bits, lanes.count)


def published_decoder(lane: int, bits: int) -> int:
    """What the published code makes of a lane of ``bits + 3`` bits, by its top four."""
    top, rest = lane >> (bits - 1), lane & (2 ** (bits - 1) - 1)
    q_max = 2 ** (bits - 1) - 1
    if top in (0b0000, 0b0100):
        return rest
    if top in (0b0011, 0b0111):
        return rest - 2 ** (bits - 1)
    return q_max if top == 0b0001 else -q_max


def wrong_lanes(parties: int) -> float:
    """Share of lanes that the published layout and decoder read wrongly."""
    bits, width, size = 16, 19, 2000
    rng = np.random.default_rng(parties)
    most = (2 ** (bits - 1) - 1) // parties
    updates = rng.normal(0, most / 4, (parties, size)).round().clip(-most, most).astype(int)
    total = sum(
        (value % 2 ** (bits + 1)) << (width * place)
        for update in updates.tolist()
        for place, value in enumerate(update)
    )
    lanes = [(total >> (width * place)) % 2**width for place in range(size)]
    decoded = [published_decoder(lane, bits) for lane in lanes]
    return float((np.array(decoded) != updates.sum(axis=0)).mean())


def test_the_published_decoder_is_right_for_two_parties_only() -> None:
    assert wrong_lanes(2) == 0
    assert wrong_lanes(10) > 0.5


def test_wrong_input_to_lanes() -> None:
    lanes = Lanes.fill(8, 10, 512)
    with pytest.raises(MethodError, match="integers from -14 to 0; allowed: -13 to 13"):
        lanes.pack(np.array([0, -14], np.int32))
    with pytest.raises(MethodError, match="1 integers for 40 values; allowed: 2"):
        lanes.unpack([0], 40)
    for number in (-1, 1 << (lanes.lane_bits * lanes.count)):
        with pytest.raises(MethodError, match="not within its lanes of 507 bits"):
            lanes.unpack([number], 5)
    for bits, parties, message in (
        (1, 2, "bits is 1"),
        (8, 0, "parties is 0"),
        (8, 2**21, "parties is 2097152"),
    ):
        with pytest.raises(MethodError, match=message):
            Lanes.fill(bits, parties, 512)
    with pytest.raises(MethodError, match="0 lanes of 13 bits"):
        Lanes.fill(8, 10, 13)
