"""Integer sums are NumPy's, always; float means are within half a quantization step."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.native.conftest import Party, integers, packed

import quancrypt_native as qn

EPS32 = float(np.finfo(np.float32).eps)
MAX_WEIGHTS = (1, 2, 3, 16, 50, 1000)
PATTERNS = ("random", "largest", "smallest", "extremes", "zero", "one field")

Sums = Callable[[list[qn.EncryptedUpdate], list[int]], qn.EncryptedUpdate]


def pattern(
    name: str, rng: np.random.Generator, q_max: int, shape: tuple[int, ...], party: Party
) -> npt.NDArray[np.int64]:
    """Values in ``[-q_max, q_max]`` that press on fields in different ways."""
    match name:
        case "largest":
            return np.full(shape, q_max)
        case "smallest":
            return np.full(shape, -q_max)
        case "zero":
            return np.zeros(shape, np.int64)
        case "extremes":
            return rng.choice([-q_max, q_max], shape)
        case "one field":  # one field at its largest between fields at their smallest
            n = party.params.poly_degree
            field = np.arange(math.prod(shape)) // n % party.params.fields
            chosen = rng.integers(party.params.fields)
            return np.where(field == chosen, q_max, -q_max).reshape(shape)
    return integers(rng, q_max, shape)


def at_once(updates: list[qn.EncryptedUpdate], weights: list[int]) -> qn.EncryptedUpdate:
    return qn.aggregate(updates, weights=weights)


def streamed(updates: list[qn.EncryptedUpdate], weights: list[int]) -> qn.EncryptedUpdate:
    """One at a time, each through its bytes, with the sum looked at in between."""
    total = qn.Aggregator(updates[0].params)
    for update, weight in zip(updates, weights, strict=True):
        total.add(qn.EncryptedUpdate.from_bytes(update.to_bytes(), update.params), weight=weight)
        total.result()
    return total.result()


def from_bytes(updates: list[qn.EncryptedUpdate], weights: list[int]) -> qn.EncryptedUpdate:
    """Bytes as they arrive, of any bytes type."""
    total = qn.Aggregator(updates[0].params)
    kinds = (bytes, bytearray, memoryview)
    for index, (update, weight) in enumerate(zip(updates, weights, strict=True)):
        total.add(kinds[index % 3](update.to_bytes()), weight=weight)
    return total.result()


def of_sums(updates: list[qn.EncryptedUpdate], weights: list[int]) -> qn.EncryptedUpdate:
    """Two servers sum a part each, a third one their sums."""
    half = (len(updates) + 1) // 2
    parts = [
        qn.aggregate(updates[part], weights=weights[part])
        for part in (slice(None, half), slice(half, None))
        if updates[part]
    ]
    return qn.aggregate(qn.EncryptedUpdate.from_bytes(p.to_bytes(), p.params) for p in parts)


def repeated(updates: list[qn.EncryptedUpdate], weights: list[int]) -> qn.EncryptedUpdate:
    """Weights as repetitions."""
    return qn.aggregate([u for u, w in zip(updates, weights, strict=True) for _ in range(w)])


SUMS: dict[str, Sums] = {
    "at once": at_once,
    "streamed": streamed,
    "of sums": of_sums,
    "from bytes": from_bytes,
    "repeated": repeated,
}


@st.composite
def shares(draw: st.DrawFn, max_weight: int) -> list[int]:
    """Weights of one or more parties, up to ``max_weight`` in total; often exactly that."""
    weights, left = [], max_weight
    for _ in range(draw(st.integers(1, min(8, max_weight)))):
        if left == 0:
            break
        weights.append(draw(st.integers(1, left)))
        left -= weights[-1]
    if left and draw(st.booleans()):
        weights[0] += left
    return weights


@st.composite
def shapes(draw: st.DrawFn, party: Party) -> tuple[int, ...]:
    """Any number of dimensions, none and empty ones included, or one around a full ciphertext."""
    if draw(st.booleans()):
        return tuple(draw(st.lists(st.integers(0, 6), max_size=5)))
    full = party.params.values_per_ciphertext
    return (draw(st.integers(1, 2)) * full + draw(st.integers(-1, 1)),)


@given(data=st.data())
@settings(max_examples=250, deadline=None)
def test_integer_sums(data: st.DataObject) -> None:
    check_integer_sums(data)


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=5000, deadline=None)
def test_many_integer_sums(data: st.DataObject) -> None:
    check_integer_sums(data)


def check_integer_sums(data: st.DataObject) -> None:
    bits = data.draw(st.integers(2, 16), label="bits")
    max_weight = data.draw(st.sampled_from(MAX_WEIGHTS), label="max_weight")
    key_mode = data.draw(st.sampled_from(["symmetric", "public"]), label="key_mode")
    party = packed(bits=bits, max_weight=max_weight, key_mode=key_mode, max_poly_degree=4096)
    encryptor = data.draw(st.sampled_from([party.encryptor, party.seeded]), label="key")
    shape = data.draw(shapes(party), label="shape")
    weights = data.draw(shares(max_weight), label="weights")
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32), label="seed"))
    names = data.draw(
        st.lists(st.sampled_from(PATTERNS), min_size=len(weights), max_size=len(weights)),
        label="patterns",
    )
    how = data.draw(st.sampled_from(sorted(SUMS)), label="how")

    q_max = 2 ** (bits - 1) - 1
    inputs = [pattern(name, rng, q_max, shape, party) for name in names]
    # Everybody encrypts; those who drop out are missing from the sum.
    updates = [encryptor.encrypt_integers(q) for q in [*inputs, np.zeros(shape, np.int8)]]
    total = SUMS[how](updates[:-1], weights)

    expected = sum(w * q for w, q in zip(weights, inputs, strict=True))
    result = party.decryptor.decrypt_integers(total)
    assert isinstance(result, np.ndarray)
    assert result.dtype == np.int64
    assert result.shape == shape
    np.testing.assert_array_equal(result, expected)
    assert total.weight == sum(weights)


@pytest.mark.parametrize("key_mode", ["symmetric", "public"])
@pytest.mark.parametrize("bits", range(2, 17))
def test_every_field_at_both_ends(bits: int, key_mode: str) -> None:
    """The largest total weight, with each field in turn at its largest among smallest, and back."""
    party = packed(bits=bits, max_weight=50, key_mode=key_mode)
    n, q_max = party.params.poly_degree, party.params.q_max
    encryptor, decryptor = party.encryptor, party.decryptor
    for field in range(party.params.fields):
        for high, low in ((q_max, -q_max), (-q_max, q_max)):
            values = np.full(party.params.values_per_ciphertext, low)
            values[field * n : (field + 1) * n] = high
            total = qn.aggregate([encryptor.encrypt_integers(values)], weights=[50])
            np.testing.assert_array_equal(decryptor.decrypt_integers(total), 50 * values)


def many_clients(bits: int, clients: int) -> None:
    party = packed(bits=bits, max_weight=clients, max_poly_degree=2048)
    rng = np.random.default_rng(1)
    total = qn.Aggregator(party.params)
    expected = np.zeros(100, np.int64)
    encryptor = party.encryptor
    for client in range(clients):
        q = integers(rng, party.params.q_max, 100)
        q[:2] = party.params.q_max, -party.params.q_max
        expected += q
        total.add(encryptor.encrypt_integers(q))
        assert total.count == total.weight == client + 1
    result = party.decryptor.decrypt_integers(total.result())
    np.testing.assert_array_equal(result, expected)
    with pytest.raises(qn.CapacityError):
        total.add(encryptor.encrypt_integers(expected * 0))


def test_as_many_clients_as_the_weight_allows() -> None:
    many_clients(bits=8, clients=4096)


@pytest.mark.slow
def test_as_many_clients_as_any_weight_allows() -> None:
    many_clients(bits=2, clients=65536)


def test_the_largest_weight_of_all() -> None:
    for key_mode in ("symmetric", "public"):
        party = packed(bits=16, max_weight=65536, key_mode=key_mode)
        values = np.array([32767, -32767, 0, 1])
        total = qn.aggregate([party.encryptor.encrypt_integers(values)], weights=[65536])
        expected = [2147418112, -2147418112, 0, 65536]
        np.testing.assert_array_equal(party.decryptor.decrypt_integers(total), expected)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_float_means_and_sums(data: st.DataObject) -> None:
    """Nearest rounding against NumPy: the same integers, and means within half a step."""
    bits = data.draw(st.integers(2, 16), label="bits")
    party = packed(bits=bits, max_weight=50, max_poly_degree=4096)
    q_max = party.params.q_max
    dtype = data.draw(st.sampled_from([np.float32, np.float64]), label="dtype")
    clip = data.draw(st.floats(1e-6, 1e6), label="clip")
    weights = data.draw(shares(50), label="weights")
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32), label="seed"))
    spread = data.draw(st.sampled_from([0.3, 1.0, 3.0]), label="spread")
    inputs = [
        np.concatenate([rng.normal(0, spread * clip, 60), [clip, -clip, 0, 10 * clip]])
        .astype(dtype)
        .reshape(8, 8)
        for _ in weights
    ]
    total = qn.aggregate([party.encryptor.encrypt(x, clip=clip) for x in inputs], weights=weights)

    bound, scale = dtype(clip), dtype(q_max / clip)
    quantized = [np.rint(np.clip(x, -bound, bound) * scale).astype(np.int64) for x in inputs]
    assert max(np.abs(q).max() for q in quantized) <= q_max
    sums = sum(w * q for w, q in zip(weights, quantized, strict=True))
    np.testing.assert_array_equal(party.decryptor.decrypt_integers(total), sums)

    mean, plain = party.decryptor.decrypt_mean(total), party.decryptor.decrypt_sum(total)
    assert isinstance(mean, np.ndarray)
    assert isinstance(plain, np.ndarray)
    assert mean.dtype == plain.dtype == np.float32
    clipped = [np.clip(x.astype(np.float64), -clip, clip) for x in inputs]
    true_sum = sum(w * x for w, x in zip(weights, clipped, strict=True))
    total_weight = sum(weights)
    step = clip / q_max
    # float32 rounding: of the clip bound, the scale, the product and the result.
    rounding = 4 * EPS32 * clip
    assert np.abs(mean - true_sum / total_weight).max() <= step / 2 + rounding
    assert np.abs(plain - true_sum).max() <= total_weight * (step / 2 + rounding)
    np.testing.assert_array_max_ulp(mean, (sums * (step / total_weight)).astype(np.float32))
    np.testing.assert_array_max_ulp(plain, (sums * step).astype(np.float32))


def test_ties_go_to_even(small: Party) -> None:
    ties = np.array([0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5, -126.5])
    for dtype in (np.float32, np.float64):
        update = small.encryptor.encrypt(ties.astype(dtype), clip=127.0)
        result = small.decryptor.decrypt_integers(update)
        np.testing.assert_array_equal(result, [0, 2, 2, 0, -2, -2, 126, -126])


def test_named_tensors_have_their_own_bounds(wide: Party) -> None:
    rng = np.random.default_rng(1)
    clips = {"conv.weight": 0.05, "fc.bias": 0.1, "empty": 3.0, "scalar": 2.0}
    shapes = {"conv.weight": (13, 7, 3, 3), "fc.bias": (30000,), "empty": (0, 4), "scalar": ()}
    inputs = [
        {
            name: rng.normal(0, clips[name], shape).astype(np.float32)
            for name, shape in shapes.items()
        }
        for _ in range(3)
    ]
    total = qn.aggregate([wide.encryptor.encrypt(x, clip=clips) for x in inputs], weights=[5, 1, 7])
    mean: Any = wide.decryptor.decrypt_mean(total)
    plain: Any = wide.decryptor.decrypt_sum(total)
    whole: Any = wide.decryptor.decrypt_integers(total)
    assert list(mean) == list(plain) == list(whole) == list(clips)
    for name, clip in clips.items():
        expected = sum(
            w * np.clip(x[name], -clip, clip).astype(np.float64)
            for w, x in zip([5, 1, 7], inputs, strict=True)
        )
        tolerance = 13 * (clip / 127 / 2 + 4 * EPS32 * clip)
        assert mean[name].shape == plain[name].shape == whole[name].shape == shapes[name]
        np.testing.assert_allclose(plain[name], expected, rtol=0, atol=tolerance)
        np.testing.assert_allclose(mean[name], expected / 13, rtol=0, atol=tolerance / 13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bits", [2, 8, 16])
def test_stochastic_rounding_is_unbiased(bits: int, dtype: type) -> None:
    """The mean over many draws is the value, within five standard errors; a fixed seed."""
    party = packed(bits=bits, max_weight=1)
    q_max, n, rng = party.params.q_max, 50_000, np.random.default_rng(20)
    for wanted in (0.0, 0.1, 0.5, 0.75, -0.3, -0.999, q_max - 0.25, -q_max + 0.6, q_max, -q_max):
        exact = float(dtype(wanted))  # clip is q_max: one step is 1
        x = np.full(n, exact, dtype)
        update = party.encryptor.encrypt(x, clip=q_max, rounding="stochastic", rng=rng)
        q = np.asarray(party.decryptor.decrypt_integers(update))
        assert set(np.unique(q)) <= {math.floor(exact), math.ceil(exact)}
        fraction = exact - math.floor(exact)
        error = math.sqrt(fraction * (1 - fraction) / n)
        assert abs(q.mean() - exact) <= 5 * error + 2**-32


def test_stochastic_rounding_draws_anew(small: Party) -> None:
    """Equal generators give equal roundings; ciphertexts, values and calls share no draws."""
    x = np.full(3000, 0.5)

    def rounded(rng: np.random.Generator | None) -> npt.NDArray[np.int64]:
        update = small.encryptor.encrypt(x, clip=127.0, rounding="stochastic", rng=rng)
        return np.asarray(small.decryptor.decrypt_integers(update))

    first = rounded(np.random.default_rng(1))
    np.testing.assert_array_equal(first, rounded(np.random.default_rng(1)))
    rng = np.random.default_rng(1)
    rounded(rng)
    for other in (rounded(rng), rounded(np.random.default_rng(2)), rounded(None), rounded(None)):
        assert 0.4 < np.mean(first == other) < 0.6
    assert 0.4 < np.mean(first[:1024] == first[1024:2048]) < 0.6


@pytest.mark.parametrize("key", ["secret", "public"])
def test_slot_sums(standard_slots: Party, key: str) -> None:
    """Standard CKKS: weighted sums and means to 1e-6, with and without a clip bound."""
    encryptor = qn.Encryptor(standard_slots.params, getattr(standard_slots.keys, key))
    rng = np.random.default_rng(1)
    inputs = [rng.normal(0, 1, (3, 1500)) for _ in range(3)]
    for clip in (None, 0.5):
        total = qn.aggregate([encryptor.encrypt(x, clip) for x in inputs], weights=[2, 1, 4])
        bounded = inputs if clip is None else [np.clip(x, -clip, clip) for x in inputs]
        expected = 2 * bounded[0] + bounded[1] + 4 * bounded[2]
        decryptor = standard_slots.decryptor
        np.testing.assert_allclose(decryptor.decrypt_sum(total), expected, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(
            decryptor.decrypt_mean(total), expected / 7, rtol=1e-6, atol=1e-6
        )
