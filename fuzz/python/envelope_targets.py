"""Targets of ``quancrypt_fl``: signed envelopes, and sums with their sealed parts."""

from __future__ import annotations

import contextlib
from functools import cache
from random import Random

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fuzz.python.json_mutations import bytes_changed
from fuzz.python.target import Target
from quancrypt_fl.envelopes import EnvelopeError, Gate, Head, Members, Purpose
from quancrypt_fl.envelopes.format import DOMAIN, HEAD_BYTES, SEAL_BYTES
from quancrypt_fl.envelopes.signer import Signer
from quancrypt_fl.errors import MethodError
from quancrypt_fl.joint.opened import OpenedSum

RUN, PARAMS, KEY = "0" * 32, "1" * 32, "2" * 32
SENDER, BODY = 7, b"body of an upload"
_PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


@cache
def _signer() -> Signer:
    return Signer("client-1", _PRIVATE)


@cache
def _members() -> Members:
    return Members([_signer().member])


def _envelope(purpose: Purpose = Purpose.UPLOAD) -> bytes:
    seal = _signer().seal(
        [BODY], purpose=purpose, run=RUN, round=1, params=PARAMS, key=KEY, sender=SENDER
    )
    return seal + BODY


def read_envelope(data: bytes) -> None:
    """``Gate.open`` of a gate that has seen nothing: what passes is signed, whole, counts once."""
    gate = Gate(_members(), run=RUN, params=PARAMS, key=KEY)
    with contextlib.suppress(EnvelopeError):
        Head.from_bytes(data)
    try:
        opened = gate.open(data, round=1, sender=SENDER)
    except EnvelopeError:
        assert sum(gate.refused.values()) == 1
        return
    assert opened.member == _signer().member
    assert bytes(opened.body) == data[SEAL_BYTES:]
    assert gate.refused == {}
    if opened.purpose is Purpose.CATCH_UP:
        return
    try:
        gate.open(data, round=1, sender=SENDER)
    except EnvelopeError:
        return
    raise AssertionError("an envelope counted twice")


def envelope(random: Random, data: bytes) -> bytes:
    """Bytes changed; half of the time signed anew, by the member who has the key."""
    changed = bytes_changed(random, data)
    if random.random() < 0.5 and len(changed) >= SEAL_BYTES:
        head = changed[:HEAD_BYTES]
        return head + _PRIVATE.sign(DOMAIN + head) + changed[SEAL_BYTES:]
    return changed


def read_opened_sum(data: bytes) -> None:
    """``OpenedSum.from_bytes``."""
    try:
        opened = OpenedSum.from_bytes(data)
    except MethodError:
        return
    assert opened.to_bytes() == data


def targets() -> dict[str, Target]:
    """By name."""
    sums = [
        OpenedSum(b"sum", {0: b"zero", 2: b"", 127: b"last"}),
        OpenedSum(b"", {1: b"", 5: b"x"}),
    ]
    return {
        "envelope": Target(
            read_envelope,
            [_envelope(), _envelope(Purpose.CATCH_UP), _envelope()[:SEAL_BYTES]],
            envelope,
        ),
        "opened_sum": Target(read_opened_sum, [each.to_bytes() for each in sums], bytes_changed),
    }
