"""Arrays and tensors of every sort give the same update, or a clear error; none is changed."""

import pickle
import re
import tracemalloc
from collections import OrderedDict
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tests.native.conftest import Party

import quancrypt_native as qn
from quancrypt_native import _core

RNG = np.random.default_rng(1)
VALUES = RNG.normal(0, 1, (6, 8, 10))
SLOT_NOISE = 0.03
"""Ten standard deviations of a slot: 3.24 sqrt(1024) / 2^15."""


def layouts(dtype: type) -> dict[str, npt.NDArray[Any]]:
    """The same values in differently laid out memory."""
    x = VALUES.astype(dtype)
    spaced = np.zeros((12, 8, 30), dtype)
    spaced[::2, :, ::3] = x
    backwards = np.ascontiguousarray(x[::-1, :, ::-1])
    raw = np.zeros(x.nbytes + 1, np.uint8)
    unaligned = raw[1:].view(dtype).reshape(x.shape)
    unaligned[...] = x
    frozen = x.copy()
    frozen.flags.writeable = False
    subclass = x.copy().view(Subclass)
    return {
        "contiguous": x,
        "Fortran order": np.asfortranarray(x),
        "strided": spaced[::2, :, ::3],
        "negative strides": backwards[::-1, :, ::-1],
        "transposed": np.ascontiguousarray(x.transpose(2, 0, 1)).transpose(1, 2, 0),
        "unaligned": unaligned,
        "read-only": frozen,
        "big-endian": x.astype(np.dtype(dtype).newbyteorder(">")),
        "little-endian": x.astype(np.dtype(dtype).newbyteorder("<")),
        "subclass": subclass,
        "unpickled": pickle.loads(pickle.dumps(x)),
        "with metadata": x.view(np.dtype(dtype, metadata={"unit": "step"})),
        "array interface": Wrapped(x),  # type: ignore[dict-item]
        "torch": torch.from_numpy(x.copy()),
        "torch with gradient": torch.from_numpy(x.copy()).requires_grad_(),
        "torch result": torch.from_numpy(x.copy()).requires_grad_() * 1,
        "torch transposed": torch.from_numpy(np.ascontiguousarray(x.transpose(2, 1, 0))).permute(
            2, 1, 0
        ),
        "torch strided": torch.from_numpy(spaced)[::2, :, ::3],
        "torch parameter": torch.nn.Parameter(torch.from_numpy(x.copy())),
    }


class Subclass(np.ndarray):
    """An ndarray with another name."""


class Wrapped:
    """Something with ``__array__``, as data frames and other libraries' arrays have it."""

    def __init__(self, x: npt.NDArray[Any]) -> None:
        self.x = x

    def __array__(self, dtype: Any = None, copy: Any = None) -> npt.NDArray[Any]:
        return self.x


def as_bytes(x: Any) -> bytes:
    return np.asarray(x.detach() if isinstance(x, torch.Tensor) else x).tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", list(layouts(np.float32)))
def test_memory_layout_does_not_matter(small: Party, name: str, dtype: type) -> None:
    x = layouts(dtype)[name]
    before = as_bytes(x)
    update = small.encryptor.encrypt(x, clip=1.5)
    assert update.shapes == {"": VALUES.shape}
    bound, scale = dtype(1.5), dtype(127 / 1.5)
    expected = np.rint(np.clip(VALUES.astype(dtype), -bound, bound) * scale)
    np.testing.assert_array_equal(small.decryptor.decrypt_integers(update), expected)
    np.testing.assert_array_equal(qn.quantize(x, 1.5, 8), expected)
    assert as_bytes(x) == before


@pytest.mark.parametrize("name", ["contiguous", "strided", "big-endian", "torch strided"])
def test_memory_layout_does_not_matter_for_slots(small_slots: Party, name: str) -> None:
    x = layouts(np.float64)[name]
    before = as_bytes(x)
    for clip in (None, 0.5):
        bounded = VALUES if clip is None else np.clip(VALUES, -clip, clip)
        result = small_slots.decryptor.decrypt_mean(small_slots.seeded.encrypt(x, clip))
        np.testing.assert_allclose(result, bounded, atol=SLOT_NOISE)
        assert as_bytes(x) == before


INTEGERS = np.arange(-60, 60).reshape(4, 5, 6)


