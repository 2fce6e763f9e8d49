"""``quantize_update`` gives the integers that encryption encrypts."""

import os
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.native.conftest import Party, packed, slots

import quancrypt_native as qn


def reference(x: np.ndarray, clip: float, bits: int) -> np.ndarray:
    """Nearest, ties to even, in the arithmetic of the input's type."""
    kind = x.dtype.type
    q_max = 2 ** (bits - 1) - 1
    scaled = np.clip(x, -kind(clip), kind(clip)) * kind(q_max / clip)
    return np.clip(np.rint(scaled), -q_max, q_max).astype(np.int16)


def party_of(bits: int) -> Party:
    return packed(bits=bits, max_weight=2, max_poly_degree=2048)


def assert_equal(one: Any, two: Any) -> None:
    """Arrays or dicts of them: names, order, shapes and values."""
    assert isinstance(one, dict) == isinstance(two, dict)
    pairs = [(one, two)]
    if isinstance(one, dict):
        assert list(one) == list(two)
        pairs = [(one[name], two[name]) for name in one]
    for left, right in pairs:
        assert left.shape == right.shape
        np.testing.assert_array_equal(left, right)


@given(data=st.data(), bits=st.integers(2, 16), stochastic=st.booleans())
@settings(max_examples=60, deadline=None)
def test_it_is_what_encryption_encrypts(data: st.DataObject, bits: int, stochastic: bool) -> None:
    """For dicts of any shapes and types; the state of the generator moves on alike."""
    party = party_of(bits)
    shapes = data.draw(
        st.lists(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9), max_size=4)
    )
    update, clip = {}, {}
    for i, shape in enumerate(shapes):
        dtype = data.draw(st.sampled_from([np.float32, np.float64]))
        values = st.floats(-3, 3, width=32)
        update[f"tensor {9 - i}"] = data.draw(hnp.arrays(dtype, shape, elements=values))
        clip[f"tensor {9 - i}"] = data.draw(st.sampled_from([0.05, 1.0, 2.5]))
    rounding = "stochastic" if stochastic else "nearest"
    one, two = (np.random.default_rng(5) if stochastic else None for _ in range(2))
    q = qn.quantize_update(update, clip, party.params, rounding=rounding, rng=one)
    encrypted = party.encryptor.encrypt(update, clip, rounding=rounding, rng=two)
    assert_equal(q, party.decryptor.decrypt_integers(encrypted))
    assert one is None or two is None or one.bit_generator.state == two.bit_generator.state
    for name, integers in q.items():
        assert integers.dtype == np.int16
        if not stochastic:
            np.testing.assert_array_equal(integers, reference(update[name], clip[name], bits))


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("bits", range(2, 17))
def test_over_several_ciphertexts(bits: int, rounding: str) -> None:
    """Tensors that begin and end anywhere in a ciphertext."""
    party = party_of(bits)
    values = party.params.values_per_ciphertext
    rng = np.random.default_rng(bits)
    update = {
        "a": rng.normal(0, 1, values - 1).astype(np.float32),
        "b": rng.normal(0, 1, (2, values // 2 + 1)),
        "none": np.empty((0, 7), np.float32),
        "c": rng.normal(0, 1, 3).astype(np.float32),
    }
    one, two = (np.random.default_rng(1) if rounding == "stochastic" else None for _ in range(2))
    q = qn.quantize_update(update, 1.5, party.params, rounding=rounding, rng=one)
    encrypted = party.encryptor.encrypt(update, 1.5, rounding=rounding, rng=two)
    assert encrypted.ciphertexts == 2 or encrypted.ciphertexts == 3
    assert_equal(q, party.decryptor.decrypt_integers(encrypted))
    for name, x in update.items():
        exact = np.clip(x.astype(np.float64), -1.5, 1.5) * (party.params.q_max / 1.5)
        assert (
            np.abs(q[name] - exact).max(initial=0)
            <= (0.5 if rounding == "nearest" else 1) + 1e-5 * party.params.q_max
        )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bits", [2, 8, 16])
def test_around_every_step(bits: int, dtype: type) -> None:
    """On, halfway between, and one ulp beside each of the representable values."""
    params = party_of(bits).params
    halves = np.arange(-2 * params.q_max, 2 * params.q_max + 1).astype(dtype) / dtype(2)
    for clip in (float(params.q_max), 0.05, 3.0):
        x = (halves * dtype(clip / params.q_max)).astype(dtype)
        x = np.concatenate([x, np.nextafter(x, dtype(9)), np.nextafter(x, dtype(-9))])
        q = qn.quantize_update(x, clip, params)
        np.testing.assert_array_equal(q, reference(x, clip, bits))
        np.testing.assert_array_equal(q, qn.quantize(x, clip, bits))


@pytest.mark.parametrize(
    "x",
    [
        np.float32([[0.5, -2.0], [0.1, 0.0]]),
        np.array(0.25),
        np.empty((3, 0), np.float32),
        torch.tensor([[0.5, -0.7]]),
        np.asfortranarray(np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)),
        np.linspace(-1, 1, 12, dtype=np.float32)[::-3],
        np.linspace(-1, 1, 5).astype(">f4"),
    ],
    ids=["2d", "0d", "empty", "torch", "fortran", "strided", "big endian"],
)
def test_one_array(x: Any) -> None:
    party = party_of(8)
    q = qn.quantize_update(x, 1.0, party.params)
    assert isinstance(q, np.ndarray)
    assert q.dtype == np.int16
    assert_equal(q, party.decryptor.decrypt_integers(party.encryptor.encrypt(x, 1.0)))
    np.testing.assert_array_equal(
        q, reference(np.asarray(x).astype(np.asarray(x).dtype.newbyteorder("=")), 1.0, 8)
    )


def test_no_tensors() -> None:
    assert qn.quantize_update({}, {}, party_of(8).params) == {}


def test_stochastic_rounding_is_unbiased_and_repeats() -> None:
    params = party_of(8).params
    x = np.full(20_000, 0.3 / 127)
    q = qn.quantize_update(x, 1.0, params, rounding="stochastic", rng=np.random.default_rng(3))
    assert set(np.unique(q)) == {0, 1}
    assert abs(q.mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 20_000)
    again = qn.quantize_update(x, 1.0, params, rounding="stochastic", rng=np.random.default_rng(3))
    np.testing.assert_array_equal(q, again)
    unseeded = [qn.quantize_update(x, 1.0, params, rounding="stochastic") for _ in range(2)]
    assert (unseeded[0] != unseeded[1]).any()


def test_public_parameters_suffice() -> None:
    """The integers depend on bits alone for nearest rounding: no key, no ring."""
    x = np.random.default_rng(1).normal(0, 1, 5000).astype(np.float32)
    results = [
        qn.quantize_update(x, 2.0, qn.Parameters.for_aggregation(bits=6, **choices))
        for choices in ({}, {"max_weight": 1000}, {"key_mode": "public"}, {"values": 10})
    ]
    for q in results[1:]:
        np.testing.assert_array_equal(q, results[0])


DIGEST = """
import hashlib, sys
import numpy as np, quancrypt_native as qn
state = hashlib.sha256()
rng = np.random.default_rng(1)
for bits in (2, 3, 8, 16):
    params = qn.Parameters.for_aggregation(bits=bits, max_weight=2, max_poly_degree=2048)
    for dtype in (np.float32, np.float64):
        for length in (0, 1, 7, 33, 1023, 5000):
            x = {"a": rng.normal(0, 1, length).astype(dtype), "b": rng.normal(0, 1, 5)}
            for rounding in ("nearest", "stochastic"):
                seed = np.random.default_rng(2) if rounding == "stochastic" else None
                q = qn.quantize_update(x, 1.5, params, rounding=rounding, rng=seed)
                state.update(q["a"].tobytes() + q["b"].tobytes())
print(qn.backend(), state.hexdigest())
"""


def test_all_kernels_give_the_same_bits() -> None:
    digests = {}
    for backend in qn.backends():
        done = subprocess.run(
            [sys.executable, "-c", DIGEST],
            env={**os.environ, "QUANCRYPT_BACKEND": backend},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        used, digests[backend] = done.stdout.split()
        assert used == backend
    assert len(set(digests.values())) == 1


PARAMS = qn.Parameters.for_aggregation(bits=8, max_weight=2, max_poly_degree=2048)
X = np.ones(3)
FULL = PARAMS.values_per_ciphertext


def with_nan(length: int, place: int) -> np.ndarray:
    x = np.zeros(length, np.float32)
    x[place] = np.nan
    return x


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: qn.quantize_update(X, 1.0, slots().params), "quantize_update"),
        (lambda: qn.quantize_update(X, None, PARAMS), "clip is missing"),
        (lambda: qn.quantize_update(X, 0.0, PARAMS), "clip is 0"),
        (lambda: qn.quantize_update({"a": X}, {"b": 1.0}, PARAMS), "clip names tensor 'b'"),
        (lambda: qn.quantize_update({"a": X}, {}, PARAMS), "tensor 'a' has none"),
        (lambda: qn.quantize_update([1.0], 1.0, PARAMS), "x is a list"),
        (lambda: qn.quantize_update(np.arange(3), 1.0, PARAMS), "x has dtype int64"),
        (lambda: qn.quantize_update({1: X}, 1.0, PARAMS), "a tensor is named 1"),
        (lambda: qn.quantize_update(X, 1.0, PARAMS, rounding="up"), "rounding is 'up'"),
        (
            lambda: qn.quantize_update(X, 1.0, PARAMS, rng=np.random.default_rng(1)),
            "rng is given, but rounding is 'nearest'",
        ),
        (
            lambda: qn.quantize_update(X, 1.0, PARAMS, rounding="stochastic", rng=1),  # type: ignore[arg-type]
            "rng is a int; allowed: numpy.random.Generator",
        ),
        (
            lambda: qn.quantize_update(np.array([[0, 1], [np.nan, 0]]), 1.0, PARAMS),
            "x[1, 0] is NaN or infinite",
        ),
        (lambda: qn.quantize_update(np.array(np.inf), 1.0, PARAMS), "x[] is NaN or infinite"),
        (
            lambda: qn.quantize_update({"a": X, "b": with_nan(9, 4)}, 1.0, PARAMS),
            "'b'[4] is NaN or infinite",
        ),
        (
            lambda: qn.quantize_update(with_nan(3 * FULL, 2 * FULL + 1), 1.0, PARAMS),
            f"x[{2 * FULL + 1}] is NaN or infinite",
        ),
    ],
)
def test_wrong_arguments(call: Any, message: str) -> None:
    with pytest.raises(qn.ParameterError, match=re.escape(message)):
        call()


def test_the_first_of_several_is_named() -> None:
    x = with_nan(3 * FULL, 2 * FULL + 1)
    x[FULL + 3] = np.inf
    for quantize in (
        lambda: qn.quantize_update(x, 1.0, PARAMS),
        lambda: packed(bits=8, max_weight=2, max_poly_degree=2048).encryptor.encrypt(x, 1.0),
    ):
        with pytest.raises(qn.ParameterError, match=re.escape(f"x[{FULL + 3}] is NaN")):
            quantize()


def test_inputs_are_not_changed() -> None:
    x = np.linspace(-2, 2, 100, dtype=np.float32)
    before = x.copy()
    q = qn.quantize_update(x, 1.0, PARAMS)
    q[:] = 0
    np.testing.assert_array_equal(x, before)
