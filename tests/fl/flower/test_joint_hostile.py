"""Clients and servers that lie under a joint key: who notices, and what comes of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message
from flwr.app.message import make_message
from tests.fl.flower.faults import Replace
from tests.fl.flower.federation import NO_EVALUATION, NODES, Reference, assert_equal, final
from tests.fl.flower.joint_federation import PARTIES, JointFederation, JointKit, make_kit

import quancrypt_native as qn
from quancrypt_fl.errors import FederatedError, MethodError
from quancrypt_fl.flower.ceremony import CeremonyRun
from quancrypt_fl.flower.openings import MOST_OPENINGS, Asking
from quancrypt_fl.flower.parties import JointParty
from quancrypt_fl.flower.protocol import DATA, RECORD, read_reply, write
from quancrypt_native import threshold
from quancrypt_native.channels import ChannelKey

VILLAIN = 13
LAYOUT = {"w": ((50,), 1.0)}
STATE = Asking("0" * 32, 0, "0" * 64, ({"report": ((4,), 1.0)}, LAYOUT))
NEXT = replace(STATE, round=1, chain="1" * 64)

Change = Callable[[bytes], bytes]

HOSTILE: dict[str, Change] = {
    "random": lambda data: random.Random(1).randbytes(len(data)),
    "shorter": lambda data: data[: len(data) // 2],
    "longer": lambda data: data + b"\0",
    "one bit": lambda data: bytes([*data[:-50], data[-50] ^ 4, *data[-49:]]),
    "empty": lambda data: b"",
    "one byte": lambda data: b"\0",
    "huge": lambda data: data * 40,
}


def blobs(change: Change, kind: str) -> Callable[[Message], Message]:
    """Change the bytes of a reply whose names begin with ``kind``."""

    def edit(reply: Message) -> Message:
        arrays = {}
        for name, array in reply.content.array_records[DATA].items():
            data = change(array.data) if name.startswith(kind) else array.data
            arrays[name] = Array("uint8", (len(data),), array.stype, data)
        reply.content[DATA] = ArrayRecord(arrays)
        return make_message(reply.metadata, reply.content)

    return edit


def header(**facts: Any) -> Callable[[Message], Message]:
    """Another header of a reply."""

    def edit(reply: Message) -> Message:
        said = read_reply(reply).model_copy(update=facts)
        data = dict(reply.content.array_records[DATA])
        content = write(said, {name: array.data for name, array in data.items()}, reply.content)
        assert RECORD in content
        return make_message(reply.metadata, content)

    return edit


# --- clients that lie ---


@pytest.mark.parametrize("how", HOSTILE)
@pytest.mark.parametrize("kind", ["deal", "share"])
def test_hostile_bytes_in_the_ceremony(
    joint_federation: JointFederation, kind: str, how: str
) -> None:
    """There is no joint key, nobody has trained, and whose fault it is is said."""
    federation = joint_federation
    fault = Replace(blobs(HOSTILE[how], kind))
    federation.grid.inject(fault, node=VILLAIN, asks=kind)
    with pytest.raises(FederatedError, match=r"client-3|party 2"):
        federation.train(**NO_EVALUATION)
    assert not federation.trained


@pytest.mark.parametrize("how", HOSTILE)
def test_hostile_bytes_in_a_part(
    joint_federation: JointFederation, joint_kit: JointKit, how: str
) -> None:
    """One round's sum does not open, for everybody alike; the others are not affected."""
    federation = joint_federation
    fault = Replace(blobs(HOSTILE[how], "part"))
    federation.grid.inject(fault, node=VILLAIN, round=1, asks="open", times=1)
    result = federation.train(**NO_EVALUATION)
    model = final(result, joint_kit.group)
    for node in NODES:
        assert_equal(dict(federation.held(node).state.weights), model)
    if how in ("empty", "huge"):  # the server sees that it is none, and tries others
        assert federation.last.records[1]["opening"]["lost"] == ["client-3"]
        assert_equal(model, Reference(federation.params).train())
        return
    reference = Reference(federation.params)
    for failed in (False, True, False):
        reference.round(range(PARTIES), failed=failed)
    assert_equal(model, dict(reference.state.weights))


