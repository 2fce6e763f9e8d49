"""Keys: files, identities, pickling, and that nothing but a key file gives a secret away."""

import copy
import dataclasses
import gc
import json
import os
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.native import oracle
from tests.native.conftest import Party
from tests.native.wire_objects import PASSPHRASE, cheap_scrypt

import quancrypt_native as qn
from quancrypt_native import _core, sealing, wire


def key_file(key: qn.SecretKey, passphrase: bytes = PASSPHRASE) -> bytes:
    with cheap_scrypt():
        return key.to_bytes(passphrase=passphrase)


@pytest.mark.parametrize("name", ["small", "public", "wide", "standard_slots"])
def test_key_files_round_trip(request: pytest.FixtureRequest, name: str) -> None:
    party: Party = request.getfixturevalue(name)
    secret = qn.SecretKey.from_bytes(
        key_file(party.keys.secret), party.params, passphrase=PASSPHRASE
    )
    assert secret.key_id == party.keys.key_id == party.keys.secret.key_id
    assert secret.params == party.params
    x = np.linspace(-1, 1, 100)
    for encryptor in (party.encryptor, party.seeded, qn.Encryptor(party.params, secret)):
        result = qn.Decryptor(party.params, secret).decrypt_mean(encryptor.encrypt(x, clip=1.0))
        np.testing.assert_allclose(result, x, atol=1 / 127)
    (first, second) = (oracle.secret_coefficients(key) for key in (secret, party.keys.secret))
    np.testing.assert_array_equal(first, second)


def test_the_derivation_at_its_full_cost(small: Party) -> None:
    """As users get it: Scrypt with 64 MiB, a fresh salt and nonce, AES-256-GCM."""
    data = small.keys.secret.to_bytes(passphrase=PASSPHRASE)
    header, body = oracle.unframe(data)
    assert (header["kdf"], header["cipher"]) == ("scrypt", "aes-256-gcm")
    assert (header["scrypt_n"], header["scrypt_r"], header["scrypt_p"]) == (2**16, 8, 2)
    assert len(body) == small.params.poly_degree // 4 + 16
    found = qn.SecretKey.from_bytes(data, small.params, passphrase=PASSPHRASE)
    assert found.key_id == small.keys.key_id


def test_the_sealing_is_scrypt_and_aes_gcm(small: Party) -> None:
    """Opened by `cryptography` alone, from the description of the format."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    data = key_file(small.keys.secret)
    header, body = oracle.unframe(data)
    kdf = Scrypt(
        bytes.fromhex(header["salt"]),
        32,
        header["scrypt_n"],
        header["scrypt_r"],
        header["scrypt_p"],
    )
    before_body = data[: len(data) - 4 - len(body)]
    nonce = bytes.fromhex(header["nonce"])
    secret = AESGCM(kdf.derive(PASSPHRASE)).decrypt(nonce, body, before_body)
    codes = np.unpackbits(np.frombuffer(secret, np.uint8), bitorder="little").reshape(-1, 2)
    coefficients = codes @ np.array([1, 2]) - 1
    np.testing.assert_array_equal(coefficients, oracle.secret_coefficients(small.keys.secret))


def test_a_random_passphrase_is_not_stretched(small: Party) -> None:
    passphrase = os.urandom(32)
    data = small.keys.secret.to_bytes(passphrase=passphrase, random_passphrase=True)
    header, _ = wire.parse(data, wire.Kind.SECRET_KEY)
    assert (header["scrypt_n"], header["scrypt_r"], header["scrypt_p"]) == (2, 8, 1)
    found = qn.SecretKey.from_bytes(data, small.params, passphrase=passphrase)
    assert found.key_id == small.keys.secret.key_id
    with pytest.raises(qn.PassphraseError):
        qn.SecretKey.from_bytes(data, small.params, passphrase=os.urandom(32))
    with pytest.raises(qn.ParameterError, match="random passphrase of 31 bytes; allowed: 32"):
        small.keys.secret.to_bytes(passphrase=passphrase[:31], random_passphrase=True)


def test_wrong_passphrases(small: Party) -> None:
    data = key_file(small.keys.secret)
    for wrong in (
        b"",
        b"correct horse ",
        b"Correct horse",
        b"correct hors",
        bytes(13),
        b"x" * 10**5,
    ):
        with pytest.raises((qn.PassphraseError, qn.ParameterError)) as caught:
            qn.SecretKey.from_bytes(data, small.params, passphrase=wrong)
        assert caught.type is (qn.PassphraseError if wrong else qn.ParameterError)
        assert "horse" not in str(caught.value)
        assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "passphrase", ["text", None, 7, [b"x"], memoryview(b"x")], ids=lambda p: type(p).__name__
)
def test_passphrases_are_bytes(small: Party, passphrase: Any) -> None:
    kind = type(passphrase).__name__
    with pytest.raises(qn.ParameterError, match=f"passphrase is a {kind}; allowed: bytes"):
        small.keys.secret.to_bytes(passphrase=passphrase)
    with pytest.raises(qn.ParameterError, match=f"passphrase is a {kind}"):
        qn.SecretKey.from_bytes(b"", small.params, passphrase=passphrase)
    with pytest.raises(qn.ParameterError, match="passphrase is empty"):
        small.keys.secret.to_bytes(passphrase=b"")


def test_there_is_no_unsealed_form(small: Party) -> None:
    with pytest.raises(TypeError, match="passphrase"):
        small.keys.secret.to_bytes()  # type: ignore[call-arg]


def test_passphrases_of_any_bytes(small: Party) -> None:
    for passphrase in (b"\0", bytes(range(256)), bytearray(b"array"), "pässwörd".encode()):
        data = key_file(small.keys.secret, passphrase)  # type: ignore[arg-type]
        found = qn.SecretKey.from_bytes(data, small.params, passphrase=bytes(passphrase))
        assert found.key_id == small.keys.key_id


def test_without_cryptography(small: Party, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything but key files works; those say what to install."""
    monkeypatch.setitem(
        __import__("sys").modules, "cryptography.hazmat.primitives.ciphers.aead", None
    )
    for attempt in (
        lambda: key_file(small.keys.secret),
        lambda: sealing._aes_gcm(bytes(32)),
    ):
        with pytest.raises(qn.QuanCryptError, match="need the package 'cryptography': pip install"):
            attempt()


