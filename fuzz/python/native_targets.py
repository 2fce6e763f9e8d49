"""Targets of ``quancrypt_native``: everything that has a ``from_bytes``."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

import numpy as np

import quancrypt_native as qn
from fuzz.python import frames
from fuzz.python.json_mutations import bytes_changed
from fuzz.python.target import Target
from quancrypt_native import sealing, wire

PASSPHRASE = b"fuzz"


@cache
def _party(name: str) -> tuple[qn.Parameters, qn.KeyPair]:
    params = {
        "packed": lambda: qn.Parameters.for_aggregation(max_poly_degree=1024),
        "public": lambda: qn.Parameters.for_aggregation(
            bits=4, max_weight=4, max_poly_degree=1024, key_mode="public"
        ),
        "slots": lambda: qn.Parameters.slots(
            poly_degree=1024, coeff_modulus_bits=(27,), scale_bits=15, max_weight=4
        ),
    }[name]()
    return params, qn.keygen(params)


def _updates(name: str) -> list[bytes]:
    params, keys = _party(name)
    encryptor = qn.Encryptor(params, keys.secret)
    named = encryptor.encrypt(
        {"a": np.ones((2, 3)), "b": np.zeros(()), "c": np.zeros((0, 4))},
        clip={"a": 0.5, "b": 2.0, "c": 1.0},
    )
    found = [named, qn.aggregate([named], weights=[2]), encryptor.encrypt(np.ones(4), clip=1.0)]
    if name == "packed":
        found.append(encryptor.encrypt_integers(np.arange(5)))
    if name == "slots":
        found.append(encryptor.encrypt(np.ones(4)))  # without a clip bound
    if name == "public":
        found.append(qn.Encryptor(params, keys.public).encrypt(np.ones(4), clip=1.0))
    return [update.to_bytes() for update in found]


def _read_update(name: str) -> Callable[[bytes], None]:
    params, keys = _party(name)
    decryptor = qn.Decryptor(params, keys.secret)

    def run(data: bytes) -> None:
        aggregator = qn.Aggregator(params)
        try:
            update = qn.EncryptedUpdate.from_bytes(data, params)
        except (qn.WireFormatError, qn.CapacityError):
            try:
                aggregator.add(data)
            except (qn.WireFormatError, qn.CapacityError):
                assert aggregator.weight == 0
                return
            raise AssertionError("a sum took what from_bytes refuses") from None
        assert update.to_bytes() == data
        assert 1 <= update.weight <= params.max_weight
        aggregator.add(data)
        total = aggregator.result()
        assert (total.weight, total.layout) == (update.weight, update.layout)
        again = qn.EncryptedUpdate.from_bytes(total.to_bytes(), params)
        assert again.to_bytes() == total.to_bytes()
        if update.values <= 4096:
            try:
                decryptor.decrypt_mean(update)
            except (qn.DecryptionError, qn.KeyMismatchError, qn.ParameterError):
                return

    return run


def read_parameters(data: bytes) -> None:
    """``Parameters.from_bytes``."""
    try:
        params = qn.Parameters.from_bytes(data)
    except qn.WireFormatError:
        return
    again = qn.Parameters.from_bytes(params.to_bytes())
    assert again == params
    assert again.fingerprint == params.fingerprint


def small_parameters(random: Random, data: bytes) -> bytes:
    """As :func:`frames.frame`; large rings stay rare, as their tables take a second."""
    result = frames.frame(random, data)
    if random.random() < 0.002:
        return result
    parts = frames.split(result)
    try:
        header = json.loads(parts[1]) if parts else None
    except (ValueError, RecursionError):
        return result
    large = isinstance(header, dict) and header.get("poly_degree") not in (1024, 2048)
    return data if large and header.get("poly_degree") in (4096, 8192, 16384, 32768) else result


def read_public_key(data: bytes) -> None:
    """``PublicKey.from_bytes``."""
    params, keys = _party("public")
    try:
        key = qn.PublicKey.from_bytes(data, params)
    except qn.WireFormatError:
        return
    assert qn.PublicKey.from_bytes(key.to_bytes(), params) == key
    assert (key.key_id == keys.key_id) == (key == keys.public)


def read_secret_key(data: bytes) -> None:
    """``SecretKey.from_bytes``, within 64 KiB for Scrypt: its cost is no subject here."""
    params, _ = _party("packed")
    before, sealing._MAX_SCRYPT_N = sealing._MAX_SCRYPT_N, 2**6
    try:
        key = qn.SecretKey.from_bytes(data, params, passphrase=PASSPHRASE)
    except (qn.WireFormatError, qn.PassphraseError):
        return
    finally:
        sealing._MAX_SCRYPT_N = before
    assert "withheld" in repr(key)


def sealed_anew(random: Random, data: bytes) -> bytes:
    """A key file changed, or one whose sealed part was changed before it was sealed."""
    if random.random() < 0.5:
        return frames.frame(random, data)
    params, keys = _party("packed")
    secret: Any = keys.secret._core.save()
    if random.random() < 0.8:
        secret = bytes_changed(random, bytes(secret), 2)
    header = {"params": params.fingerprint, "key": keys.key_id}
    if random.random() < 0.3:
        header[random.choice(("params", "key", "more"))] = random.choice(("", "0" * 32, "Z" * 32))
    before, sealing._SCRYPT_N = sealing._SCRYPT_N, 2
    try:
        return sealing.seal(wire.Kind.SECRET_KEY, header, secret, PASSPHRASE)
    finally:
        sealing._SCRYPT_N = before


def _key_files() -> list[bytes]:
    _, keys = _party("packed")
    before, sealing._SCRYPT_N = sealing._SCRYPT_N, 2
    try:
        return [keys.secret.to_bytes(passphrase=PASSPHRASE)]
    finally:
        sealing._SCRYPT_N = before


def parse_frames(data: bytes) -> None:
    """``wire.parse``, for every kind."""
    for kind in wire.Kind:
        try:
            header, body = wire.parse(data, kind)
        except qn.WireFormatError:
            continue
        assert isinstance(header, dict)
        assert len(body) < len(data)


def targets() -> dict[str, Target]:
    """By name."""
    parameters = [_party(name)[0].to_bytes() for name in ("packed", "public", "slots")]
    public = _party("public")[1].public.to_bytes()
    found = {
        f"update_{name}": Target(_read_update(name), _updates(name), frames.frame)
        for name in ("packed", "public", "slots")
    }
    found["parameters"] = Target(read_parameters, parameters, small_parameters)
    found["public_key"] = Target(read_public_key, [public], frames.frame)
    found["secret_key"] = Target(read_secret_key, _key_files(), sealed_anew)
    found["frame"] = Target(parse_frames, [*parameters, public], frames.raw)
    return found