def test_a_hostile_part_of_the_reports(
    joint_federation: JointFederation, joint_kit: JointKit
) -> None:
    """All upload zeros in that round, and statistics, which set the bounds of the next.

    The server sees no difference: whether its sum opens is an oracle for the key.
    """
    federation = joint_federation
    fault = Replace(blobs(HOSTILE["random"], "part"))
    federation.grid.inject(fault, node=VILLAIN, round=0, asks="open", times=1)
    result = federation.train(**NO_EVALUATION)
    assert federation.failed == {}
    assert [r["participants"] for r in federation.last.records] == [5, 5, 5]
    assert federation.watcher.refusals == []
    reference = Reference(federation.params)
    first = reference.state
    reference.round(range(PARTIES))
    reference.state = replace(reference.state, weights=first.weights)
    for _ in range(2):
        reference.round(range(PARTIES))
    assert_equal(final(result, joint_kit.group), dict(reference.state.weights))


def test_another_public_share_than_committed_to(
    joint_federation: JointFederation, joint_kit: JointKit
) -> None:
    """As a party would show that knows the others' first and wants the whole key for itself."""
    kit = joint_kit
    ceremony = threshold.Ceremony(
        kit.params, parties=PARTIES, threshold=3, common_seed=kit.facts.common_seed
    )
    other = threshold.Party(ceremony, 2).public_share()
    joint_federation.grid.inject(
        Replace(blobs(lambda _: other, "share")), node=VILLAIN, asks="share"
    )
    with pytest.raises(FederatedError, match="share of client-3 is not the one"):
        joint_federation.train(**NO_EVALUATION)


@pytest.mark.parametrize(
    ("asks", "facts", "says"),
    [
        ("deal", {"party": 0}, "client-1 has answered already, from another node"),
        ("deal", {"party": 99}, "it is party 99; allowed: 0 to 4"),
        ("deal", {"party": None}, "it is party None; allowed: 0 to 4"),
        ("join", {"joint": "0" * 32}, "has joined the key 00000000000000000000000000000000; the"),
        ("join", {"joint": None}, "does not say which joint key"),
    ],
)
def test_lies_in_a_header(
    joint_federation: JointFederation, asks: str, facts: Mapping[str, Any], says: str
) -> None:
    joint_federation.grid.inject(Replace(header(**facts)), node=VILLAIN, asks=asks)
    with pytest.raises(FederatedError, match=says):
        joint_federation.train(**NO_EVALUATION)


def test_a_part_of_another_party(joint_federation: JointFederation, joint_kit: JointKit) -> None:
    joint_federation.grid.inject(
        Replace(header(party=0)), node=VILLAIN, round=1, asks="open", times=1
    )
    result = joint_federation.train(**NO_EVALUATION)
    assert joint_federation.watcher.reasons(VILLAIN) == ["it is party 0, and was party 2"]
    assert_equal(final(result, joint_kit.group), Reference(joint_federation.params).train())


# --- a server that lies ---


