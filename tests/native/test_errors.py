"""What is refused, with which error, and that it names the offender."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.native import oracle
from tests.native.conftest import Party, packed

import quancrypt_native as qn
from quancrypt_native import _core

NAN, INF = float("nan"), float("inf")


@pytest.fixture(scope="module")
def stranger(small: Party) -> Party:
    """The same parameters, another key."""
    return Party(small.params, qn.keygen(small.params))


@pytest.fixture(scope="module")
def other() -> Party:
    """Other parameters of the same ring."""
    return packed(bits=8, max_weight=15, max_poly_degree=1024)


def update(party: Party, shape: Any = 5, clip: float = 1.0) -> qn.EncryptedUpdate:
    return party.encryptor.encrypt(np.ones(shape), clip=clip)


def test_the_hierarchy() -> None:
    leaves = {
        qn.ParameterError: ValueError,
        qn.KeyMismatchError: qn.QuanCryptError,
        qn.CapacityError: qn.QuanCryptError,
        qn.WireFormatError: qn.QuanCryptError,
        qn.PassphraseError: qn.QuanCryptError,
        qn.DecryptionError: qn.QuanCryptError,
        qn.FingerprintError: qn.WireFormatError,
        qn.SecretKeyPickleError: TypeError,
    }
    for leaf, base in leaves.items():
        assert issubclass(leaf, qn.QuanCryptError)
        assert issubclass(leaf, base)
        assert leaf.__doc__
    assert issubclass(qn.FingerprintError, qn.KeyMismatchError)
    assert not issubclass(qn.KeyMismatchError, ValueError)


# --- weights ---


def test_weight_above_the_capacity(small: Party) -> None:
    fresh = update(small)
    with pytest.raises(qn.CapacityError, match=r"0 \+ 1 \* 17, above max_weight = 16"):
        qn.aggregate([fresh], weights=[17])
    with pytest.raises(qn.CapacityError, match=r"16 \+ 1 \* 1, above max_weight = 16"):
        qn.aggregate([fresh] * 17)
    nine = qn.aggregate([fresh], weights=[9])
    with pytest.raises(qn.CapacityError, match=r"9 \+ 9 \* 1, above"):
        qn.aggregate([nine, nine])
    with pytest.raises(qn.CapacityError, match=r"0 \+ 9 \* 2, above"):
        qn.aggregate([nine], weights=[2])
    for huge in (2**32, 2**61, 2**62, 2**63 - 1):  # products that would wrap to something small
        with pytest.raises(qn.CapacityError):
            qn.aggregate([qn.aggregate([fresh], weights=[8])], weights=[huge])
    assert qn.aggregate([fresh] * 16).weight == 16


@pytest.mark.parametrize(
    "weight",
    [0, -1, 2**63, 1.0, 1.5, True, None, "1", NAN, np.float64(2), np.array([1, 2])],
    ids=repr,
)
def test_weights_that_are_no_positive_integers(small: Party, weight: Any) -> None:
    fresh = update(small)
    for attempt in (
        lambda: qn.aggregate([fresh], weights=[weight]),
        lambda: qn.Aggregator(small.params).add(fresh, weight=weight),
    ):
        with pytest.raises(qn.ParameterError, match="weight is"):
            attempt()


def test_numpy_integer_weights(small: Party) -> None:
    fresh = update(small)
    assert qn.aggregate([fresh] * 3, weights=np.array([1, 2, 3], np.uint8)).weight == 6
    assert qn.aggregate([fresh], weights=(np.int64(4),)).weight == 4


def test_as_many_weights_as_updates(small: Party) -> None:
    fresh = update(small)
    with pytest.raises(qn.ParameterError, match="more updates than the 1 weights"):
        qn.aggregate([fresh, fresh], weights=[1])
    with pytest.raises(qn.ParameterError, match="3 weights for 2 updates"):
        qn.aggregate([fresh, fresh], weights=[1, 1, 1])
    with pytest.raises(qn.ParameterError, match="weights is a int"):
        qn.aggregate([fresh], weights=3)  # type: ignore[arg-type]


# --- sums ---


def refused_additions(
    small: Party, stranger: Party, other: Party
) -> dict[str, tuple[Callable[[qn.Aggregator], None], type, str]]:
    """What an aggregator that holds ``ones((2, 3))`` with clip 1 refuses, and why."""

    def adds(summand: Any, weight: Any = 1) -> Callable[[qn.Aggregator], None]:
        return lambda total: total.add(summand, weight=weight)

    encryptor = small.encryptor
    single, named = np.ones((2, 3)), {"a": np.ones((2, 3))}
    return {
        "capacity": (adds(update(small, (2, 3)), 14), qn.CapacityError, "max_weight = 16"),
        "no weight": (adds(update(small, (2, 3)), 0), qn.ParameterError, "weight is 0"),
        "key": (
            adds(update(stranger, (2, 3))),
            qn.KeyMismatchError,
            f"encrypted with key {stranger.keys.key_id}, not {small.keys.key_id}",
        ),
        "parameters": (
            adds(update(other, (2, 3))),
            qn.KeyMismatchError,
            f"parameters {other.params.fingerprint}, not {small.params.fingerprint}",
        ),
        "shape": (
            adds(update(small, (3, 2))),
            qn.ParameterError,
            "the array has shape (3, 2); expected (2, 3)",
        ),
        "flat shape": (adds(update(small, 6)), qn.ParameterError, "shape (6,)"),
        "size": (adds(update(small, 5000)), qn.ParameterError, "shape (5000,); expected (2, 3)"),
        "clip": (
            adds(update(small, (2, 3), 2.0)),
            qn.ParameterError,
            "the array has clip bound 2.0; expected 1.0",
        ),
        "integers": (
            adds(encryptor.encrypt_integers(single.astype(int))),
            qn.ParameterError,
            "integer and float updates do not add up",
        ),
        "named": (
            adds(encryptor.encrypt(named, clip=1.0)),
            qn.ParameterError,
            "one array and an update of named tensors",
        ),
        "an array": (adds(single), qn.ParameterError, "update is a ndarray"),
        "bytes of another shape": (
            adds(update(small).to_bytes()),
            qn.ParameterError,
            "the array has shape (5,); expected (2, 3)",
        ),
        "bytes of another key": (
            adds(update(stranger, (2, 3)).to_bytes()),
            qn.KeyMismatchError,
            f"encrypted with key {stranger.keys.key_id}, not {small.keys.key_id}",
        ),
        "bytes of other parameters": (
            adds(update(other, (2, 3)).to_bytes()),
            qn.FingerprintError,
            f"parameters {other.params.fingerprint}, not {small.params.fingerprint}",
        ),
        "bytes above the capacity": (
            adds(update(small, (2, 3)).to_bytes(), 14),
            qn.CapacityError,
            "max_weight = 16",
        ),
        "damaged bytes": (
            adds(update(small, (2, 3)).to_bytes()[:-1]),
            qn.WireFormatError,
            "truncated",
        ),
        "no bytes of ours": (adds(bytes(100)), qn.WireFormatError, "wrong magic"),
        "text": (adds("update"), qn.ParameterError, "update is a str"),
        "nothing": (adds(None), qn.ParameterError, "update is a NoneType"),
    }


def test_a_refused_addition_leaves_the_sum_unchanged(
    small: Party, stranger: Party, other: Party
) -> None:
    total = qn.Aggregator(small.params)
    total.add(update(small, (2, 3)), weight=3)
    before = total.result().to_bytes()
    for name, (attempt, error, message) in refused_additions(small, stranger, other).items():
        with pytest.raises(error, match=re.escape(message)) as caught:
            attempt(total)
        assert caught.type is error, name
        assert total.result().to_bytes() == before, name
        assert (total.weight, total.count) == (3, 1), name
    total.add(update(small, (2, 3)), weight=13)
    mean = small.decryptor.decrypt_mean(total.result())
    np.testing.assert_array_equal(mean, np.ones((2, 3)))


def with_bad_residue(body: bytes, end: int) -> bytes:
    """``body`` with the 22 bits before byte ``end``, a polynomial's last residue, all set."""
    bad = bytearray(body)
    bad[end - 3] |= 0xFC
    bad[end - 2 : end] = b"\xff\xff"
    return bytes(bad)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("weight", [1, 3])