@pytest.mark.parametrize(
    "dtype", ["i1", "i2", "i4", "i8", ">i2", ">i8", "u1", "u2", "u8", "longlong"]
)
def test_integers_of_every_width(small: Party, dtype: str) -> None:
    base = abs(INTEGERS) if dtype[0] == "u" else INTEGERS
    wanted = np.dtype(dtype)
    for x in (
        base.astype(wanted),
        np.asfortranarray(base.astype(wanted)),
        base.astype(wanted)[::-1, :, ::2][::-1],
    ):
        before = x.copy()
        update = small.encryptor.encrypt_integers(x)
        result = small.decryptor.decrypt_integers(update)
        np.testing.assert_array_equal(result, x)
        np.testing.assert_array_equal(x, before)


def test_integer_tensors(small: Party) -> None:
    for dtype in (torch.int8, torch.int16, torch.int32, torch.int64):
        tensor = torch.from_numpy(INTEGERS).to(dtype)
        for x in (tensor, tensor.permute(2, 0, 1)):
            result = small.decryptor.decrypt_integers(small.encryptor.encrypt_integers(x))
            np.testing.assert_array_equal(result, x.numpy())


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros(3, np.float16), "x has dtype float16; allowed: float32, float64"),
        (np.zeros(3, np.longdouble), f"x has dtype {np.dtype(np.longdouble)}; allowed"),
        (np.zeros(3, np.complex64), "x has dtype complex64"),
        (np.zeros(3, np.int64), "x has dtype int64; allowed: float32, float64"),
        (np.zeros(3, bool), "x has dtype bool"),
        (np.zeros(3, object), "x has dtype object"),
        (np.array(["a"]), "x has dtype <U1"),
        (np.zeros(3, [("a", "f4")]), "x has dtype"),
        (np.zeros(3, "M8[s]"), "x has dtype datetime64"),
        (np.ma.masked_array(np.ones(3), [0, 1, 0]), "x is a masked array"),
        (torch.zeros(3, dtype=torch.bfloat16), "x is a torch tensor of dtype torch.bfloat16 that"),
        (torch.zeros(3, dtype=torch.float16), "x has dtype float16"),
        (torch.zeros(3, dtype=torch.int32), "x has dtype int32"),
        (torch.zeros(3, dtype=torch.complex64), "x has dtype complex64"),
        (torch.zeros((3, 3)).to_sparse(), "x is a torch tensor of dtype torch.float32 that NumPy"),
        (torch.zeros(3, device="meta"), "x is a torch tensor of dtype torch.float32 that NumPy"),
        ([1.0, 2.0], "x is a list; allowed: a NumPy array, a torch tensor or a dict"),
        ((1.0,), "x is a tuple"),
        (1.0, "x is a float"),
        ("abc", "x is a str"),
        (b"abcd", "x is a bytes"),
        (None, "x is a NoneType"),
        (np.ndarray, "x is a type"),
        (iter([1.0]), "x is a list_iterator"),
        ({"a": {"b": np.zeros(3)}}, "tensor 'a' is a dict; allowed: a NumPy array"),
        ({"a": [0.0]}, "tensor 'a' is a list"),
        ({"a": np.zeros(2), "b": np.zeros(2, np.int8)}, "tensor 'b' has dtype int8"),
        ({"a": torch.zeros(1, dtype=torch.bfloat16)}, "tensor 'a' is a torch tensor of dtype"),
        ({1: np.zeros(3)}, "a tensor is named 1; allowed: strings"),
        ({None: np.zeros(3)}, "a tensor is named None"),
        ({("a", "b"): np.zeros(3)}, "a tensor is named ('a', 'b')"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else type(value).__name__,
)
def test_what_cannot_be_encrypted_is_named(small: Party, x: Any, message: str) -> None:
    with pytest.raises(qn.ParameterError, match=re.escape(message)):
        small.encryptor.encrypt(x, clip=1.0)
    if not isinstance(x, Mapping):
        with pytest.raises(qn.ParameterError, match=re.escape(message)):
            qn.quantize(x, 1.0, 8)


