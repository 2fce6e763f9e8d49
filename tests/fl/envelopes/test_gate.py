"""The gate: every bit counts, every binding has its reason, and a flood leaves nothing behind."""

from __future__ import annotations

import gc
import itertools
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fl.envelopes.conftest import BOUND, KEY, PARAMS, ROUND, RUN, SENDER

from quancrypt_fl.envelopes import EnvelopeError, Gate, Member, Members, Purpose, Refusal
from quancrypt_fl.envelopes.format import SEAL_BYTES, Head
from quancrypt_fl.envelopes.signer import Signer


def refusal(gate: Gate, envelope: bytes, round: int = ROUND, sender: int = SENDER) -> EnvelopeError:  # noqa: A002
    """Why an envelope is refused; it is counted once."""
    before = sum(gate.refused.values())
    with pytest.raises(EnvelopeError) as caught:
        gate.open(envelope, round=round, sender=sender)
    assert sum(gate.refused.values()) == before + 1
    assert str(caught.value).startswith(f"envelope refused ({caught.value.reason}): ")
    return caught.value


def test_an_envelope_opens_once(gate: Gate, signers: list[Signer]) -> None:
    for signer, purpose in itertools.product(signers, Purpose):
        body = np.random.default_rng(purpose).bytes(1000)
        envelope = signer.envelope(body, **{**BOUND, "purpose": purpose})
        assert len(envelope) == SEAL_BYTES + len(body)
        opened = gate.open(envelope, round=ROUND, sender=SENDER)
        assert (opened.member.name, opened.purpose) == (signer.member.name, purpose)
        assert opened.body == body
        assert opened.body.obj is envelope  # not a copy
        again = signer.envelope(body + b"1", **{**BOUND, "purpose": purpose})
        if purpose is Purpose.CATCH_UP:
            gate.open(again, round=ROUND, sender=SENDER)
            continue
        replay = refusal(gate, envelope)
        assert (replay.reason, replay.member) == (Refusal.REPLAY, signer.member.name)
        other = refusal(gate, again)
        assert (other.reason, other.member) == (Refusal.DUPLICATE, signer.member.name)
    counted = len(Purpose) - 1
    assert gate.refused == {"replay": 3 * counted, "duplicate": 3 * counted}
    assert gate.refused_of_members["client-2"] == {"replay": counted, "duplicate": counted}


def test_members_are_asked_again(gate: Gate, signers: list[Signer]) -> None:
    """One more envelope of the purpose counts, and no replay of the first; for this round alone."""

    def envelope(body: bytes, **other: Any) -> bytes:
        return signers[0].envelope(body, **{**BOUND, **other})

    first, second = envelope(b"1"), envelope(b"2")
    gate.open(first, round=ROUND, sender=SENDER)
    gate.again(Purpose.UPLOAD)
    assert refusal(gate, first).reason is Refusal.REPLAY
    gate.open(second, round=ROUND, sender=SENDER)
    assert refusal(gate, second).reason is Refusal.REPLAY
    assert refusal(gate, envelope(b"3")).reason is Refusal.DUPLICATE
    gate.open(envelope(b"1", purpose=Purpose.TRAIN), round=ROUND, sender=SENDER)
    other = envelope(b"2", purpose=Purpose.TRAIN)
    assert refusal(gate, other).reason is Refusal.DUPLICATE
    gate.open(envelope(b"4", round=ROUND + 1), round=ROUND + 1, sender=SENDER)
    late = envelope(b"5", round=ROUND + 1)
    with pytest.raises(EnvelopeError, match="a second upload"):
        gate.open(late, round=ROUND + 1, sender=SENDER)


def test_a_member_with_another_key_in_mid_round_counts_once(
    gate: Gate, signers: list[Signer]
) -> None:
    gate.open(signers[0].envelope(b"body", **BOUND), round=ROUND, sender=SENDER)
    again = Signer.generate("client-1")
    gate.members = Members([again.member, *(signer.member for signer in signers[1:])])
    error = refusal(gate, again.envelope(b"body", **BOUND))
    assert (error.reason, error.member) == (Refusal.DUPLICATE, "client-1")
    new = again.envelope(b"body", **{**BOUND, "round": ROUND + 1})
    assert gate.open(new, round=ROUND + 1, sender=SENDER).member is again.member