@pytest.mark.parametrize("seeded", [True, False])
def test_a_bad_residue_leaves_the_sum_unchanged(
    small: Party, set_threads: Callable[[int], None], seeded: bool, weight: int, threads: int
) -> None:
    """Found in the first, a middle or the last of many ciphertexts, after others were added."""
    set_threads(threads)
    q = np.arange(12 * 1024) % 255 - 127
    fresh = small.encryptor.encrypt_integers(q)
    total = qn.Aggregator(small.params)
    total.add(fresh, weight=2)
    before = total.result().to_bytes()
    header, body = oracle.unframe((fresh if seeded else qn.aggregate([fresh])).to_bytes())
    del header["body_bytes"]
    size = oracle.polynomial_bytes(small.params)
    count = len(body) // size
    for polynomial in (0, 1, count // 2, count - 2, count - 1):
        data = oracle.frame(1, header, with_bad_residue(body, (polynomial + 1) * size))
        unchecked = qn.EncryptedUpdate.parse(data, small.params)
        for summand in (data, unchecked):
            with pytest.raises(qn.WireFormatError, match="residue 1023 modulo prime 0"):
                total.add(summand, weight=weight)
            assert total.result().to_bytes() == before
            assert (total.weight, total.count) == (2, 1)
        with pytest.raises(qn.WireFormatError, match="residue 1023 modulo prime 0"):
            qn.Aggregator(small.params).add(data)
    total.add(fresh.to_bytes(), weight=14)
    np.testing.assert_array_equal(small.decryptor.decrypt_integers(total.result()), 16 * q)


def test_an_unchecked_update_is_checked_where_it_is_used(small: Party) -> None:
    """``parse`` leaves residues to whoever reads them: all of them do."""
    header, body = oracle.unframe(small.encryptor.encrypt_integers(np.arange(5)).to_bytes())
    del header["body_bytes"]
    data = oracle.frame(1, header, with_bad_residue(body, len(body)))
    update = qn.EncryptedUpdate.parse(data, small.params)
    assert update.to_bytes() == data
    for use in (
        lambda: small.decryptor.decrypt_integers(update),
        lambda: small.decryptor.decrypt_mean(update),
        lambda: qn.aggregate([update]),
        lambda: qn.seal.export_ciphertexts(update),
        lambda: qn.EncryptedUpdate.from_bytes(update.to_bytes(), small.params),
    ):
        with pytest.raises(qn.WireFormatError, match="residue 1023 modulo prime 0 is not below"):
            use()


def test_a_refused_first_addition_leaves_nothing(small: Party, other: Party) -> None:
    total = qn.Aggregator(small.params)
    for wrong, weight in ((update(small), 17), (update(other), 1), (None, 1), (update(small), 0)):
        with pytest.raises(qn.QuanCryptError):
            total.add(wrong, weight=weight)  # type: ignore[arg-type]
    assert (total.weight, total.count) == (0, 0)
    with pytest.raises(qn.ParameterError, match="nothing was added"):
        total.result()
    total.add(small.encryptor.encrypt_integers(np.arange(3)))
    np.testing.assert_array_equal(small.decryptor.decrypt_integers(total.result()), [0, 1, 2])


def test_results_stand_still_while_adding_goes_on(small: Party) -> None:
    total = qn.Aggregator(small.params)
    total.add(small.encryptor.encrypt_integers(np.arange(3)))
    first = total.result()
    data = first.to_bytes()
    total.add(small.encryptor.encrypt_integers(np.arange(3)))
    assert first.to_bytes() == data
    assert first.weight == 1
    np.testing.assert_array_equal(small.decryptor.decrypt_integers(first), [0, 1, 2])


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"a": (2,)}, "tensor 'b' is missing"),
        ({"a": (2,), "b": (3,), "c": (1,)}, "tensor 'c' is not in the sum so far"),
        ({"a": (2,), "c": (3,)}, "tensor 'c' stands where 'b' is expected"),
        ({"b": (3,), "a": (2,)}, "tensor 'b' stands where 'a' is expected"),
        ({"a": (2,), "b": (4,)}, "tensor 'b' has shape (4,); expected (3,)"),
        ({"a": (2, 1), "b": (3,)}, "tensor 'a' has shape (2, 1); expected (2,)"),
    ],
)
def test_named_tensors_must_agree(
    small: Party, second: dict[str, tuple[int, ...]], message: str
) -> None:
    def encrypted(shapes: dict[str, tuple[int, ...]]) -> qn.EncryptedUpdate:
        return small.encryptor.encrypt({n: np.zeros(s) for n, s in shapes.items()}, clip=1.0)

    with pytest.raises(qn.ParameterError, match=re.escape(message)):
        qn.aggregate([encrypted({"a": (2,), "b": (3,)}), encrypted(second)])


