"""``quantize``, ``dequantize`` and ``mean_clip_bound`` against NumPy."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.native.conftest import packed

import quancrypt_native as qn

FLOATS = {
    np.float32: st.floats(-(2.0**100), 2.0**100, width=32),
    np.float64: st.floats(-(2.0**100), 2.0**100),
}


def reference(x: np.ndarray, clip: float, bits: int) -> np.ndarray:
    """The documented formula in the arithmetic of the input's type."""
    kind = x.dtype.type
    q_max = 2 ** (bits - 1) - 1
    bound, scale = kind(clip), kind(q_max / clip)
    return np.clip(np.rint(np.clip(x, -bound, bound) * scale), -q_max, q_max).astype(np.int16)


@given(data=st.data(), bits=st.integers(2, 16), clip=st.floats(1e-30, 1e30))
@settings(max_examples=400, deadline=None)
def test_quantize_is_numpys_clip_and_rint(data: st.DataObject, bits: int, clip: float) -> None:
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9))
    elements = st.one_of(
        FLOATS[dtype],
        st.sampled_from([0.0, -0.0, clip, -clip, clip / 2, 2 * clip]).map(
            lambda v: float(dtype(v))
        ),
    )
    x = data.draw(hnp.arrays(dtype, shape, elements=elements))
    before = x.copy()
    with np.errstate(over="ignore", under="ignore"):
        expected = reference(x, clip, bits)
    q = qn.quantize(x, clip, bits)
    assert q.dtype == np.int16
    assert q.shape == shape
    np.testing.assert_array_equal(q, expected)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bits", range(2, 17))
def test_quantize_around_every_step(bits: int, dtype: type) -> None:
    """On, halfway between, and one ulp beside each of the representable values."""
    q_max = 2 ** (bits - 1) - 1
    halves = np.arange(-2 * q_max, 2 * q_max + 1).astype(dtype) / dtype(2)
    for clip in (float(q_max), 0.05, 3.0):
        x = (halves * dtype(clip / q_max)).astype(dtype)
        x = np.concatenate([x, np.nextafter(x, dtype(9)), np.nextafter(x, dtype(-9))])
        np.testing.assert_array_equal(qn.quantize(x, clip, bits), reference(x, clip, bits))
    q = qn.quantize(halves, float(q_max), bits)
    np.testing.assert_array_equal(q, np.rint(halves))
    assert (q[0], q[-1]) == (-q_max, q_max)


