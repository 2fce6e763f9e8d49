"""Messages between parties are untrusted: each error says whose message is wrong, and how."""

import copy
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.native import oracle
from tests.native.conftest import packed
from tests.native.threshold_parties import Group, ceremony_of, group, meet, parameters

import quancrypt_native as qn
from quancrypt_native import _core
from quancrypt_native.threshold import Ceremony, Party

Q = np.arange(-50, 50)


@pytest.fixture(scope="module")
def three() -> Group:
    """Two of three parties."""
    return group(2, 3)


def changed(data: bytes, **fields: Any) -> bytes:
    """The same frame with other header fields and a right checksum."""
    header, body = oracle.unframe(data)
    kind = oracle.PREFIX.unpack_from(data)[2]
    del header["body_bytes"]
    return oracle.frame(kind, {**header, **fields}, body)


def with_body(data: bytes, body: bytes) -> bytes:
    header, _ = oracle.unframe(data)
    del header["body_bytes"]
    return oracle.frame(oracle.PREFIX.unpack_from(data)[2], header, body)


# --- the ceremony ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"parties": 4}, "parties is 4; params are for 3"),
        ({"parties": 1}, "parties is 1; allowed: 2 to 128"),
        ({"threshold": 1}, "threshold is 1; allowed: 2 to 3"),
        ({"threshold": 4}, "threshold is 4; allowed: 2 to 3"),
        ({"threshold": 2.0}, "threshold is 2.0"),
        ({"common_seed": bytes(31)}, "common_seed is 31 bytes; allowed: 32 bytes"),
        ({"common_seed": "x" * 32}, "common_seed is a str; allowed: 32 bytes"),
    ],
)
def test_arguments_of_a_ceremony(arguments: dict[str, Any], message: str) -> None:
    good = {"parties": 3, "threshold": 2, "common_seed": bytes(32)}
    Ceremony(parameters(3), **good)  # type: ignore[arg-type]
    with pytest.raises(qn.ParameterError, match=re.escape(message)):
        Ceremony(parameters(3), **{**good, **arguments})


def test_a_ceremony_needs_parameters_of_its_mode() -> None:
    with pytest.raises(qn.ParameterError, match="key_mode 'public'; a ceremony needs"):
        Ceremony(
            qn.Parameters.for_aggregation(key_mode="public"),
            parties=3,
            threshold=2,
            common_seed=bytes(32),
        )
    with pytest.raises(qn.ParameterError, match="their key is made by the parties"):
        qn.keygen(parameters(3))


def test_arguments_of_a_party(three: Group) -> None:
    with pytest.raises(qn.ParameterError, match="index is 3; allowed: 0 to 2"):
        Party(three.ceremony, 3)
    with pytest.raises(qn.ParameterError, match="index is -1"):
        Party(three.ceremony, -1)
    with pytest.raises(qn.ParameterError, match="ceremony is a int"):
        Party(3, 0)  # type: ignore[arg-type]


# --- public shares ---


def test_a_missing_public_share_is_named(three: Group) -> None:
    shares = {party.index: party.public_share() for party in three.parties}
    with pytest.raises(qn.ParameterError, match="missing from party 1: the joint key needs all 3"):
        three.ceremony.public_key({0: shares[0], 2: shares[2]})
    with pytest.raises(qn.ParameterError, match="missing from parties 0, 1, 2"):
        three.ceremony.public_key({})
    with pytest.raises(qn.ParameterError, match="an index in shares is 3; allowed: 0 to 2"):
        three.ceremony.public_key({**shares, 3: shares[0]})
    with pytest.raises(qn.ParameterError, match="shares is a list"):
        three.ceremony.public_key([shares[0]])  # type: ignore[arg-type]


def test_public_shares_of_others_are_refused(three: Group) -> None:
    shares = {party.index: party.public_share() for party in three.parties}
    stranger = Party(ceremony_of(parameters(3), 2), 1)
    with pytest.raises(qn.KeyMismatchError, match="share given for party 1 is of party 0"):
        three.ceremony.public_key({**shares, 1: shares[0]})
    with pytest.raises(qn.KeyMismatchError, match="public share of party 1 belongs to ceremony"):
        three.ceremony.public_key({**shares, 1: stranger.public_share()})
    with pytest.raises(
        qn.WireFormatError, match=r"public share of party 1: .*expected kind public"
    ):
        three.ceremony.public_key({**shares, 1: three.parties[1].deal()[0]})