def test_clip_bounds_must_agree_by_name(small: Party) -> None:
    x = {"a": np.zeros(2), "b": np.zeros(2)}
    first = small.encryptor.encrypt(x, clip={"a": 1.0, "b": 2.0})
    second = small.encryptor.encrypt(x, clip={"a": 1.0, "b": 3.0})
    with pytest.raises(
        qn.ParameterError, match=re.escape("tensor 'b' has clip bound 3.0; expected 2.0")
    ):
        qn.aggregate([first, second])


def test_sums_of_nothing(small: Party) -> None:
    for empty in ([], (), iter([])):
        with pytest.raises(qn.ParameterError, match="updates is empty"):
            qn.aggregate(empty)
    with pytest.raises(qn.ParameterError, match="updates is one EncryptedUpdate"):
        qn.aggregate(update(small))  # type: ignore[arg-type]
    with pytest.raises(qn.ParameterError, match="updates is a NoneType"):
        qn.aggregate(None)  # type: ignore[arg-type]
    with pytest.raises(qn.ParameterError, match="update 1 is a bytes"):
        qn.aggregate([update(small), update(small).to_bytes()])  # type: ignore[list-item]


# --- keys and parameters ---


def test_another_key_does_not_decrypt(small: Party, stranger: Party) -> None:
    fresh = small.encryptor.encrypt_integers(np.arange(5))
    for decrypt in (
        stranger.decryptor.decrypt_integers,
        stranger.decryptor.decrypt_mean,
        stranger.decryptor.decrypt_sum,
    ):
        with pytest.raises(
            qn.KeyMismatchError, match=f"{small.keys.key_id}, not {stranger.keys.key_id}"
        ):
            decrypt(fresh)


