"""Frames made by hand: each lie in a header has its error, and none costs memory or time."""

import json
import re
import struct
from typing import Any

import numpy as np
import pytest
from tests.native import oracle
from tests.native.conftest import Party
from tests.native.wire_objects import (
    KINDS,
    OBJECTS,
    PASSPHRASE,
    WireObject,
    cheap_scrypt,
    wire_objects,
)

import quancrypt_native as qn
from quancrypt_native import sealing

DEEP = 100_000


@pytest.fixture(scope="module")
def objects(small: Party, small_slots: Party) -> dict[str, WireObject]:
    return wire_objects(small, small_slots)


def rebuilt(item: WireObject, *, body: bytes | None = None, **changes: Any) -> bytes:
    """``item`` with header fields changed (dropped if ``...``) and a right checksum."""
    header, old_body = oracle.unframe(item.data)
    body = old_body if body is None else body
    header |= {"body_bytes": len(body), **changes}
    kept = {name: value for name, value in header.items() if value is not ...}
    return oracle.frame(item.kind, json.dumps(kept, separators=(",", ":")).encode(), body)


@pytest.mark.parametrize("name", OBJECTS)
def test_the_format_is_as_described(objects: dict[str, WireObject], name: str) -> None:
    """Magic, version, kind, lengths, JSON header and checksum at their offsets."""
    item = objects[name]
    magic, version, kind, length = struct.unpack_from("<8sHHQ", item.data)
    assert (magic, version, kind) == (b"QUANCRPT", 1, item.kind)
    header = json.loads(item.data[20 : 20 + length])
    assert header["body_bytes"] == len(item.data) - 20 - length - 4
    assert rebuilt(item) == item.data
    found = item.read(item.data)
    if not isinstance(found, qn.SecretKey):
        assert found.to_bytes() == item.data


def test_update_headers_say_what_is_public(small: Party) -> None:
    update = small.encryptor.encrypt({"a": np.ones((2, 3)), "b": np.zeros(())}, {"a": 0.5, "b": 2})
    header, body = oracle.unframe(update.to_bytes())
    seed = header.pop("seed")
    assert header == {
        "params": small.params.fingerprint,
        "key": small.keys.key_id,
        "weight": 1,
        "single": False,
        "integers": False,
        "tensors": [["a", [2, 3], 0.5], ["b", [], 2.0]],
        "body_bytes": 1024 * 22 // 8,
    }
    assert re.fullmatch("[0-9a-f]{64}", seed)
    assert len(body) == header["body_bytes"]
    total, _ = oracle.unframe(qn.aggregate([update], [7]).to_bytes())
    assert total == header | {"seed": None, "weight": 7, "body_bytes": 2 * 1024 * 22 // 8}


@pytest.mark.parametrize("name", OBJECTS)
def test_frames_of_another_sort(objects: dict[str, WireObject], name: str) -> None:
    item = objects[name]
    header, body = oracle.unframe(item.data)
    del header["body_bytes"]

    def refused(message: str, **choices: Any) -> None:
        data = oracle.frame(choices.pop("kind", item.kind), header, body, **choices)
        with pytest.raises(qn.WireFormatError, match=message):
            item.read(data)

    refused("wrong magic", magic=b"QUANCRYP")
    for version in (0, 2, 256, 65535):
        refused(f"format version {version} is not supported; supported: 1", version=version)
    for kind, number in KINDS.items():
        if number != item.kind:
            refused(f"hold kind {kind}; expected kind", kind=number)
    refused("hold the unknown kind 99", kind=99)
    size = len(json.dumps({**header, "body_bytes": len(body)}, separators=(",", ":")))
    for length, message in (
        (size + len(body) + 1, "truncated: header"),
        (16 * 2**20 + 1, "header length 16777217 is too large"),
        (2**64 - 1, "header length 18446744073709551615 is too large"),
        (0, "not valid JSON"),
        (size - 1, "not valid JSON"),
    ):
        refused(message, header_length=length)
    for stated in (len(body) + 1, 2**48):
        refused(f"truncated: body of {stated} bytes", body_bytes=stated)
    if body:
        refused("1 trailing bytes", body_bytes=len(body) - 1)
    for wrong in (-1, 2**48 + 1, 2**100):
        refused("'body_bytes' is missing or no valid length", body_bytes=wrong)
    for value in (None, 1.0, True, "9", [len(body)]):
        with pytest.raises(qn.WireFormatError, match="'body_bytes' is missing or no valid length"):
            item.read(rebuilt(item, body_bytes=value))


@pytest.mark.parametrize("name", ["seeded update", "parameters", "public key", "secret key"])
@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"null",
        b"7",
        b'"text"',
        b"{",
        b"{} {}",
        b"{'a': 1}",
        b'{"a": 1,}',
        b'\xef\xbb\xbf{"body_bytes": 0}',
        b'{"a": "\xff"}',
        b'{"a": "\xed\xa0\x80"}',
        b'{"body_bytes": NaN}',
        b'{"body_bytes": Infinity}',
        b'{"weight": -Infinity, "body_bytes": 0}',
        b'{"body_bytes": 0, "body_bytes": 0}',
        b'{"body_bytes": 0, "deep": {"a": 1, "a": 1}}',
        b'{"body_bytes": ' + b"1" * 5000 + b"}",
        b'{"body_bytes": 1e999}',
        b"[" * DEEP + b"]" * DEEP,
        b'{"a":' * DEEP + b"0" + b"}" * DEEP,
        b'{"body_bytes": 0, "a": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    ],
    ids=lambda text: repr(text[:24]),
)
def test_headers_that_are_no_flat_object(
    objects: dict[str, WireObject], name: str, text: bytes
) -> None:
    item = objects[name]
    with pytest.raises(qn.WireFormatError):
        item.read(oracle.frame(item.kind, text, b""))