def test_a_server_that_swaps_public_shares(
    joint_federation: JointFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = CeremonyRun._shared

    def swapped(run: CeremonyRun, party: int) -> dict[str, bytes]:
        shares = real(run, party)
        if party == 0:
            shares["share-1"], shares["share-2"] = shares["share-2"], shares["share-1"]
        return shares

    monkeypatch.setattr(CeremonyRun, "_shared", swapped)
    with pytest.raises(FederatedError, match=r"missing: client-1 .*client-2 is not the one that"):
        joint_federation.train(**NO_EVALUATION)


def test_a_server_that_puts_in_a_key_of_its_own(
    joint_federation: JointFederation, joint_kit: JointKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It deals in the place of a client, whose channel key it does not have."""
    kit, own = joint_kit, ChannelKey()
    ceremony = threshold.Ceremony(
        kit.params, parties=PARTIES, threshold=3, common_seed=kit.facts.common_seed
    )
    fake = threshold.Party(ceremony, 2)
    real = CeremonyRun._dealt

    def dealt(run: CeremonyRun, party: int) -> dict[str, bytes]:
        deals = real(run, party)
        if party != 2:
            context = f"deal {party}".encode()
            message = bytes(32) + fake.deal()[party]
            deals["deal-2"] = own.seal(kit.channels[party].public, message, context=context)
        return deals

    monkeypatch.setattr(CeremonyRun, "_dealt", dealt)
    with pytest.raises(FederatedError, match="deal of client-3 to this site: the message does not"):
        joint_federation.train(**NO_EVALUATION)


def test_a_server_that_hands_on_deals_for_others(
    joint_federation: JointFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = CeremonyRun._dealt
    monkeypatch.setattr(CeremonyRun, "_dealt", lambda run, party: real(run, (party + 1) % PARTIES))
    with pytest.raises(FederatedError, match="missing: client-1, client-2, client-3, client-4"):
        joint_federation.train(**NO_EVALUATION)


def test_kits_of_two_deployments(
    joint_federation: JointFederation, joint_kit: JointKit, tmp_path: Path
) -> None:
    """The server's ceremony is another: clients say so, and deal nothing."""
    other = make_kit(tmp_path / "other", joint_kit.passphrase)
    with pytest.raises(FederatedError, match="their kits are not of one deployment"):
        joint_federation.train(joint=other.facts, **NO_EVALUATION)


def test_a_server_that_asks_for_a_shared_key(
    joint_federation: JointFederation, params: qn.Parameters
) -> None:
    """A client with a threshold key encrypts for no other one."""
    joint_federation.params = params
    with pytest.raises(FederatedError, match="no round succeeded"):
        joint_federation.train(1, joint=None, **NO_EVALUATION)
    reasons = [joint_federation.watcher.reasons(node)[0] for node in NODES]
    assert all("this client has a threshold key" in reason for reason in reasons)
    assert not joint_federation.trained


def test_other_parameters_than_the_kits(
    joint_federation: JointFederation, joint_kit: JointKit
) -> None:
    """Even if they are for a threshold key of as many parties."""
    joint_federation.params = qn.Parameters.for_aggregation(
        bits=6, max_weight=64, key_mode="threshold", parties=PARTIES, values=700
    )
    with pytest.raises(FederatedError, match="and not those of"):
        joint_federation.train(joint=joint_kit.facts, **NO_EVALUATION)


# --- what a client opens ---


@pytest.fixture
def joined(joint_kit: JointKit, tmp_path: Path) -> list[JointParty]:
    """The parties of a ceremony that is over, each with a folder of its own."""
    made = [joint_kit.party(tmp_path / str(i), i) for i in range(PARTIES)]
    deals = [party.deals() for party in made]
    shares = {
        i: party.share({j: deals[j][i] for j in range(PARTIES) if j != i})
        for i, party in enumerate(made)
    }
    for i, party in enumerate(made):
        party.join({j: share for j, share in shares.items() if j != i})
    return made


def a_sum(public: qn.PublicKey, updates: int = 3) -> bytes:
    encryptor = qn.Encryptor(public.params, public)
    rng = np.random.default_rng(updates)
    return qn.aggregate(
        encryptor.encrypt({"w": rng.uniform(-1, 1, 50).astype(np.float32)}, clip={"w": 1.0})
        for _ in range(updates)
    ).to_bytes()


def test_a_sum_is_opened_once(
    joint_kit: JointKit, joined: list[JointParty], tmp_path: Path
) -> None:
    """The same part again for the same participants, also after a restart; none for others."""
    public, group = joined[0].require_public(), joint_kit.group.secret
    total = a_sum(public)
    part = joined[0].part(total, (0, 1, 2), group, STATE)
    again = joint_kit.party(tmp_path / "0", 0)
    assert again.part(total, (0, 1, 2), group, STATE) == part
    with pytest.raises(MethodError, match="has answered for this sum before"):
        again.part(total, (0, 1, 3), group, STATE)
    with pytest.raises(threshold.AnsweredError):  # in another round, and with another header
        again.part(total, (0, 1, 3), group, NEXT)
    other = a_sum(public)
    again.part(other, (0, 1, 3), group, NEXT)
    with pytest.raises(threshold.AnsweredError):
        again.part(total, (0, 1, 2), group, replace(NEXT, round=2))  # kept is the last part alone


def test_no_sum_of_one_update(joint_kit: JointKit, joined: list[JointParty]) -> None:
    total = a_sum(joined[0].require_public(), updates=1)
    with pytest.raises(MethodError, match="of the weight 1; this site opens none below 2"):
        joined[0].part(total, (0, 1, 2), joint_kit.group.secret, STATE)


def test_no_sum_under_another_key(
    joint_kit: JointKit, joined: list[JointParty], tmp_path: Path
) -> None:
    other = make_kit(tmp_path / "other", b"x")
    public = other.group.public
    with pytest.raises(qn.QuanCryptError):
        joined[0].part(a_sum(public), (0, 1, 2), joint_kit.group.secret, STATE)
    ceremony = threshold.Ceremony(
        joint_kit.params, parties=PARTIES, threshold=3, common_seed=bytes(32)
    )
    parties = [threshold.Party(ceremony, i) for i in range(PARTIES)]
    another = ceremony.public_key({p.index: p.public_share() for p in parties})
    with pytest.raises(MethodError, match=f"a sum under the key {another.key_id}; this site's is"):
        joined[0].part(a_sum(another), (0, 1, 2), joint_kit.group.secret, STATE)


def test_so_many_sums_of_a_round(joint_kit: JointKit, joined: list[JointParty]) -> None:
    public, group = joined[0].require_public(), joint_kit.group.secret
    for _ in range(MOST_OPENINGS):
        joined[0].part(a_sum(public), (0, 1, 2), group, STATE)
    with pytest.raises(MethodError, match=f"answered for {MOST_OPENINGS} sums of this round"):
        joined[0].part(a_sum(public), (0, 1, 2), group, STATE)
    joined[0].part(a_sum(public), (0, 1, 2), group, NEXT)  # the next round


@pytest.mark.parametrize("participants", [(0, 1), (1, 2, 3), (0, 1, 1), (0, 1, 2, 99)])
def test_wrong_participants(
    joint_kit: JointKit, joined: list[JointParty], participants: tuple[int, ...]
) -> None:
    total = a_sum(joined[0].require_public())
    with pytest.raises(qn.ParameterError):
        joined[0].part(total, participants, joint_kit.group.secret, STATE)


@pytest.mark.parametrize("size", [0, 1, 100, 5000])
def test_sums_that_are_none(joint_kit: JointKit, joined: list[JointParty], size: int) -> None:
    with pytest.raises(qn.QuanCryptError):
        joined[0].part(bytes(size), (0, 1, 2), joint_kit.group.secret, STATE)


def test_a_party_that_deals_otherwise_after_it_lost_its_state(
    joint_kit: JointKit, joined: list[JointParty], tmp_path: Path
) -> None:
    deals = {i: joined[i].deals()[0] for i in range(1, PARTIES)}
    joined[0].share(deals)  # again, and nothing has changed
    deals[1] = joint_kit.party(tmp_path / "new", 1).deals()[0]
    with pytest.raises(MethodError, match="client-2 has dealt otherwise before"):
        joined[0].share(deals)