def test_a_forged_key_identity_does_not_decrypt(small: Party, stranger: Party) -> None:
    """With the label changed to the wrong key, the plaintext shows that it is no sum."""
    header, body = oracle.unframe(small.encryptor.encrypt_integers(np.arange(5)).to_bytes())
    header["key"] = stranger.keys.key_id
    del header["body_bytes"]
    relabelled = qn.EncryptedUpdate.from_bytes(oracle.frame(1, header, body), small.params)
    with pytest.raises(qn.DecryptionError, match="not made with this key"):
        stranger.decryptor.decrypt_integers(relabelled)


@pytest.mark.parametrize("weight", [1, 3])
@pytest.mark.parametrize("seeded", [True, False])
def test_a_residue_out_of_range_is_taken_off_again(small: Party, weight: int, seeded: bool) -> None:
    """The last of three ciphertexts is malformed; the first two were added by then."""
    x = np.linspace(-1, 1, 3 * small.params.values_per_ciphertext)
    good = small.encryptor.encrypt(x, clip=1.0)
    total = qn.Aggregator(small.params)
    total.add(good, weight=2)
    before = total.result().to_bytes()
    bad = bytearray((good if seeded else total.result()).to_bytes()[:-4])
    bad[-8:] = b"\xff" * 8
    bad += _core.crc32c(bad).to_bytes(4, "little")
    with pytest.raises(qn.WireFormatError, match="is not below the prime"):
        qn.EncryptedUpdate.from_bytes(bad, small.params)
    with pytest.raises(qn.WireFormatError, match="is not below the prime"):
        total.add(bytes(bad), weight=weight)
    assert total.weight == 2
    assert total.result().to_bytes() == before
    total.add(good.to_bytes())
    assert total.count == 2
    assert total.weight == 3