# --- deals ---


def test_deals_arrive_once_and_at_their_recipient() -> None:
    ceremony = ceremony_of(parameters(3), 2)
    one, two, three_ = (Party(ceremony, i) for i in range(3))
    assert two.missing == [0, 2]
    deals = one.deal()
    with pytest.raises(qn.KeyMismatchError, match="deal of party 0 is for party 2, not 1"):
        two.receive(0, deals[2])
    with pytest.raises(qn.KeyMismatchError, match="deal given for party 2 is of party 0"):
        two.receive(2, deals[1])
    with pytest.raises(qn.ParameterError, match="sender is 7; allowed: 0 to 2"):
        two.receive(7, deals[1])
    two.receive(0, deals[1])
    assert two.missing == [2]
    with pytest.raises(qn.ParameterError, match="deal of party 0 was received before"):
        two.receive(0, deals[1])
    two.receive(1, two.deal()[1])  # its own is received from the start
    with pytest.raises(qn.KeyMismatchError, match="not the one that party 1 made itself"):
        two.receive(1, Party(ceremony, 1).deal()[1])
    with pytest.raises(qn.KeyMismatchError, match="deal of party 2 belongs to ceremony"):
        two.receive(2, Party(ceremony_of(parameters(3), 2), 2).deal()[1])
    two.receive(2, three_.deal()[1])
    assert two.missing == []


def test_malformed_deals_are_refused_and_leave_no_trace() -> None:
    ceremony = ceremony_of(parameters(3), 2)
    one, two = Party(ceremony, 0), Party(ceremony, 1)
    good = one.deal()[1]
    _, body = oracle.unframe(good)
    before = bytes(two._core.save())
    damaged = bytearray(good)
    damaged[-100] ^= 1
    cases: list[tuple[bytes, str]] = [
        (bytes(damaged), "deal of party 0: wrong checksum"),
        (good[:-1], "deal of party 0: truncated"),
        (good + b"x", "deal of party 0: 1 trailing bytes"),
        (b"", "deal of party 0: truncated"),
        (one.public_share(), "deal of party 0: these bytes hold kind public share"),
        (with_body(good, body[:-1]), "deal of party 0 has .* bytes; expected"),
        (with_body(good, body[:40] + b"\xff" * (len(body) - 40)), "deal of party 0: residue"),
        (changed(good, sender=128), "deal of party 0: header field 'sender' is 128"),
        (changed(good, recipient="1"), "header field 'recipient' is '1'"),
        (changed(good, note=1), "unknown header field 'note'"),
    ]
    for data, message in cases:
        with pytest.raises(qn.WireFormatError, match=message):
            two.receive(0, data)
    with pytest.raises(qn.WireFormatError, match="expected bytes, got str"):
        two.receive(0, "deal")  # type: ignore[arg-type]
    assert bytes(two._core.save()) == before
    assert two.missing == [0, 2]


def test_a_party_without_all_deals_does_not_answer(three: Group) -> None:
    ceremony = ceremony_of(parameters(3), 2)
    parties = [Party(ceremony, i) for i in range(3)]
    public = ceremony.public_key({p.index: p.public_share() for p in parties})
    total = qn.aggregate([qn.Encryptor(ceremony.params, public).encrypt_integers(Q)])
    parties[0].receive(1, parties[1].deal()[0])
    with pytest.raises(qn.ParameterError, match="party 0 has not received the deals of party 2"):
        parties[0].partial_decryption(total, [0, 1])
    parties[0].receive(2, parties[2].deal()[0])
    assert parties[0].partial_decryption(total, [0, 1])


# --- participants and totals ---