@pytest.mark.parametrize("name", OBJECTS)
def test_every_field_is_required_and_none_is_ignored(
    objects: dict[str, WireObject], name: str
) -> None:
    item = objects[name]
    header, body = oracle.unframe(item.data)
    # A changed key file fails at its authentication, whatever the change.
    sealed = qn.PassphraseError if name == "secret key" else qn.WireFormatError
    for field in header:
        with pytest.raises((qn.WireFormatError, sealed)):
            item.read(rebuilt(item, **{field: ...}))
        text = json.dumps(header)[:-1] + f', "{field}": {json.dumps(header[field])}' + "}"
        with pytest.raises(qn.WireFormatError, match="stands twice"):
            item.read(oracle.frame(item.kind, text.encode(), body))
        for value in ([], {}, {"a": []}, -1, 0.5, 10**40, "", "x" * 1000, "é" * 32):
            if value != header[field] and not (field == "tensors" and value == []):
                with pytest.raises((qn.WireFormatError, sealed)):
                    item.read(rebuilt(item, **{field: value}))
    with pytest.raises((qn.WireFormatError, sealed)):
        item.read(rebuilt(item, extra=1))


UPDATE_LIES: list[tuple[str, dict[str, Any], type, str]] = [
    ("seeded update", {"params": "0" * 32}, qn.FingerprintError, "made with parameters 0000"),
    ("seeded update", {"params": "0" * 31}, qn.WireFormatError, "'params'"),
    ("seeded update", {"params": "A" * 32}, qn.WireFormatError, "hexadecimal"),
    ("seeded update", {"key": "0" * 33}, qn.WireFormatError, "'key'"),
    ("seeded update", {"seed": "0" * 62}, qn.WireFormatError, "'seed'"),
    ("seeded update", {"seed": None}, qn.WireFormatError, "body has 2816 bytes"),
    ("seeded update", {"weight": 2}, qn.WireFormatError, "seeded update has weight 2"),
    ("seeded update", {"weight": 0}, qn.WireFormatError, "'weight' is 0"),
    ("seeded update", {"weight": -1}, qn.WireFormatError, "'weight' is -1"),
    ("seeded update", {"weight": True}, qn.WireFormatError, "'weight' is True"),
    ("seeded update", {"weight": 1.0}, qn.WireFormatError, r"'weight' is 1\.0"),
    ("sum", {"weight": 17}, qn.CapacityError, "weight 17 is above max_weight = 16"),
    ("sum", {"weight": 2**63 - 1}, qn.CapacityError, "above max_weight"),
    ("sum", {"weight": 2**63}, qn.WireFormatError, "'weight'"),
    ("sum", {"seed": "0" * 64}, qn.WireFormatError, "seeded update has weight 3"),
    ("sum", {"single": True}, qn.WireFormatError, "a single array with 2 tensors"),
    ("sum", {"single": 1}, qn.WireFormatError, "'single' is 1"),
    ("sum", {"single": True, "tensors": [["a", [2], 1.0]]}, qn.WireFormatError, "named 'a'"),
    ("sum", {"integers": True}, qn.WireFormatError, "tensor 0 has no valid clip bound"),
    ("sum", {"integers": None}, qn.WireFormatError, "'integers' is None"),
    ("integers", {"integers": False}, qn.WireFormatError, "lacks a clip bound"),
    ("slots", {"integers": True}, qn.WireFormatError, "slots hold no integers"),
    ("sum", {"tensors": {}}, qn.WireFormatError, "'tensors'"),
    ("sum", {"tensors": []}, qn.WireFormatError, r"body has 5632 bytes; 0 \w+ take 0"),
]