# --- what is refused ---


def refusals(keys: qn.KeyPair) -> dict[str, Callable[[], Any]]:
    decryptor = qn.Decryptor(keys.secret.params, keys.secret)
    encryptor = qn.Encryptor(keys.secret.params, keys.secret)
    return {
        **{f"pickle {p}": lambda p=p: pickle.dumps(keys.secret, protocol=p) for p in range(6)},
        "copy": lambda: copy.copy(keys.secret),
        "deepcopy": lambda: copy.deepcopy(keys.secret),
        "reduce": lambda: keys.secret.__reduce__(),
        "reduce_ex": lambda: keys.secret.__reduce_ex__(4),
        "pickle pair": lambda: pickle.dumps(keys),
        "deepcopy pair": lambda: copy.deepcopy(keys),
        "asdict pair": lambda: dataclasses.asdict(keys),
        "pickle in a list": lambda: pickle.dumps([1, {"key": keys.secret}]),
        "pickle decryptor": lambda: pickle.dumps(decryptor),
        "pickle encryptor": lambda: pickle.dumps(encryptor),
        "deepcopy decryptor": lambda: copy.deepcopy(decryptor),
        "pickle core": lambda: pickle.dumps(keys.secret._core),
        "copy core": lambda: copy.copy(keys.secret._core),
        "json": lambda: json.dumps(keys.secret),
        "bytes": lambda: bytes(keys.secret),  # type: ignore[call-overload]
        "array": lambda: np.asarray(keys.secret._core).astype(np.int8),
    }


REFUSED = (
    *(f"pickle {protocol}" for protocol in range(6)), "copy", "deepcopy", "reduce", "reduce_ex",
    "pickle pair", "deepcopy pair", "asdict pair", "pickle in a list", "pickle decryptor",
    "pickle encryptor", "deepcopy decryptor", "pickle core", "copy core", "json", "bytes", "array",
)  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_secret_keys_do_not_leave_by_the_back_door(small: Party, name: str) -> None:
    with pytest.raises(TypeError) as caught:
        refusals(small.keys)[name]()
    assert_no_secret(str(caught.value), small.keys.secret)
    if "pickle" in name and "core" not in name:
        assert caught.type is qn.SecretKeyPickleError
        assert "to_bytes(passphrase=...)" in str(caught.value)