@pytest.mark.parametrize(
    ("participants", "message"),
    [
        ([0], "there are 1 participants; needed: 2 of 3 parties"),
        ([], "there are 0 participants"),
        ([1, 2], "participants are [1, 2]; party 0 is not one"),
        ([0, 0, 1], "participants are [0, 0, 1]; allowed: each party once"),
        ([0, 3], "a participant is 3; allowed: 0 to 2"),
        ([0, -1], "a participant is -1"),
        ([0, True], "a participant is True"),
        (["0", 1], "a participant is '0'"),
        (2, "participants is a int; allowed: a list of indices"),
        ("01", "participants is a str"),
    ],
)
def test_participants(three: Group, participants: Any, message: str) -> None:
    total = three.total(Q)
    with pytest.raises(qn.ParameterError, match=re.escape(message)):
        three.parties[0].partial_decryption(total, participants)
    assert three.parties[0].partial_decryption(total, [0, 1])  # nothing was noted as answered


def test_totals_of_others_are_refused(three: Group) -> None:
    party = three.parties[0]
    with pytest.raises(qn.ParameterError, match="total is a bytes; allowed: EncryptedUpdate"):
        party.partial_decryption(three.total(Q).to_bytes(), [0, 1])  # type: ignore[arg-type]
    shared = packed(bits=8, max_weight=16, max_poly_degree=1024)
    with pytest.raises(qn.KeyMismatchError, match="made with parameters"):
        party.partial_decryption(shared.seeded.encrypt_integers(Q), [0, 1])
    stranger = meet(ceremony_of(parameters(3), 2))
    with pytest.raises(qn.KeyMismatchError, match="encrypted with key"):
        party.partial_decryption(stranger.total(Q), [0, 1])


# --- parts ---


def test_too_few_parts_are_an_error(three: Group) -> None:
    total = three.total(Q)
    parts = three.parts(total, [0, 2])
    for call in (
        three.ceremony.decrypt_mean, three.ceremony.decrypt_sum, three.ceremony.decrypt_integers,
    ):  # fmt: skip
        with pytest.raises(qn.ParameterError, match="there are 1 partial decryptions; needed: 2"):
            call(total, {0: parts[0]})
    with pytest.raises(qn.ParameterError, match="there are 0 partial decryptions"):
        three.ceremony.decrypt_mean(total, {})
    assert np.array_equal(three.ceremony.decrypt_integers(total, parts), Q)


def test_a_missing_participant_is_named(three: Group) -> None:
    """Enough for the threshold, but not what the participants agreed on."""
    total = three.total(Q)
    parts = three.parts(total, [0, 1, 2])
    with pytest.raises(
        qn.ParameterError,
        match=re.escape("party 0 answered for the participants [0, 1, 2]; the parts are of [0, 1]"
                        ": missing are party 2"),
    ):  # fmt: skip
        three.ceremony.decrypt_mean(total, {0: parts[0], 1: parts[1]})


def test_parts_for_different_sets_do_not_mix(three: Group) -> None:
    total = three.total(Q)
    zero = three.parties[0].partial_decryption(total, [0, 1])
    one = three.parties[1].partial_decryption(total, [1, 2])
    with pytest.raises(qn.ParameterError, match=r"party 1 answered for the participants \[1, 2\]"):
        three.ceremony.decrypt_mean(total, {0: zero, 1: one})


def test_parts_of_other_sums_parties_and_ceremonies_are_refused(three: Group) -> None:
    total, other = three.total(Q), three.total(Q)
    parts, others = three.parts(total, [0, 1]), three.parts(other, [0, 1])
    with pytest.raises(qn.KeyMismatchError, match="of party 1 belongs to another ciphertext"):
        three.ceremony.decrypt_mean(total, {0: parts[0], 1: others[1]})
    with pytest.raises(qn.KeyMismatchError, match="given for party 1 is of party 0"):
        three.ceremony.decrypt_mean(total, {0: parts[0], 1: parts[0]})
    with pytest.raises(qn.ParameterError, match="an index in parts is 5"):
        three.ceremony.decrypt_mean(total, {0: parts[0], 5: parts[1]})
    stranger = meet(ceremony_of(parameters(3), 2))
    foreign = stranger.parts(stranger.total(Q), [0, 1])
    with pytest.raises(qn.KeyMismatchError, match="of party 1 belongs to ceremony"):
        three.ceremony.decrypt_mean(total, {0: parts[0], 1: foreign[1]})