def test_other_parameters_do_not_mix(small: Party, other: Party) -> None:
    message = f"{other.params.fingerprint}, not {small.params.fingerprint}"
    for attempt in (
        lambda: qn.Encryptor(small.params, other.keys.secret),
        lambda: qn.Encryptor(small.params, other.keys.public),
        lambda: qn.Decryptor(small.params, other.keys.secret),
        lambda: small.decryptor.decrypt_mean(update(other)),
        lambda: qn.EncryptedUpdate.from_bytes(update(other).to_bytes(), small.params),
        lambda: qn.PublicKey.from_bytes(other.keys.public.to_bytes(), small.params),
    ):
        with pytest.raises(qn.KeyMismatchError, match=message):
            attempt()


def test_public_keys_need_their_guard_bits(small: Party) -> None:
    with pytest.raises(qn.ParameterError, match="key_mode 'symmetric'"):
        qn.Encryptor(small.params, small.keys.public)


def test_decryption_needs_the_secret_key(public: Party) -> None:
    with pytest.raises(qn.ParameterError, match="needs the secret key"):
        qn.Decryptor(public.params, public.keys.public)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [None, 7, b"", "params", []], ids=repr)
def test_wrong_types_of_parameters_and_keys(small: Party, wrong: Any) -> None:
    data, kind = update(small).to_bytes(), type(wrong).__name__
    for attempt in (
        lambda: qn.keygen(wrong),
        lambda: qn.Aggregator(wrong),
        lambda: qn.Encryptor(wrong, small.keys.secret),
        lambda: qn.Decryptor(wrong, small.keys.secret),
        lambda: qn.EncryptedUpdate.from_bytes(data, wrong),
        lambda: qn.PublicKey.from_bytes(small.keys.public.to_bytes(), wrong),
        lambda: qn.SecretKey.from_bytes(b"", wrong, passphrase=b"x"),
    ):
        with pytest.raises(qn.ParameterError, match=f"params is a {kind}; allowed: Parameters"):
            attempt()
    for attempt in (
        lambda: qn.Encryptor(small.params, wrong),
        lambda: qn.Decryptor(small.params, wrong),
    ):
        with pytest.raises(
            qn.ParameterError, match=f"key is a {kind}; allowed: SecretKey, PublicKey"
        ):
            attempt()
    for decrypt in (
        small.decryptor.decrypt_integers,
        small.decryptor.decrypt_mean,
        small.decryptor.decrypt_sum,
    ):
        with pytest.raises(
            qn.ParameterError, match=f"update is a {kind}; allowed: EncryptedUpdate"
        ):
            decrypt(wrong)


# --- values ---


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_the_first_value_that_is_not_finite_is_named(small: Party, bad: float, dtype: type) -> None:
    """Wherever it stands in a vector register, ciphertext or tensor; later ones do not matter."""
    message = "is NaN or infinite; allowed: finite values"
    for position in (0, 1, 7, 8, 15, 16, 17, 1022, 1023, 1024, 1500, 4095):
        x = np.zeros((2, 2048), dtype)
        x.ravel()[position] = bad
        x.ravel()[position + 3 :: 5] = NAN
        place = f"x[{position // 2048}, {position % 2048}] {message}"
        for rounding in ("nearest", "stochastic"):
            with pytest.raises(qn.ParameterError, match=re.escape(place)):
                small.encryptor.encrypt(x, clip=1.0, rounding=rounding)
        with pytest.raises(qn.ParameterError, match=re.escape(place)):
            qn.quantize(x, 1.0, 8)