@pytest.mark.parametrize(
    "length", [0, 1, 2, 3, *range(6, 20), *range(30, 36), 63, 64, 65, 1023, 1025]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_quantize_at_vector_widths(length: int, dtype: type) -> None:
    rng = np.random.default_rng(length)
    whole = rng.normal(0, 1, length + 5).astype(dtype)
    for offset in range(5):
        x = whole[offset : offset + length]
        np.testing.assert_array_equal(qn.quantize(x, 1.5, 8), reference(x, 1.5, 8))


@pytest.mark.parametrize("bits", [2, 8, 16])
def test_encryption_quantizes_the_same(bits: int) -> None:
    party = packed(bits=bits, max_weight=3, max_poly_degree=4096)
    rng = np.random.default_rng(1)
    for dtype in (np.float32, np.float64):
        x = rng.normal(0, 0.1, (50, 60)).astype(dtype)
        result = party.decryptor.decrypt_integers(party.encryptor.encrypt(x, clip=0.15))
        np.testing.assert_array_equal(result, qn.quantize(x, 0.15, bits))
        mean = party.decryptor.decrypt_mean(party.encryptor.encrypt(x, clip=0.15))
        np.testing.assert_array_equal(mean, qn.dequantize(np.asarray(result), 0.15, bits))


@given(
    q=hnp.arrays(
        np.int64, hnp.array_shapes(min_dims=0, max_side=6), elements=st.integers(-(2**31), 2**31)
    ),
    clip=st.floats(1e-30, 1e20),  # products stay in the range of float32
    bits=st.integers(2, 16),
)
@example(q=np.array(7), clip=1.0, bits=2)
@settings(deadline=None)
def test_dequantize(q: np.ndarray, clip: float, bits: int) -> None:
    expected = q.astype(np.float64) * (clip / (2 ** (bits - 1) - 1))
    with np.errstate(over="ignore", under="ignore"):
        expected32 = expected.astype(np.float32)
    result = qn.dequantize(q, clip, bits)
    assert result.dtype == np.float32
    assert result.shape == q.shape
    np.testing.assert_array_equal(result, expected32)


def test_dequantize_takes_sums_and_means_of_any_type() -> None:
    for q in (
        np.array([1, -2], np.int8),
        np.array([1, 2], np.uint16),
        np.array([1.5, -2.25]),
        np.array([1.5], np.float32),
        np.array([1, 2], ">i4"),
        torch.tensor([1, -2]),
        torch.tensor([0.5]),
    ):
        expected = (np.asarray(q).astype(np.float64) * (0.5 / 127)).astype(np.float32)
        np.testing.assert_array_equal(qn.dequantize(q, 0.5, 8), expected)


def test_quantize_and_back_is_within_half_a_step() -> None:
    rng = np.random.default_rng(3)
    for bits in range(2, 17):
        x = rng.uniform(-2, 2, 1000)
        back = qn.dequantize(qn.quantize(x, 2.0, bits), 2.0, bits)
        step = 2.0 / (2 ** (bits - 1) - 1)
        assert np.abs(back - x).max() <= step / 2 + 4 * np.finfo(np.float32).eps


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_mean_clip_bound(dtype: type) -> None:
    rng = np.random.default_rng(4)
    for shape in ((), (1,), (1000,), (7, 11, 13)):
        x = rng.normal(0.1, 2, shape).astype(dtype)
        for factor in (1e-6, 1.0, 3.0, 2, np.float32(2.5), 1e6):
            expected = float(factor) * np.abs(x.astype(np.float64)).mean()
            bound = qn.mean_clip_bound(x, factor)
            assert isinstance(bound, float)
            assert bound == pytest.approx(expected, rel=1e-12)
        assert qn.mean_clip_bound(x) == qn.mean_clip_bound(x, factor=3.0)
        assert qn.mean_clip_bound(torch.from_numpy(np.array(x))) == qn.mean_clip_bound(x)
        assert qn.mean_clip_bound(-x) == qn.mean_clip_bound(x)


def test_mean_clip_bound_is_summed_in_double() -> None:
    """A float32 accumulator would lose the ones beside 2^24."""
    x = np.ones(2**20, np.float32)
    x[0] = 2**24
    expected = 3.0 * (2**24 + 2**20 - 1) / 2**20
    assert qn.mean_clip_bound(x) == pytest.approx(expected, rel=1e-12)


def test_mean_clip_bound_of_zeros_is_no_bound() -> None:
    assert qn.mean_clip_bound(np.zeros(5)) == 0.0
    with pytest.raises(qn.ParameterError, match="clip is 0"):
        qn.quantize(np.zeros(5), qn.mean_clip_bound(np.zeros(5)), 8)


X = np.ones(3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: qn.quantize(X, 0, 8), "clip is 0; allowed: 1e-30 to 1e+30"),
        (lambda: qn.quantize(X, -1, 8), "clip is -1"),
        (lambda: qn.quantize(X, float("nan"), 8), "clip is nan"),
        (lambda: qn.quantize(X, None, 8), "clip is None"),
        (lambda: qn.quantize(X, 1.0, 1), "bits is 1; allowed: 2 to 16"),
        (lambda: qn.quantize(X, 1.0, 17), "bits is 17"),
        (lambda: qn.quantize(X, 1.0, 8.0), "bits is 8.0"),
        (lambda: qn.quantize([1.0], 1.0, 8), "x is a list"),
        (lambda: qn.quantize(np.arange(3), 1.0, 8), "x has dtype int64"),
        (lambda: qn.quantize({"a": X}, 1.0, 8), "x is a dict"),
        (lambda: qn.quantize(np.array([[0, 1], [np.nan, 0]]), 1.0, 8), "x[1, 0] is NaN"),
        (lambda: qn.quantize(np.array(np.inf), 1.0, 8), "x[] is NaN or infinite"),
        (lambda: qn.dequantize(X, 0, 8), "clip is 0"),
        (lambda: qn.dequantize(X, 1.0, 1), "bits is 1"),
        (lambda: qn.dequantize([1], 1.0, 8), "'q' is a list"),
        (lambda: qn.dequantize(np.array([1j]), 1.0, 8), "q has dtype complex128"),
        (lambda: qn.dequantize(np.array([True]), 1.0, 8), "q has dtype bool"),
        (lambda: qn.mean_clip_bound(np.empty(0)), "x is empty"),
        (lambda: qn.mean_clip_bound(np.array([1, np.nan])), "x holds NaN or infinity"),
        (lambda: qn.mean_clip_bound(np.array([1, -np.inf])), "x holds NaN or infinity"),
        (lambda: qn.mean_clip_bound(X, 0), "factor is 0"),
        (lambda: qn.mean_clip_bound(X, -3.0), "factor is -3"),
        (lambda: qn.mean_clip_bound(X, float("nan")), "factor is nan"),
        (lambda: qn.mean_clip_bound(X, "3"), "factor is '3'"),
        (lambda: qn.mean_clip_bound(np.arange(3)), "x has dtype int64"),
        (lambda: qn.mean_clip_bound([1.0]), "x is a list"),
    ],
)
def test_wrong_arguments(call: Any, message: str) -> None:
    with pytest.raises(qn.ParameterError, match=re.escape(message)):
        call()