def flip(at: int) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        copy_ = bytearray(data)
        copy_[at] ^= 1
        return bytes(copy_)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (flip(-200), "partial decryption of party 1: wrong checksum"),
        (lambda data: data[:-5], "partial decryption of party 1: truncated"),
        (lambda data: changed(data, participants=[0, 200]), "'participants'"),
        (lambda data: changed(data, ciphertext="00"), "'ciphertext'"),
        (lambda data: with_body(data, b""), "of party 1 has 0 bytes; expected"),
        (
            lambda data: with_body(data, b"\xff" * len(oracle.unframe(data)[1])),
            "is not below the prime",
        ),
    ],
)
def test_malformed_parts(three: Group, change: Callable[[bytes], bytes], message: str) -> None:
    total = three.total(Q)
    parts = three.parts(total, [0, 1])
    with pytest.raises(qn.WireFormatError, match=message):
        three.ceremony.decrypt_integers(total, {0: parts[0], 1: change(parts[1])})
    assert np.array_equal(three.ceremony.decrypt_integers(total, parts), Q)


def test_a_wrong_answer_is_found(three: Group) -> None:
    """Well-formed, but not what the party would have computed."""
    total = three.total(Q)
    parts = three.parts(total, [0, 1])
    _, body = oracle.unframe(parts[1])
    wrong = with_body(parts[1], bytes(len(body)))
    with pytest.raises(qn.DecryptionError, match="a party answered wrongly"):
        three.ceremony.decrypt_integers(total, {0: parts[0], 1: wrong})


def test_parties_that_see_different_sums_give_nothing(three: Group) -> None:
    """Masks belong to one ciphertext: two halves of two sums do not add up to either."""
    total, other = three.total(Q), three.total(Q)
    zero = three.parties[0].partial_decryption(total, [0, 1])
    one = three.parties[1].partial_decryption(other, [0, 1])
    header, _ = oracle.unframe(zero)
    with pytest.raises(qn.DecryptionError):
        three.ceremony.decrypt_integers(
            total, {0: zero, 1: changed(one, ciphertext=header["ciphertext"])}
        )


@pytest.mark.parametrize("kind", ["share", "deal", "part"])
def test_random_damage_is_an_error_of_the_package(three: Group, kind: str) -> None:
    """Header bytes and lengths changed at random, with a right checksum: an error, or no change."""
    rng = np.random.default_rng(5)
    ceremony = ceremony_of(parameters(3), 2)
    sender, recipient = Party(ceremony, 0), Party(ceremony, 1)
    total = three.total(Q)
    parts = three.parts(total, [0, 1])
    shares = {party.index: party.public_share() for party in three.parties}
    good = {"share": shares[0], "deal": sender.deal()[1], "part": parts[0]}[kind]
    readers: dict[str, Callable[[bytes], object]] = {
        "share": lambda data: three.ceremony.public_key({**shares, 0: data}),
        "deal": lambda data: recipient.receive(0, data),
        "part": lambda data: three.ceremony.decrypt_integers(total, {**parts, 0: data}),
    }
    length = oracle.PREFIX.unpack_from(good)[3]
    refused = 0
    for _ in range(150):
        data = bytearray(good)
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(12, oracle.PREFIX.size + length)] = rng.integers(0, 256)
        if rng.random() < 0.2:
            del data[rng.integers(20, len(data)) :]
        checksum = _core.crc32c(bytes(data[:-4]))
        data[-4:] = checksum.to_bytes(4, "little")
        try:
            readers[kind](bytes(data))
        except qn.QuanCryptError:
            refused += 1
    assert refused >= 140


# --- secrets ---


def test_a_party_is_not_printed_pickled_or_copied(three: Group) -> None:
    party = three.parties[0]
    assert "secrets withheld" in repr(party)
    for call in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(qn.SecretKeyPickleError, match="not pickled or copied"):
            call(party)  # type: ignore[operator]