def test_the_first_value_that_is_not_finite_is_named_by_tensor(
    small: Party, small_slots: Party, set_threads: Callable[[int], None]
) -> None:
    x = {
        "a": np.zeros((0, 3)),
        "b": np.zeros(1000),
        "c.weight": np.zeros((30, 40)),
        "d": np.array(NAN),
    }
    x["c.weight"][17, 31] = INF
    for party in (small, small_slots):
        for threads in (1, 4):
            set_threads(threads)
            with pytest.raises(qn.ParameterError, match=re.escape("'c.weight'[17, 31] is NaN")):
                party.encryptor.encrypt(x, clip=1.0)
        with pytest.raises(qn.ParameterError, match=re.escape("'d'[] is NaN or infinite")):
            party.encryptor.encrypt({"d": x["d"]}, clip=1.0)


CLIPS: list[tuple[Any, str]] = [
    (None, "clip is missing"),
    (0, "clip is 0; allowed: 1e-30 to 1e+30"),
    (0.0, "clip is 0"),
    (-0.0, "clip is -0"),
    (-1.0, "clip is -1"),
    (NAN, "clip is nan"),
    (INF, "clip is inf"),
    (-INF, "clip is -inf"),
    (1e-31, "clip is 1e-31"),
    (1e31, "clip is 1e+31"),
    (10**400, "clip is 1000"),
    (True, "clip is True"),
    ("1.0", "clip is '1.0'"),
    (b"1", "clip is b'1'"),
    ([1.0], "clip is [1.0]"),
    (1j, "clip is 1j"),
    (np.array([1.0, 2.0]), "clip is array([1., 2.])"),
    ({"a": 1.0}, "clip is incomplete: tensor 'b' has none"),
    ({}, "clip is incomplete: tensor 'a' has none"),
    ({"a": 1.0, "b": 1.0, "c": 1.0}, "clip names tensor 'c', which is not in the update"),
    ({"a": 1.0, "b": 0}, "clip of tensor 'b' is 0"),
    ({"a": NAN, "b": 1.0}, "clip of tensor 'a' is nan"),
    ({"a": 1.0, "b": -2.0}, "clip of tensor 'b' is -2"),
    ({"a": 1.0, "b": None}, "clip of tensor 'b' is None"),
    ({"a": 1.0, 2: 1.0}, "clip names tensor '2'"),
]


@pytest.mark.parametrize(("clip", "message"), CLIPS, ids=repr)
def test_wrong_clip_bounds(small: Party, small_slots: Party, clip: Any, message: str) -> None:
    x = {"a": np.zeros(2), "b": np.zeros(2)}
    with pytest.raises(qn.ParameterError, match=re.escape(message)):
        small.encryptor.encrypt(x, clip=clip)
    if clip is not None:  # optional for slots, but right if given
        with pytest.raises(qn.ParameterError, match=re.escape(message)):
            small_slots.encryptor.encrypt(x, clip=clip)


def test_a_mapping_of_clip_bounds_needs_names(small: Party) -> None:
    with pytest.raises(qn.ParameterError, match="clip names tensor 'a', which is not in"):
        small.encryptor.encrypt(np.zeros(2), clip={"a": 1.0})
    with pytest.raises(qn.ParameterError, match="clip is incomplete: one array needs a number"):
        small.encryptor.encrypt(np.zeros(2), clip={})


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"rounding": "up"}, "rounding is 'up'; allowed: nearest, stochastic"),
        ({"rounding": None}, "rounding is None"),
        ({"rounding": "nearest", "rng": np.random.default_rng(1)}, "rng is given, but rounding is"),
        ({"rounding": "stochastic", "rng": 7}, "rng is a int; allowed: numpy.random.Generator"),
        ({"rounding": "stochastic", "rng": np.random.RandomState(1)}, "rng is a RandomState"),
    ],
)
def test_wrong_rounding(small: Party, choices: dict[str, Any], message: str) -> None:
    with pytest.raises(qn.ParameterError, match=re.escape(message)):
        small.encryptor.encrypt(np.zeros(2), clip=1.0, **choices)