def test_every_bit_counts(gate: Gate, signers: list[Signer]) -> None:
    """Head, signature and body: the honest envelope opens after all of its 1-bit neighbours."""
    honest = signers[0].envelope(b"\x00\xff a small body", **BOUND)
    reasons = []
    for bit in range(8 * len(honest)):
        changed = bytearray(honest)
        changed[bit // 8] ^= 1 << bit % 8
        reasons.append(refusal(gate, bytes(changed)).reason)
    assert len(reasons) == 8 * (SEAL_BYTES + 15)

    def of(start: int, end: int) -> set[Refusal]:
        return set(reasons[8 * start : 8 * end])

    assert of(0, 10) == {Refusal.MALFORMED}
    assert of(10, 12) == {Refusal.MALFORMED, Refusal.SIGNATURE}  # of the purposes that there are
    assert [of(*place) for place in ((12, 16), (16, 24), (24, 40), (40, 56), (56, 72))] == [
        {Refusal.ROUND}, {Refusal.SENDER}, {Refusal.RUN}, {Refusal.PARAMETERS}, {Refusal.KEY},
    ]  # fmt: skip
    assert of(72, 88) == {Refusal.STRANGER}
    assert of(88, 96) == {Refusal.LENGTH}
    assert of(96, 192) == {Refusal.SIGNATURE}
    assert of(192, 207) == {Refusal.BODY}
    assert gate.open(honest, round=ROUND, sender=SENDER).body == b"\x00\xff a small body"


def test_every_bit_counts_beside_the_body(gate: Gate, signers: list[Signer]) -> None:
    """The same with a body in parts of its own."""
    parts = [b"first", b"", b"second"]
    seal = signers[1].seal(parts, **BOUND)
    for index, part in enumerate(parts):
        for bit in range(8 * len(part)):
            changed = bytearray(part)
            changed[bit // 8] ^= 1 << bit % 8
            with pytest.raises(EnvelopeError) as caught:
                gate.check(
                    seal,
                    [*parts[:index], changed, *parts[index + 1 :]],
                    round=ROUND,
                    sender=SENDER,
                )
            assert caught.value.reason is Refusal.BODY
    assert gate.check(seal, parts, round=ROUND, sender=SENDER).member.name == "client-2"


@pytest.mark.parametrize(
    ("change", "reason", "said"),
    [
        ({"run": "04" * 16}, Refusal.RUN, f"the run {'04' * 16}; expected: {RUN}"),
        ({"round": 4}, Refusal.ROUND, "for round 5; expected: round 6"),
        ({"round": 6}, Refusal.ROUND, "for round 7; expected: round 6"),
        ({"params": "04" * 16}, Refusal.PARAMETERS, f"expected: {PARAMS}"),
        ({"key": "04" * 16}, Refusal.KEY, f"expected: {KEY}"),
        ({"sender": 12}, Refusal.SENDER, f"to be sent by 12, and it came from {SENDER}"),
        ({"sender": 0}, Refusal.SENDER, "to be sent by 0"),
    ],
)
def test_every_binding_has_its_reason(
    gate: Gate, signers: list[Signer], change: dict[str, Any], reason: Refusal, said: str
) -> None:
    error = refusal(gate, signers[2].envelope(b"body", **{**BOUND, **change}))
    assert (error.reason, error.member) == (reason, "client-3")
    assert said in str(error)
    assert "client-3" in str(error)
    assert gate.refused == {str(reason): 1}
    assert gate.refused_of_members == {"client-3": {str(reason): 1}}


def test_strangers_and_impostors(gate: Gate, signers: list[Signer]) -> None:
    stranger = Signer.generate("client-1")  # a member's name under a key of its own
    error = refusal(gate, stranger.envelope(b"body", **BOUND))
    assert (error.reason, error.member) == (Refusal.STRANGER, None)
    assert stranger.member.id.hex() in str(error)
    # A member's head under another key, and with another member's signature.
    honest = signers[0].envelope(b"body", **BOUND)
    for other in (stranger, signers[1]):
        head = other.envelope(b"body", **BOUND)[SEAL_BYTES - 64 : SEAL_BYTES]
        forged = honest[: SEAL_BYTES - 64] + head + honest[SEAL_BYTES:]
        error = refusal(gate, forged)
        assert (error.reason, error.member) == (Refusal.SIGNATURE, "client-1")
    # What was refused takes nobody's place.
    gate.open(honest, round=ROUND, sender=SENDER)


def test_a_signature_for_something_else_is_none(gate: Gate, signers: list[Signer]) -> None:
    """The domain string: the head alone, signed, is no envelope."""
    honest = signers[0].envelope(b"body", **BOUND)
    head = honest[: SEAL_BYTES - 64]
    bare = head + signers[0]._key.sign(head) + b"body"
    assert refusal(gate, bare).reason is Refusal.SIGNATURE


def test_rounds_go_on(gate: Gate, signers: list[Signer]) -> None:
    old = signers[0].envelope(b"body", **BOUND)
    gate.open(old, round=ROUND, sender=SENDER)
    assert refusal(gate, old, round=ROUND + 1).reason is Refusal.ROUND
    new = signers[0].envelope(b"body", **{**BOUND, "round": ROUND + 1})
    gate.open(new, round=ROUND + 1, sender=SENDER)
    assert refusal(gate, new, round=ROUND + 1).reason is Refusal.REPLAY
    with pytest.raises(ValueError, match="rounds do not go back"):
        gate.open(new, round=ROUND, sender=SENDER)


@pytest.mark.parametrize("field", ["run", "params", "key"])
@pytest.mark.parametrize("text", ["", "01", "zz" * 16, "01" * 17, " ".join(["01"] * 11)])
def test_a_gate_for_no_run(members: Members, field: str, text: str) -> None:
    with pytest.raises(ValueError, match=f"{field} = .*allowed: 32 hexadecimal digits"):
        Gate(members, **{"run": RUN, "params": PARAMS, "key": KEY, field: text})


@given(st.binary(max_size=3 * SEAL_BYTES))
def test_any_bytes(members: Members, data: bytes) -> None:
    gate = Gate(members, run=RUN, params=PARAMS, key=KEY)
    assert refusal(gate, data).reason in (Refusal.MALFORMED, Refusal.STRANGER)
    with pytest.raises(EnvelopeError):
        gate.check(data, [data], round=ROUND, sender=SENDER)


@given(
    st.sampled_from(Purpose), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1),
    *[st.binary(min_size=16, max_size=16)] * 4,
    st.integers(0, 2**64 - 1), st.binary(min_size=32, max_size=32), st.binary(max_size=64),
)  # fmt: skip
@settings(max_examples=200)
def test_any_head(
    purpose: Purpose, round_: int, sender: int, run: bytes, params: bytes, key: bytes,
    member: bytes, length: int, digest: bytes, body: bytes,
) -> None:  # fmt: skip
    """What is written is read again; out of range is an error, never a wrong number."""
    head = Head(purpose, round_, sender, run, params, key, member, length, digest)
    if round_ >= 2**31 or length > 2**48:
        with pytest.raises(ValueError, match="allowed: 0 to"):
            head.to_bytes()
        return
    assert Head.from_bytes(head.to_bytes() + bytes(64)) == head


@given(st.binary(min_size=1, max_size=80), st.integers(0, SEAL_BYTES + 20))
def test_spliced_envelopes(members: Members, signers: list[Signer], data: bytes, at: int) -> None:
    """Bytes at random over an honest envelope: refused, unless they were the same."""
    gate = Gate(members, run=RUN, params=PARAMS, key=KEY)
    honest = signers[0].envelope(bytes(20), **BOUND)
    changed = honest[:at] + data + honest[at + len(data) :]
    if changed != honest:
        refusal(gate, changed)
    gate.open(honest, round=ROUND, sender=SENDER)


FLOOD = 10_000


def flood(gate: Gate, envelope: Callable[[int], bytes]) -> None:
    for number in range(FLOOD):
        try:
            gate.open(envelope(number), round=ROUND, sender=SENDER)
        except EnvelopeError:
            continue
        raise AssertionError(f"envelope {number} was opened")


def test_a_flood_leaves_nothing_behind(gate: Gate, signers: list[Signer]) -> None:
    """10,000 replays, 10,000 strangers and 10,000 forgeries: counted, and no memory grows."""
    honest = signers[0].envelope(b"body" * 100, **BOUND)
    gate.open(honest, round=ROUND, sender=SENDER)
    other = signers[1].envelope(b"body" * 100, **BOUND)
    random = np.random.default_rng(1)

    def stranger(number: int) -> bytes:
        member = number.to_bytes(16, "little")  # each another one
        return other[:72] + member + other[88:]

    def forged(number: int) -> bytes:
        return other[:128] + random.bytes(64) + other[192:]

    kinds = (lambda number: honest, stranger, forged)
    for kind in kinds:  # what is made at first use
        with pytest.raises(EnvelopeError):
            gate.open(kind(0), round=ROUND, sender=SENDER)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for kind in kinds:
            tracemalloc.reset_peak()
            flood(gate, kind)
            now, peak = tracemalloc.get_traced_memory()
            assert now - before < 16 * 1024
            assert peak - before < 64 * 1024
    finally:
        tracemalloc.stop()
    assert gate.refused == {
        "replay": FLOOD + 1, "stranger": FLOOD + 1, "signature": FLOOD + 1,
    }  # fmt: skip
    assert gate.refused_of_members == {
        "client-1": {"replay": FLOOD + 1}, "client-2": {"signature": FLOOD + 1},
    }  # fmt: skip
    gate.open(other, round=ROUND, sender=SENDER)


def test_rounds_leave_nothing_behind(gate: Gate, signers: list[Signer]) -> None:
    for number in range(200):
        for signer in signers:
            gate.open(
                signer.envelope(b"", **{**BOUND, "round": number}), round=number, sender=SENDER
            )
    assert len(gate._seen) == len(signers)


def test_a_large_body_is_not_copied(gate: Gate, signers: list[Signer]) -> None:
    body = np.random.default_rng(2).bytes(8 << 20)
    seal = signers[0].seal([body], **BOUND)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        gate.check(seal, [memoryview(body)], round=ROUND, sender=SENDER)
        assert tracemalloc.get_traced_memory()[1] - before < 1 << 20
    finally:
        tracemalloc.stop()


def test_another_list_is_another_gate(signers: list[Signer]) -> None:
    """Who is taken off the list is a stranger from then on."""
    gate = Gate(Members([signers[0].member]), run=RUN, params=PARAMS, key=KEY)
    assert refusal(gate, signers[1].envelope(b"", **BOUND)).reason is Refusal.STRANGER
    renamed = Member("someone", signers[1].member.public)
    gate = Gate(Members([renamed]), run=RUN, params=PARAMS, key=KEY)
    assert refusal(gate, signers[1].envelope(b"", **BOUND)).reason is Refusal.STRANGER