def test_bfloat16_says_what_to_do(small: Party) -> None:
    with pytest.raises(qn.ParameterError, match="cast it to float32 or float64"):
        small.encryptor.encrypt(torch.zeros(3, dtype=torch.bfloat16), clip=1.0)
    cast = torch.full((3,), 0.5, dtype=torch.bfloat16).float()
    update = small.encryptor.encrypt(cast, clip=127.0)
    np.testing.assert_array_equal(small.decryptor.decrypt_integers(update), np.zeros(3))


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0, 5), (1, 1, 1), (0, 0), (1,) * 30])
def test_small_and_empty_shapes(small: Party, small_slots: Party, shape: tuple[int, ...]) -> None:
    for party in (small, small_slots):
        for dtype in (np.float32, np.float64):
            x = np.ones(shape, dtype)
            update = party.seeded.encrypt(x, clip=1.0)
            total = qn.aggregate([update, update], weights=[1, 2])
            for item in (update, total):
                item = qn.EncryptedUpdate.from_bytes(item.to_bytes(), party.params)
                assert item.values == x.size
                assert item.ciphertexts == min(x.size, 1)
                mean = party.decryptor.decrypt_mean(item)
                assert isinstance(mean, np.ndarray)
                assert mean.shape == shape
                np.testing.assert_allclose(mean, x, atol=SLOT_NOISE)
    q = np.ones(shape, np.int8)
    result = small.decryptor.decrypt_integers(small.encryptor.encrypt_integers(q))
    assert np.asarray(result).shape == shape


def test_scalars(small: Party) -> None:
    for x in (np.float32(0.5), np.float64(0.5), np.array(0.5), torch.tensor(0.5)):
        mean = small.decryptor.decrypt_mean(small.encryptor.encrypt(x, clip=0.5))
        assert isinstance(mean, np.ndarray)
        assert mean.shape == ()
        assert mean == np.float32(0.5)
    q = small.decryptor.decrypt_integers(small.encryptor.encrypt_integers(np.int8(-7)))
    assert q == -7


def test_no_tensors_at_all(small: Party, small_slots: Party) -> None:
    for party in (small, small_slots):
        update = party.encryptor.encrypt({}, clip=1.0)
        total = qn.aggregate([update, update])
        assert party.decryptor.decrypt_mean(total) == {}
        assert qn.EncryptedUpdate.from_bytes(total.to_bytes(), party.params).shapes == {}


def test_all_zero_tensors(small: Party, wide_public: Party) -> None:
    """Zeros are data like any other: encrypted, summed, zero."""
    for party in (small, wide_public):
        x = {"w": np.zeros((40, 50), np.float32), "b": np.zeros(7), "n": -np.zeros(3)}
        total = qn.aggregate([party.encryptor.encrypt(x, clip=1e-6) for _ in range(4)])
        for result in (party.decryptor.decrypt_mean(total), party.decryptor.decrypt_sum(total)):
            assert isinstance(result, dict)
            for name, array in result.items():
                np.testing.assert_array_equal(array, np.zeros(x[name].shape, np.float32))


@pytest.mark.parametrize("kind", [dict, OrderedDict, MappingProxyType])
def test_mappings_keep_their_order_and_names(small: Party, kind: Any) -> None:
    names = ["z", "a", "", "conv.weight", "ü ñ", 'quo"te', "a\\b", "\n\t\0", "9", "long" * 500]
    x = {name: np.full((i, 2), i / 10) for i, name in enumerate(names)}
    update = small.encryptor.encrypt(kind(x), clip=1.0)
    back = qn.EncryptedUpdate.from_bytes(update.to_bytes(), small.params)
    for item in (update, back, qn.aggregate([back])):
        result = small.decryptor.decrypt_mean(item)
        assert isinstance(result, dict)
        assert list(result) == list(item.shapes) == names
        for name in names:
            np.testing.assert_allclose(result[name], x[name], atol=1 / 254)


def test_one_named_tensor_is_a_dict_still(small: Party) -> None:
    for name in ("w", ""):
        result = small.decryptor.decrypt_mean(small.encryptor.encrypt({name: np.ones(2)}, clip=1.0))
        assert isinstance(result, dict)
        assert list(result) == [name]


def test_a_state_dict(small: Party) -> None:
    """A torch module's state as it is, clip bounds by name."""
    model = torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2))
    state = model.state_dict()
    clip = {name: float(tensor.abs().max()) for name, tensor in state.items()}
    result = small.decryptor.decrypt_mean(small.encryptor.encrypt(state, clip=clip))
    assert isinstance(result, dict)
    for name, tensor in state.items():
        np.testing.assert_allclose(result[name], tensor.numpy(), atol=clip[name] / 127 / 2 * 1.001)