@pytest.mark.parametrize(("name", "changes", "error", "message"), UPDATE_LIES)
def test_lies_about_updates(
    objects: dict[str, WireObject], name: str, changes: dict[str, Any], error: type, message: str
) -> None:
    item = objects[name]
    with pytest.raises(error, match=message) as caught:
        item.read(rebuilt(item, **changes))
    assert caught.type is error


TENSOR_LIES: list[tuple[Any, str]] = [
    ("a", "tensor 1 is not"),
    (["b", [4]], "tensor 1 is not"),
    (["b", [4], 1.0, 0], "tensor 1 is not"),
    ([7, [4], 1.0], "no name of its own"),
    (["a", [4], 1.0], "no name of its own"),
    (["b", 4, 1.0], "no valid shape"),
    (["b", [-4], 1.0], "no valid shape"),
    (["b", [4.0], 1.0], "no valid shape"),
    (["b", [True], 1.0], "no valid shape"),
    (["b", ["4"], 1.0], "no valid shape"),
    (["b", [2**45], 1.0], "no valid shape"),
    (["b", [2**63], 1.0], "no valid shape"),
    (["b", [2**64, 2**64], 1.0], "no valid shape"),
    (["b", [2**64, 0], 1.0], "no valid shape"),
    (["b", [2**30, 2**30], 1.0], "no valid shape"),
    (["b", [1] * 33, 1.0], "no valid shape"),
    (["b", [2**44], 1.0], "values are too many"),
    (["b", [2**43], 1.0], "body has 5632 bytes"),
    (["b", [2**40], 1.0], "body has 5632 bytes"),
    (["b", [1020], 1.0], r"\w+ take 11264"),
    (["b", [4], None], "lacks a clip bound"),
    (["b", [4], 1], "no valid clip bound"),
    (["b", [4], True], "no valid clip bound"),
    (["b", [4], "1.0"], "no valid clip bound"),
    (["b", [4], 0.0], "no valid clip bound"),
    (["b", [4], -1.0], "no valid clip bound"),
    (["b", [4], 1e-31], "no valid clip bound"),
    (["b", [4], 1e31], "no valid clip bound"),
    (["b", [4], [1.0]], "no valid clip bound"),
]


@pytest.mark.parametrize(("tensor", "message"), TENSOR_LIES, ids=repr)
def test_lies_about_tensors(objects: dict[str, WireObject], tensor: Any, message: str) -> None:
    item = objects["sum"]
    with pytest.raises(qn.WireFormatError, match=message):
        item.read(rebuilt(item, tensors=[["a", [2, 3], 1.0], tensor]))