def test_all_refusals_are_tried(small: Party) -> None:
    assert sorted(refusals(small.keys)) == sorted(REFUSED)


def secret_fragments(key: qn.SecretKey) -> list[str]:
    """Pieces of the secret in the forms that a text could hold them."""
    coefficients = oracle.secret_coefficients(key)[:24].tolist()
    saved = bytes(key._core.save())
    return [
        str(coefficients)[1:-1],
        "".join(str(c + 1) for c in coefficients),
        saved[:12].hex(),
        repr(saved[:12])[2:-1],
        str(list(saved[:12]))[1:-1],
    ]


def assert_no_secret(text: str, key: qn.SecretKey) -> None:
    for fragment in secret_fragments(key):
        assert fragment not in text


def test_repr_and_str_hold_no_secret(small: Party) -> None:
    keys = small.keys
    short = keys.key_id[:8]
    assert repr(keys.secret) == str(keys.secret) == f"SecretKey(key={short}, secret withheld)"
    assert repr(keys.public) == f"PublicKey(key={short})"
    for item in (keys, keys.secret, keys.secret._core, small.decryptor, small.seeded, small):
        for text in (repr(item), str(item), f"{item}", f"{item!r:>50}"):
            assert_no_secret(text, keys.secret)
    assert not hasattr(keys.secret, "__dict__")


def test_errors_hold_no_secret(small: Party, wide: Party) -> None:
    stranger = qn.keygen(small.params)
    fresh = qn.Encryptor(small.params, stranger.secret).encrypt_integers(np.arange(3))
    for attempt in (
        lambda: qn.Decryptor(wide.params, small.keys.secret),
        lambda: small.decryptor.decrypt_mean(fresh),
        lambda: qn.Encryptor(small.params, small.keys.public),
        lambda: small.decryptor.decrypt_mean(small.keys.secret),  # type: ignore[arg-type]
        lambda: qn.aggregate([small.keys.secret]),  # type: ignore[list-item]
        lambda: small.encryptor.encrypt(small.keys.secret, clip=1.0),
        lambda: small.encryptor.encrypt(np.zeros(2), clip=small.keys.secret),
        lambda: qn.Parameters.for_aggregation(key_mode=small.keys.secret),  # type: ignore[arg-type]
    ):
        with pytest.raises(qn.QuanCryptError) as caught:
            attempt()
        assert_no_secret(str(caught.value), small.keys.secret)
        assert_no_secret(repr(caught.value), small.keys.secret)


def test_key_files_hold_no_secret_in_the_clear(small: Party) -> None:
    saved = bytes(small.keys.secret._core.save())
    data = key_file(small.keys.secret)
    for at in range(len(saved) - 8):
        assert saved[at : at + 8] not in data
    public = small.keys.public.to_bytes() + small.params.to_bytes()
    assert saved[:8] not in public


def test_two_key_files_share_no_salt_nonce_or_body(small: Party) -> None:
    files = [oracle.unframe(key_file(small.keys.secret)) for _ in range(3)]
    for field in ("salt", "nonce"):
        assert len({header[field] for header, _ in files}) == 3
    assert len({body for _, body in files}) == 3


