"""Targets of threshold keys: messages and states of a ceremony, memories, channels."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

import quancrypt_native as qn
from fuzz.python import frames
from fuzz.python.json_mutations import bytes_changed, changed
from fuzz.python.target import Target
from quancrypt_native import sealing, wire
from quancrypt_native._answered import Answered
from quancrypt_native.channels import ChannelKey
from quancrypt_native.threshold import Ceremony, Party

PASSPHRASE = b"fuzz" * 8  # 32 bytes: not stretched
CONTEXT = b"fuzz"
Q = np.arange(-7, 8)


@cache
def _ceremony() -> Ceremony:
    """Two parties; N = 8192 is the least ring that holds smudging."""
    params = qn.Parameters.for_aggregation(
        bits=4, max_weight=2, key_mode="threshold", parties=2, values=100
    )
    return Ceremony(params, parties=2, threshold=2, common_seed=bytes(32))


@cache
def _parties() -> list[Party]:
    parties = [Party(_ceremony(), index) for index in range(2)]
    for sender in parties:
        for recipient, data in sender.deal().items():
            parties[recipient].receive(sender.index, data)
    return parties


@cache
def _shares() -> dict[int, bytes]:
    return {party.index: party.public_share() for party in _parties()}


@cache
def _answers() -> tuple[qn.EncryptedUpdate, dict[int, bytes]]:
    public = _ceremony().public_key(_shares())
    total = qn.aggregate([qn.Encryptor(_ceremony().params, public).encrypt_integers(Q)])
    return total, {party.index: party.partial_decryption(total, [0, 1]) for party in _parties()}


def read_public_share(data: bytes) -> None:
    """``Ceremony.public_key``."""
    fresh = Ceremony(_ceremony().params, parties=2, threshold=2, common_seed=bytes(32))
    try:
        key = fresh.public_key({**_shares(), 0: data})
    except (qn.WireFormatError, qn.KeyMismatchError):
        return
    assert qn.PublicKey.from_bytes(key.to_bytes(), fresh.params) == key


@cache
def _listener() -> Party:
    return Party(_ceremony(), 0)


def read_deal(data: bytes) -> None:
    """``Party.receive``."""
    party = _listener()
    before = bytes(party._core.save())
    try:
        party.receive(1, data)
    except (qn.WireFormatError, qn.KeyMismatchError):
        assert bytes(party._core.save()) == before
        assert party.missing == [1]
        return
    assert party.missing == []
    party._pair_seeds.clear()  # so that the next deal is taken too


def read_part(data: bytes) -> None:
    """``Ceremony.decrypt_integers`` with one part of a stranger."""
    total, parts = _answers()
    try:
        sums = _ceremony().decrypt_integers(total, {**parts, 0: data})
    except (qn.WireFormatError, qn.KeyMismatchError, qn.ParameterError, qn.DecryptionError):
        return
    assert np.asarray(sums).shape == Q.shape
    assert np.abs(np.asarray(sums)).max() <= 7


def read_party(data: bytes) -> None:
    """``Party.from_bytes``, within 64 KiB for Scrypt."""
    before, sealing._MAX_SCRYPT_N = sealing._MAX_SCRYPT_N, 2**6
    try:
        party = Party.from_bytes(data, _ceremony(), passphrase=PASSPHRASE)
    except (qn.WireFormatError, qn.KeyMismatchError, qn.ParameterError, qn.PassphraseError):
        return
    finally:
        sealing._MAX_SCRYPT_N = before
    assert party.index in (0, 1)
    assert "withheld" in repr(party)


def sealed_party(random: Random, data: bytes) -> bytes:
    """A state changed, or changed in header or secret by somebody who has the passphrase."""
    if random.random() < 0.4:
        return frames.frame(random, data)
    secret: Any = bytes(_parties()[0]._core.save()) + bytes(64)
    if random.random() < 0.6:
        secret = bytes_changed(random, bytes(secret), 2)
    header: Any = {
        "ceremony": _ceremony().fingerprint,
        "party": 0,
        "received": [1],
        "answered": 0,
        "memory": False,
    }
    if random.random() < 0.6:
        header = changed(random, header)
        if not isinstance(header, dict):
            header = {}
    try:
        return sealing.seal(wire.Kind.PARTY, header, secret, PASSPHRASE, random_passphrase=True)
    except (ValueError, qn.WireFormatError):  # no JSON can say it, or it is too long
        return data


@cache
def _memory() -> Answered:
    folder = Path(tempfile.mkdtemp(prefix="quancrypt-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Answered(_ceremony().fingerprint, 0, folder / "answered", frozenset({bytes(32)}))


def read_answered(data: bytes) -> None:
    """A memory of answers, as a party reads it before each answer."""
    memory = _memory()
    assert memory.path is not None
    memory.path.write_bytes(data)
    try:
        found = memory._read()
    except (qn.WireFormatError, qn.KeyMismatchError):
        return
    assert all(len(digest) == 32 for digest in found)


@cache
def _channel() -> tuple[ChannelKey, ChannelKey]:
    return ChannelKey(), ChannelKey()


def read_channel_key(data: bytes) -> None:
    """``ChannelKey.from_bytes``, within 64 KiB for Scrypt."""
    before, sealing._MAX_SCRYPT_N = sealing._MAX_SCRYPT_N, 2**6
    try:
        key = ChannelKey.from_bytes(data, passphrase=PASSPHRASE)
    except (qn.WireFormatError, qn.KeyMismatchError, qn.PassphraseError):
        return
    finally:
        sealing._MAX_SCRYPT_N = before
    assert len(key.public) == 32


def sealed_channel_key(random: Random, data: bytes) -> bytes:
    """A key file changed, or one with another header or secret, sealed with its passphrase."""
    if random.random() < 0.4:
        return frames.frame(random, data)
    secret = bytes(_channel()[0]._secret)
    if random.random() < 0.6:
        secret = bytes_changed(random, secret, 2)
    header = {"public": _channel()[0].public.hex()}
    if random.random() < 0.5:
        header[random.choice(("public", "more"))] = random.choice(("", "0" * 64, "Z" * 64))
    return sealing.seal(
        wire.Kind.CHANNEL_KEY, header, secret or b"\0", PASSPHRASE, random_passphrase=True
    )


def read_channel_message(data: bytes) -> None:
    """``ChannelKey.open``: nothing opens but what was sealed."""
    one, two = _channel()
    try:
        message = two.open(one.public, data, context=CONTEXT)
    except qn.KeyMismatchError:
        return
    assert message == b"message"


def targets() -> dict[str, Target]:
    """By name."""
    one, two = _channel()
    state = _parties()[0].to_bytes(passphrase=PASSPHRASE, random_passphrase=True)
    path = _memory().path
    assert path is not None
    key = one.to_bytes(passphrase=PASSPHRASE, random_passphrase=True)
    message = one.seal(two.public, b"message", context=CONTEXT)
    low_order = bytes(32) + message[32:]
    found: dict[str, tuple[Callable[[bytes], None], bytes, Any]] = {
        "public_share": (read_public_share, _shares()[0], frames.frame),
        "deal": (read_deal, _parties()[1].deal()[0], frames.frame),
        "part": (read_part, _answers()[1][0], frames.frame),
        "party": (read_party, state, sealed_party),
        "answered": (read_answered, path.read_bytes(), frames.frame),
        "channel_key": (read_channel_key, key, sealed_channel_key),
        "channel_message": (read_channel_message, message, frames.raw),
    }
    made = {name: Target(run, [seed], mutate) for name, (run, seed, mutate) in found.items()}
    made["channel_message"] = replace(made["channel_message"], seeds=[message, low_order])
    return made