def test_infinite_clip_bounds_are_refused(objects: dict[str, WireObject]) -> None:
    """1e999 is valid JSON that reads as infinity."""
    header, body = oracle.unframe(objects["sum"].data)
    for number in ("1e999", "-1e999", "NaN"):
        text = json.dumps(header).replace("1.0", number)
        assert number in text
        with pytest.raises(qn.WireFormatError):
            objects["sum"].read(oracle.frame(1, text.encode(), body))


def test_too_many_tensors(objects: dict[str, WireObject]) -> None:
    tensors = [[str(i), [0], 1.0] for i in range(2**18 + 1)]
    with pytest.raises(qn.WireFormatError, match="at most 262144 items"):
        objects["sum"].read(rebuilt(objects["sum"], tensors=tensors))
    many = objects["sum"].read(rebuilt(objects["sum"], tensors=tensors[:-1], body=b""))
    assert len(many.layout.tensors) == 2**18
    assert many.ciphertexts == 0


@pytest.mark.parametrize("name", ["seeded update", "sum"])
def test_bodies_of_another_length(objects: dict[str, WireObject], name: str) -> None:
    item = objects[name]
    _, body = oracle.unframe(item.data)
    for wrong in (b"", body[:-1], body + b"\0", body + body, body[: len(body) // 2]):
        with pytest.raises(qn.WireFormatError, match=f"body has {len(wrong)} bytes"):
            item.read(rebuilt(item, body=wrong))


@pytest.mark.parametrize("excess", [0, 1, 1000])
@pytest.mark.parametrize("position", [0, 1, 511, 1023])
def test_residues_out_of_range(
    objects: dict[str, WireObject], small: Party, position: int, excess: int
) -> None:
    """p and above, which 22 bits can say, in either polynomial; p - 1 is fine."""
    (p,) = small.params.data_primes
    for name, parts in (("seeded update", 1), ("sum", 2)):
        item = objects[name]
        _, body = oracle.unframe(item.data)
        size = oracle.polynomial_bytes(small.params)
        for part in range(parts):
            polynomial = oracle.unpack_polynomial(
                small.params, body[part * size : (part + 1) * size]
            )
            for value, valid in ((p - 1, True), (p + excess, False)):
                polynomial[0, position] = value
                packed = oracle.pack_polynomial(small.params, polynomial)
                data = rebuilt(item, body=body[: part * size] + packed + body[(part + 1) * size :])
                if valid:
                    item.read(data)
                    continue
                message = f"residue {position} modulo prime 0 is not below the prime"
                with pytest.raises(qn.WireFormatError, match=message):
                    item.read(data)


def test_residues_of_public_keys_out_of_range(objects: dict[str, WireObject]) -> None:
    item = objects["public key"]
    _, body = oracle.unframe(item.data)
    with pytest.raises(qn.WireFormatError, match="residue 0 modulo prime 0"):
        item.read(rebuilt(item, body=b"\xff\xff\x3f" + body[3:]))
    for wrong in (b"", body[:-1], body + b"\0"):
        with pytest.raises(qn.WireFormatError, match=f"public key body has {len(wrong)} bytes"):
            item.read(rebuilt(item, body=wrong))
    with pytest.raises(qn.FingerprintError, match="public key belongs to parameters ffff"):
        item.read(rebuilt(item, params="f" * 32))


def test_second_primes_are_checked_too(wide: Party) -> None:
    update = wide.encryptor.encrypt_integers(np.zeros(3, np.int8))
    header, body = oracle.unframe(update.to_bytes())
    del header["body_bytes"]
    changed = bytearray(body)
    changed[len(body) // 2 : len(body) // 2 + 6] = b"\xff" * 6
    with pytest.raises(qn.WireFormatError, match="residue 0 modulo prime 1 is not below"):
        qn.EncryptedUpdate.from_bytes(oracle.frame(1, header, bytes(changed)), wide.params)


PARAMETER_LIES: list[tuple[dict[str, Any], str]] = [
    ({"encoding": "bfv"}, "encoding is 'bfv'"),
    ({"key_mode": "none"}, "key_mode is 'none'"),
    ({"poly_degree": 1000}, "'poly_degree' is 1000"),
    ({"poly_degree": 1025}, "ring degree is 1025"),
    ({"poly_degree": 2048}, "not 1 modulo 4096"),
    ({"security": 256}, "at most 14 are allowed"),
    ({"security": 200}, "no security limit is known"),
    ({"max_weight": 17}, "not admissible"),
    ({"max_weight": 65537}, "'max_weight' is 65537"),
    ({"bits": 1}, "bits is 1"),
    ({"bits": 9}, "not admissible"),
    ({"fields": 2}, "the largest sum does not fit"),
    ({"fields": 0}, "fields is 0"),
    ({"fields": 4097}, "'fields' is 4097"),
    ({"field_bits": 11}, "a field of 11 bits does not hold a sum of 4064"),
    ({"field_bits": 0}, "a field of 0 bits"),
    ({"field_bits": 33}, "'field_bits' is 33"),
    ({"guard_bits": 9}, "9 guard bits do not hold the noise"),
    ({"guard_bits": 0}, "0 guard bits do not hold the noise"),
    ({"guard_bits": 11}, "the largest sum does not fit"),
    ({"noise_bound": 20}, "noise_bound is 20; these parameters have 21"),
    ({"scale_bits": 1}, "packed encoding has no scale_bits"),
    ({"coeff_modulus": []}, "not admissible"),
    ({"coeff_modulus": [4188162]}, "4188162 is not a prime"),
    ({"coeff_modulus": [4188161, 4188161]}, "not admissible"),
    ({"coeff_modulus": [4188161, 12289]}, "at most 27 are allowed"),
    ({"coeff_modulus": [4194301]}, "4194301 is not 1 modulo 2048"),
    ({"coeff_modulus": [2]}, "not admissible"),
    ({"coeff_modulus": [0]}, "'coeff_modulus'"),
    ({"coeff_modulus": [2**61 - 1]}, "'coeff_modulus'"),
    ({"coeff_modulus": [4188161.0]}, "'coeff_modulus'"),
    ({"coeff_modulus": [4188161] * 65}, "'coeff_modulus'"),
    ({"coeff_modulus": 4188161}, "'coeff_modulus'"),
    ({"encoding": "slots"}, "slots have no bits"),
    ({"encoding": "x" * 65}, "'encoding'"),
]


@pytest.mark.parametrize(("changes", "message"), PARAMETER_LIES, ids=repr)
def test_lies_about_parameters(
    objects: dict[str, WireObject], changes: dict[str, Any], message: str
) -> None:
    item = objects["parameters"]
    with pytest.raises(qn.WireFormatError, match=message):
        item.read(rebuilt(item, **changes))


def test_parameters_with_a_body(objects: dict[str, WireObject]) -> None:
    with pytest.raises(qn.WireFormatError, match="parameters have a body of 1 bytes"):
        objects["parameters"].read(rebuilt(objects["parameters"], body=b"\0"))


def test_slots_have_no_noise_bound(objects: dict[str, WireObject]) -> None:
    with pytest.raises(qn.WireFormatError, match="slots have no noise_bound"):
        objects["slot parameters"].read(rebuilt(objects["slot parameters"], noise_bound=7))


def sealed(key: qn.SecretKey, secret: bytes, header: dict[str, Any] | None = None) -> bytes:
    """A key file whose sealed part is ``secret``."""
    fields = {"params": key.params.fingerprint, "key": key.key_id} if header is None else header
    with cheap_scrypt():
        return sealing.seal(sealing.wire.Kind.SECRET_KEY, fields, secret, PASSPHRASE)


def test_key_files_sealed_by_a_liar(small: Party, wide: Party) -> None:
    """The passphrase is right; what it opens is not believed either."""
    key = small.keys.secret

    def opened(data: bytes) -> qn.SecretKey:
        return qn.SecretKey.from_bytes(data, small.params, passphrase=PASSPHRASE)

    assert opened(sealed(key, bytes(256))).key_id == key.key_id
    for secret in (bytes(255), bytes(257), bytes(1)):
        with pytest.raises(qn.WireFormatError, match=f"secret key body has {len(secret)} bytes"):
            opened(sealed(key, secret))
    with pytest.raises(qn.WireFormatError, match="sealed part has 16 bytes"):
        opened(sealed(key, b""))
    with pytest.raises(qn.WireFormatError, match="not ternary"):
        opened(sealed(key, bytes(100) + b"\x03" + bytes(155)))
    with pytest.raises(qn.FingerprintError, match="secret key belongs to parameters"):
        opened(sealed(wide.keys.secret, bytes(1024)))
    with pytest.raises(qn.WireFormatError, match="unknown header field 'more'"):
        opened(
            sealed(
                key, bytes(256), {"params": small.params.fingerprint, "key": key.key_id, "more": 1}
            )
        )
    with pytest.raises(qn.WireFormatError, match="'key' is missing"):
        opened(sealed(key, bytes(256), {"params": small.params.fingerprint}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kdf": "none"}, "unknown derivation or cipher"),
        ({"cipher": "aes-128-gcm"}, "unknown derivation or cipher"),
        ({"scrypt_n": 2**21}, "'scrypt_n' is 2097152"),
        ({"scrypt_n": 2**40}, "'scrypt_n'"),
        ({"scrypt_n": 1}, "'scrypt_n' is 1"),
        ({"scrypt_n": 100}, "'scrypt_n' is 100; allowed: a power of two"),
        ({"scrypt_r": 2**30}, "'scrypt_r'"),
        ({"scrypt_p": 2**30}, "'scrypt_p'"),
        ({"scrypt_p": 0}, "'scrypt_p'"),
        ({"salt": ""}, "'salt'"),
        ({"salt": "zz" * 16}, "'salt'"),
        ({"nonce": "00" * 11}, "'nonce'"),
    ],
)
def test_lies_about_the_sealing(
    objects: dict[str, WireObject], changes: dict[str, Any], message: str
) -> None:
    """Refused before anything is derived: a stranger's file asks for no more than 1 GiB."""
    item = objects["secret key"]
    with pytest.raises(qn.WireFormatError, match=message):
        item.read(rebuilt(item, **changes))


@pytest.mark.parametrize("name", OBJECTS)
def test_only_bytes_are_read(objects: dict[str, WireObject], name: str) -> None:
    """Bytes in any of their types, strided views too; nothing else."""
    item = objects[name]
    doubled = np.repeat(np.frombuffer(item.data, np.uint8), 2)
    for data in (
        bytearray(item.data),
        memoryview(item.data),
        memoryview(bytearray(item.data)),
        memoryview(doubled)[::2],
    ):
        item.read(data)
    for wrong in (None, "QUANCRPT", 7, list(item.data), np.frombuffer(item.data, np.uint8)):
        with pytest.raises(qn.WireFormatError, match=f"expected bytes, got {type(wrong).__name__}"):
            item.read(wrong)


def test_what_was_checked_is_what_is_used(small: Party) -> None:
    """Changing a bytearray after parsing changes nothing."""
    update = small.encryptor.encrypt_integers(np.arange(100))
    data = bytearray(update.to_bytes())
    read = qn.EncryptedUpdate.from_bytes(data, small.params)
    data[:] = bytes(len(data))
    np.testing.assert_array_equal(small.decryptor.decrypt_integers(read), np.arange(100))
    assert read.to_bytes() == update.to_bytes()
    with pytest.raises(ValueError, match="read-only"):
        read._body[0] = 1


def test_nbytes_is_the_serialized_length(
    objects: dict[str, WireObject], small: Party, small_slots: Party
) -> None:
    for name in ("seeded update", "sum", "integers", "slots"):
        assert objects[name].read(objects[name].data).nbytes == len(objects[name].data)
    empty = small.encryptor.encrypt({}, clip=1.0)
    assert empty.nbytes == len(empty.to_bytes())
    named = small_slots.encryptor.encrypt({"é\u0000\u4e2d": np.zeros(2)})
    assert named.nbytes == len(named.to_bytes())
    again = qn.EncryptedUpdate.from_bytes(named.to_bytes(), small_slots.params)
    assert list(again.shapes) == ["é\u0000\u4e2d"]