def test_a_wiped_copy_is_what_to_bytes_leaves(
    small: Party, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The secret bytes that the core hands out are zeros afterwards, after an error too."""
    seen: list[_core.SecretBytes] = []
    original = sealing.seal

    def spy(kind: Any, header: Any, secret: Any, passphrase: bytes, **options: Any) -> bytes:
        assert any(bytes(secret))
        seen.append(secret)
        return original(kind, header, secret, passphrase, **options)

    monkeypatch.setattr(sealing, "seal", spy)
    key_file(small.keys.secret)
    with pytest.raises(qn.ParameterError):
        small.keys.secret.to_bytes(passphrase=b"")
    assert len(seen) == 2
    assert not any(any(bytes(secret)) for secret in seen)


# --- identities ---


def test_key_identities(small: Party, wide: Party) -> None:
    keys = small.keys
    assert re.fullmatch("[0-9a-f]{32}", keys.key_id)
    assert keys.secret.key_id == keys.public.key_id == keys.key_id
    assert qn.keygen(small.params).key_id != keys.key_id
    assert small.encryptor.encrypt(np.zeros(2), clip=1.0).key_id == keys.key_id
    assert (keys.secret.params, keys.public.params) == (small.params, small.params)
    assert wide.keys.key_id != keys.key_id


def test_public_keys_compare_and_hash(public: Party) -> None:
    key = public.keys.public
    again = qn.PublicKey.from_bytes(key.to_bytes(), public.params)
    other = qn.keygen(public.params).public
    assert key == again
    assert hash(key) == hash(again)
    assert key != other
    assert key != key.key_id
    assert len({key, again, other}) == 2


def test_a_read_public_key_encrypts(public: Party) -> None:
    key = qn.PublicKey.from_bytes(public.keys.public.to_bytes(), public.params)
    q = np.arange(-50, 50)
    update = qn.Encryptor(public.params, key).encrypt_integers(q)
    assert not update.seeded
    np.testing.assert_array_equal(public.decryptor.decrypt_integers(update), q)


def test_a_public_key_encrypts_zero_of_its_secret(public: Party) -> None:
    """pk0 + pk1 s is small: at most 21, modulo every prime."""
    update = public.encryptor.encrypt_integers(np.zeros(1, np.int8))
    assert update.key_id == public.keys.key_id
    header, body = oracle.unframe(public.keys.public.to_bytes())
    (p,) = public.params.coeff_modulus
    pk0 = oracle.unpack_polynomial(public.params, body)[0]
    # Key streams have the index 2^64 - 1.
    pk1 = oracle.expand_c1(public.params, bytes.fromhex(header["seed"]), 2**64 - 1)[0]
    s = oracle.secret_coefficients(public.keys.secret)
    small_error = oracle.interpolate((pk0 + pk1 * oracle.evaluate(s % p, p)) % p, p)
    small_error[small_error > p // 2] -= p
    assert abs(small_error).max() <= 21
    assert len(set(small_error.tolist())) > 10


# --- pickling of what is public ---


@pytest.mark.parametrize("protocol", range(2, 6))
def test_public_objects_pickle(public: Party, small: Party, protocol: int) -> None:
    def again(item: Any) -> Any:
        return pickle.loads(pickle.dumps(item, protocol=protocol))

    for params in (small.params, public.params, qn.Parameters.slots()):
        assert again(params) == params
        assert again(params).fingerprint == params.fingerprint
    assert again(public.keys.public) == public.keys.public
    q = np.arange(-5, 6)
    fresh = small.encryptor.encrypt_integers(q)
    total = qn.aggregate([fresh], weights=[5])
    for update, factor in ((fresh, 1), (total, 5)):
        copied = again(update)
        assert copied.to_bytes() == update.to_bytes()
        assert (copied.params, copied.weight) == (update.params, update.weight)
        np.testing.assert_array_equal(small.decryptor.decrypt_integers(copied), factor * q)
    for item in (fresh, public.keys.public):
        assert copy.copy(item).to_bytes() == copy.deepcopy(item).to_bytes() == item.to_bytes()
    assert again(qn.Encryptor(public.params, public.keys.public)).params == public.params


def test_pickles_are_the_wire_format(small: Party) -> None:
    """A damaged pickle ends in our error, not in a broken object."""
    update = small.encryptor.encrypt_integers(np.arange(5))
    data = update.to_bytes()
    stream = pickle.dumps(update)
    assert data in stream
    damaged = stream.replace(data, data[:-10] + bytes([data[-10] ^ 1]) + data[-9:])
    with pytest.raises(qn.WireFormatError, match="checksum"):
        pickle.loads(damaged)


def test_keys_outlive_their_parameters() -> None:
    """Python objects may go in any order."""
    params = qn.Parameters.for_aggregation(max_poly_degree=1024)
    keys = qn.keygen(params)
    encryptor, decryptor = qn.Encryptor(params, keys.secret), qn.Decryptor(params, keys.secret)
    update = encryptor.encrypt_integers(np.arange(5))
    total = qn.Aggregator(params)
    del params, keys, encryptor
    gc.collect()
    total.add(update)
    del update
    gc.collect()
    np.testing.assert_array_equal(decryptor.decrypt_integers(total.result()), np.arange(5))


def test_an_aggregator_refuses_pickling_and_copying(small: Party) -> None:
    total = qn.Aggregator(small.params)
    for _ in range(2):
        for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(qn.ParameterError, match="pickle its result"):
                attempt(total)
        total.add(small.encryptor.encrypt(np.zeros(3), clip=1.0))