def test_slots_round_nothing(small_slots: Party) -> None:
    with pytest.raises(qn.ParameterError, match="slots are not quantized"):
        small_slots.encryptor.encrypt(np.zeros(2), rounding="stochastic")
    for attempt in (
        lambda: small_slots.encryptor.encrypt_integers(np.arange(3)),
        lambda: small_slots.decryptor.decrypt_integers(small_slots.encryptor.encrypt(np.ones(3))),
    ):
        with pytest.raises(qn.ParameterError, match="_integers needs packed encoding"):
            attempt()


def test_values_beyond_the_slots(small_slots: Party) -> None:
    """A sum of the largest weight would wrap; up to the limit it does not."""
    limit = small_slots.params.slot_limit()
    x = np.zeros((3, 5))
    x[1, 2] = 1.01 * limit
    with pytest.raises(qn.ParameterError, match=re.escape("x[1, 2] is ")) as caught:
        small_slots.encryptor.encrypt(x)
    assert f"up to {limit:g} in sums of weight 4" in str(caught.value)
    for sign in (1, -1):
        x = np.full(512, sign * limit)
        total = qn.aggregate([small_slots.encryptor.encrypt(x)], weights=[4])
        np.testing.assert_allclose(small_slots.decryptor.decrypt_sum(total), 4 * x, rtol=0.01)
    assert small_slots.encryptor.encrypt(1e9 * x, clip=limit).values == 512


@pytest.mark.parametrize(
    ("q", "message"),
    [
        (np.array([0, 127, 128]), "x holds 128 at [2]; allowed: -127 to 127"),
        (np.array([[0, 1], [-128, 500]]), "x holds -128 at [1, 0]"),
        (np.array(200), "x holds 200 at []"),
        (np.array([2**63 - 1]), "x holds 9223372036854775807"),
        (np.array([-(2**63)]), "x holds -9223372036854775808"),
        (np.array([2**64 - 1], np.uint64), "x holds 18446744073709551615"),
        (np.array([2**32]), "x holds 4294967296"),
        (np.array([65536 + 5]), "x holds 65541"),
        (np.array([-(2**32) + 1]), "x holds -4294967295"),
        ({"a": np.array([1]), "b": np.array([[1, -200]])}, "tensor 'b' holds -200 at [0, 1]"),
        (np.array([1.0]), "x has dtype float64; allowed: integers"),
        (np.array([True]), "x has dtype bool; allowed: integers"),
        (np.array(["1"]), "x has dtype <U1; allowed: integers"),
        (np.array([1], object), "x has dtype object"),
        ({"a": np.array([1j])}, "tensor 'a' has dtype complex128"),
        ([1, 2], "x is a list; allowed: a NumPy array"),
        (7, "x is a int"),
        (None, "x is a NoneType"),
    ],
)
def test_wrong_integers(small: Party, q: Any, message: str) -> None:
    with pytest.raises(qn.ParameterError, match=re.escape(message)):
        small.encryptor.encrypt_integers(q)


@pytest.mark.parametrize("bits", [2, 3, 8, 16])
def test_the_range_of_integers_ends_at_q_max(bits: int) -> None:
    party = packed(bits=bits, max_weight=1, max_poly_degree=4096)
    q_max = 2 ** (bits - 1) - 1
    ends = np.array([q_max, -q_max])
    result = party.decryptor.decrypt_integers(party.encryptor.encrypt_integers(ends))
    np.testing.assert_array_equal(result, ends)
    for outside in (q_max + 1, -q_max - 1):
        with pytest.raises(qn.ParameterError, match=f"holds {outside} at"):
            party.encryptor.encrypt_integers(np.array([0, outside]))