def test_clip_bounds_of_any_number_type(small: Party) -> None:
    x = np.linspace(-1, 1, 20)
    reference = small.encryptor.encrypt(x, clip=0.5).layout
    for clip in (np.float64(0.5), np.float32(0.5), np.array(0.5), torch.tensor(0.5)):
        assert small.encryptor.encrypt(x, clip=clip).layout == reference
    assert small.encryptor.encrypt(x, clip=2).layout.tensors[0].clip == 2.0


def test_float32_extremes(small: Party) -> None:
    """The largest and smallest numbers clip and round like any other."""
    for dtype in (np.float32, np.float64):
        info = np.finfo(dtype)
        x = np.array(
            [info.max, info.min, info.tiny, -info.tiny, info.smallest_subnormal, -0.0], dtype
        )
        for clip in (1e-30, 1.0, 1e30):
            result = small.decryptor.decrypt_integers(small.encryptor.encrypt(x, clip=clip))
            np.testing.assert_array_equal(result, [127, -127, 0, 0, 0, 0])


# --- copies ---


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("source", ["numpy", "torch", "views"])
def test_contiguous_memory_is_not_copied(
    wide: Party, monkeypatch: pytest.MonkeyPatch, dtype: type, source: str
) -> None:
    """The core is handed the caller's own memory."""
    x = np.zeros((3, 100, 100), dtype)
    given = {
        "numpy": {"a": x},
        "torch": {"a": torch.from_numpy(x).requires_grad_()},
        "views": {"a": x[0], "b": x[1:], "c": x[2].T.T},
    }[source]
    seen: list[npt.NDArray[Any]] = []
    original = _core.encrypt_packed

    def spy(*arguments: Any) -> Any:
        (segments,) = (argument for argument in arguments if isinstance(argument, list))
        seen.extend(array for array, _ in segments)
        return original(*arguments)

    monkeypatch.setattr(_core, "encrypt_packed", spy)
    wide.encryptor.encrypt(given, clip=1.0)
    assert len(seen) == len(given)
    for array in seen:
        assert np.shares_memory(array, x)
        assert array.flags.c_contiguous
        assert array.flags.aligned


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_encryption_allocates_little_more_than_its_result(wide: Party, dtype: type) -> None:
    """Of what NumPy and Python allocate; the input of 4 million values is not among it."""
    x = np.zeros((2000, 2000), dtype)
    encryptor = wide.encryptor
    tracemalloc.start()
    try:
        update = encryptor.encrypt(x, clip=1.0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert update.nbytes < peak + 1000 < 1.02 * update.nbytes + 100_000


def test_parsing_copies_no_body(wide: Party) -> None:
    data = wide.encryptor.encrypt(np.zeros((1000, 1000), np.float32), clip=1.0).to_bytes()
    tracemalloc.start()
    try:
        update = qn.EncryptedUpdate.from_bytes(data, wide.params)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert np.shares_memory(update._body, np.frombuffer(data, np.uint8))
    assert peak < 100_000


def test_updates_are_immutable(small: Party) -> None:
    update = small.encryptor.encrypt_integers(np.arange(3))
    for name in ("weight", "params", "key_id", "layout", "shapes", "values", "nbytes"):
        with pytest.raises(AttributeError):
            setattr(update, name, None)
    with pytest.raises(ValueError, match="read-only"):
        update._body[0] = 0
    with pytest.raises(AttributeError):
        update.layout.single = False  # type: ignore[misc]


def test_results_belong_to_the_caller(small: Party) -> None:
    update = small.encryptor.encrypt({"a": np.ones(3), "b": np.ones(3)}, clip=1.0)
    first: Any = small.decryptor.decrypt_mean(update)
    first["a"][:] = 7
    second: Any = small.decryptor.decrypt_mean(update)
    np.testing.assert_array_equal(second["a"], np.ones(3))
    np.testing.assert_array_equal(first["b"], np.ones(3))


def test_names_that_are_no_unicode_are_refused(small: Party) -> None:
    with pytest.raises(qn.ParameterError, match="valid Unicode"):
        small.encryptor.encrypt({"\ud800": np.zeros(3)}, clip=1.0)
