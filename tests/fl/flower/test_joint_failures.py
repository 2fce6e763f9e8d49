"""Clients and servers that fail under a joint key: others open the sum, or the round fails."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest
from flwr.app import Error, Message
from flwr.common.constant import ErrorCode
from tests.fl.flower.faults import Hang, Kill, KillAt, Killed, Lose, Replace, killing
from tests.fl.flower.federation import NO_EVALUATION, NODES, Reference, assert_equal, final
from tests.fl.flower.joint_federation import JointFederation, JointKit

from quancrypt_fl.envelopes import Members
from quancrypt_fl.envelopes.signer import Signer
from quancrypt_fl.errors import FederatedError
from quancrypt_fl.flower import parties
from quancrypt_fl.flower.ceremony import CeremonyRun
from quancrypt_fl.flower.opening import Opener
from quancrypt_fl.flower.parties import JointParty
from quancrypt_native import sealing

VICTIM = 13  # opens the sums of the second round, with 12 and 14
CHOICES: list[dict[str, Any]] = [
    {},
    {"error_feedback": True},
    {"error_feedback": True, "rounding": "stochastic", "seed": 5},
]


def openings(federation: JointFederation) -> list[tuple[int, list[str]]]:
    """Attempts to open each round's sum, and who fell silent."""
    return [(r["opening"]["attempts"], r["opening"]["lost"]) for r in federation.last.records]


@pytest.mark.parametrize("choices", CHOICES, ids=["", "feedback", "stochastic"])
@pytest.mark.parametrize("fault", [Hang, lambda: Kill("before"), lambda: Lose("reply")])
def test_a_client_that_is_lost_between_upload_and_opening(
    joint_federation: JointFederation, joint_kit: JointKit, choices: dict[str, Any], fault: Any
) -> None:
    federation = joint_federation
    injected = federation.grid.inject(fault(), node=VICTIM, round=1, asks="open", times=1)
    result = federation.train(**choices, **NO_EVALUATION)
    assert injected.fired
    assert openings(federation) == [(1, []), (2, ["client-3"]), (1, [])]
    assert "client-3" not in federation.last.records[1]["opening"]["participants"]
    # What it uploaded stays in the sum: else two sums of the round would differ by its update.
    assert all(VICTIM in federation.counted(record) for record in federation.last.records)
    model = final(result, joint_kit.group)
    assert_equal(model, Reference(federation.params, **choices).train())
    assert max(federation.trained.values()) == 1  # uploads are encrypted afresh, not trained
    assert any("no part of it came from client-3" in note for note in federation.watcher.notes)


def test_a_client_that_is_lost_when_reports_are_opened(
    joint_federation: JointFederation, joint_kit: JointKit
) -> None:
    federation = joint_federation
    federation.grid.inject(Hang(), node=VICTIM, round=0, asks="open", times=1)
    result = federation.train(**NO_EVALUATION)
    reports = federation.last.records[0]["opening"]["reports"]
    assert (reports["attempts"], reports["lost"]) == (2, ["client-3"])
    assert [r["participants"] for r in federation.last.records] == [5, 5, 5]
    assert_equal(final(result, joint_kit.group), federation.expected())


def test_too_few_are_left_to_open(joint_federation: JointFederation, joint_kit: JointKit) -> None:
    """The round fails with a reason, and nobody uploads again for it; the next goes on."""
    federation = joint_federation
    for node in (12, 13, 14):
        federation.grid.inject(Hang(), node=node, round=1, asks="open")
    result = federation.train(**NO_EVALUATION)
    assert federation.failed == {
        2: "2 clients are left that can open a sum; needed: 3. "
        "No part came from client-2, client-3, client-4"
    }
    assert [r["participants"] for r in federation.last.records] == [5, 0, 5]
    asked = [e.asks for e in federation.grid.exchanges if e.round == 1 and "upload" in e.asks]
    assert asked == [("train", "upload")] * 5
    assert_equal(final(result, joint_kit.group), federation.expected())


def test_somebody_is_silent_in_every_attempt(
    joint_federation: JointFederation, joint_kit: JointKit
) -> None:
    federation = joint_federation
    with pytest.MonkeyPatch.context() as patch:
        real = Opener._parts

        def without_one(opener: Opener, chosen: dict[int, int], total: Any) -> dict[int, bytes]:
            parts = real(opener, chosen, total)
            if opener.exchanges.history.finished == 1:
                parts.pop(min(parts))
            return parts

        patch.setattr(Opener, "_parts", without_one)
        result = federation.train(**NO_EVALUATION)
    assert list(federation.failed) == [2]
    assert "clients are left that can open a sum" in federation.failed[2]
    assert_equal(final(result, joint_kit.group), federation.expected())


def crashed(reply: Message) -> Message:
    """What Flower says of a client whose process died after its work."""
    return Message(Error(ErrorCode.CLIENT_APP_CRASHED, "killed"), reply_to=_request(reply))


def _request(reply: Message) -> Message:
    from flwr.app.message import make_message

    metadata = reply.metadata
    asked = make_message(metadata, reply.content)
    asked.metadata.__dict__["_message_id"] = metadata.reply_to_message_id
    asked.metadata.__dict__["_src_node_id"] = metadata.dst_node_id
    asked.metadata.__dict__["_dst_node_id"] = metadata.src_node_id
    return asked


def test_a_part_whose_reply_is_lost_is_sent_again_bit_for_bit(
    joint_federation: JointFederation, joint_kit: JointKit
) -> None:
    """Flower tells that the process died; the same request comes again, and is not worked anew."""
    federation, computed = joint_federation, []
    real = parties.sealed_part

    def counting(party: Any, *rest: Any) -> bytes:
        computed.append(party.index)
        return real(party, *rest)

    federation.grid.inject(Replace(crashed), node=VICTIM, round=1, asks="open", times=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parties, "sealed_part", counting)
        result = federation.train(**NO_EVALUATION)
    assert any("client-3 is asked again" in note for note in federation.watcher.notes)
    assert openings(federation) == [(1, [])] * 3
    assert len(computed) == 3 * 4  # reports and three sums, three parts each
    assert_equal(final(result, joint_kit.group), federation.expected())


@pytest.mark.parametrize("file", ["openings.json", "part"])
@pytest.mark.parametrize("at", ["before", "after"])
def test_a_client_that_is_killed_while_it_opens(
    joint_federation: JointFederation, joint_kit: JointKit, file: str, at: Any
) -> None:
    """Whatever is on its disk then: it never answers twice, and the round goes on."""
    federation = joint_federation
    call = 1 if file == "openings.json" else 2
    federation.grid.inject(
        KillAt(JointParty, "_write", call=call, at=at), node=VICTIM, round=1, asks="open", times=1
    )
    result = federation.train(**NO_EVALUATION)
    assert openings(federation) == [(1, []), (2, ["client-3"]), (1, [])]
    assert_equal(final(result, joint_kit.group), federation.expected())


@pytest.mark.parametrize("call", [1, 2])
@pytest.mark.parametrize("at", ["before", "after"])
def test_a_server_that_dies_in_the_ceremony(
    joint_federation: JointFederation, joint_kit: JointKit, tmp_path: Path, call: int, at: Any
) -> None:
    federation, state = joint_federation, {"state": tmp_path / "server", **NO_EVALUATION}
    with pytest.raises(Killed), killing(CeremonyRun, "_exchange", call=call, at=at):
        federation.train(**state)
    result = federation.go_on(**state)
    assert_equal(final(result, joint_kit.group), Reference(federation.params).train())


@pytest.mark.parametrize("call", [1, 2, 3])
@pytest.mark.parametrize("at", ["before", "after"])
def test_a_server_that_dies_while_a_sum_is_opened(
    joint_federation: JointFederation, joint_kit: JointKit, tmp_path: Path, call: int, at: Any
) -> None:
    federation, state = joint_federation, {"state": tmp_path / "server", **NO_EVALUATION}
    with pytest.raises(Killed), killing(Opener, "_parts", call=call, at=at):
        federation.train(**state)
    result = federation.go_on(**state)
    assert_equal(final(result, joint_kit.group), federation.expected())
    # It cannot know which sum was opened: the round ends without one, unless nobody was asked yet.
    asked_before = at == "after" or call == 2  # the second is of the round of the first
    reason = "the server was stopped while clients opened the sum of this round"
    assert federation.failed == ({1 if call <= 2 else 2: reason} if asked_before else {})
    assert max(federation.trained.values()) == 1
    asked = [e.asks for e in federation.grid.exchanges if "deal" in e.asks]
    assert len(asked) == len(NODES)  # the joint key is there already


@pytest.mark.parametrize("asks", ["deal", "share", "join"])
@pytest.mark.parametrize("what", ["request", "reply"])
def test_a_message_of_the_ceremony_is_lost(
    joint_federation: JointFederation, joint_kit: JointKit, tmp_path: Path, asks: str, what: Any
) -> None:
    """All are needed: the run says who is missing, and goes on when it is started again."""
    federation, state = joint_federation, {"state": tmp_path / "server", **NO_EVALUATION}
    federation.grid.inject(Lose(what), node=VICTIM, asks=asks, times=1)
    with pytest.raises(FederatedError, match=r"needs all 5 clients once; missing: client-3 \("):
        federation.train(**state)
    result = federation.go_on(**state)
    assert_equal(final(result, joint_kit.group), Reference(federation.params).train())


@pytest.mark.parametrize("file", ["party.sealed", "received.json", "public.key"])
@pytest.mark.parametrize("at", ["before", "after"])
def test_a_client_that_is_killed_in_the_ceremony(
    joint_federation: JointFederation, joint_kit: JointKit, tmp_path: Path, file: str, at: Any
) -> None:
    federation, state = joint_federation, {"state": tmp_path / "server", **NO_EVALUATION}
    asks = {"party.sealed": "deal", "received.json": "share", "public.key": "join"}[file]
    federation.grid.inject(KillAt(JointParty, "_write", at=at), node=VICTIM, asks=asks, times=1)
    with pytest.raises(FederatedError, match="missing: client-3"):
        federation.train(**state)
    result = federation.go_on(**state)
    assert_equal(final(result, joint_kit.group), Reference(federation.params).train())


def test_a_client_that_is_not_there_yet_is_waited_for(
    joint_kit: JointKit, tmp_path: Path, fast_disk: None
) -> None:
    federation = JointFederation.of(joint_kit, tmp_path / "clients", absent=[15])
    clock = federation.clock
    real = clock.sleep

    def sleep(seconds: float) -> None:
        real(seconds)
        if 15 not in federation.grid.get_node_ids():
            federation.grid.join(15)

    federation.train(1, sleep=sleep, **NO_EVALUATION)
    assert [r["participants"] for r in federation.last.records] == [5]


def test_a_client_that_never_comes_is_named(
    joint_kit: JointKit, tmp_path: Path, fast_disk: None
) -> None:
    federation = JointFederation.of(joint_kit, tmp_path / "clients", absent=[15])
    with pytest.raises(FederatedError, match=r"needs all 5 clients once; missing: client-5$"):
        federation.train(**NO_EVALUATION)
    assert not federation.trained


def test_a_second_training_takes_the_joint_key_that_is_there(
    joint_federation: JointFederation, joint_kit: JointKit
) -> None:
    """Also with fewer clients than make one."""
    federation = joint_federation
    federation.train(1, **NO_EVALUATION)
    first = federation.last.keys
    federation.grid.leave(15)
    federation.grid.new_run()
    result = federation.train(2, **NO_EVALUATION)
    assert federation.last.keys == first
    assert [r["participants"] for r in federation.last.records] == [4, 4]
    assert_equal(final(result, joint_kit.group), federation.expected())


def test_a_client_that_has_lost_its_share(
    joint_federation: JointFederation, joint_kit: JointKit
) -> None:
    """It says so; the others go on without it."""
    federation = joint_federation

    def lose(*_: Any) -> None:
        shutil.rmtree(federation.state_of(VICTIM) / "joint", ignore_errors=True)

    federation.grid.inject(Replace(lambda reply: (lose(), reply)[1]), node=VICTIM, round=0,
                           asks="upload", times=1)  # fmt: skip
    result = federation.train(**NO_EVALUATION)
    assert [r["participants"] for r in federation.last.records][1:] == [4, 4]
    assert any("has no joint key" in reason for reason in federation.watcher.reasons(VICTIM))
    lost = {1: {2}, 2: {2}}
    assert_equal(final(result, joint_kit.group), Reference(federation.params).train(lost=lost))


def test_signed_replies(
    joint_federation: JointFederation, joint_kit: JointKit, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Each step is signed; an upload that is asked for once more counts once more."""
    monkeypatch.setattr(sealing, "_SCRYPT_N", 16)
    federation = joint_federation
    signers = {node: Signer.generate(f"client-{i + 1}") for i, node in enumerate(NODES)}
    for node, signer in signers.items():
        path = tmp_path / f"{node}.key"
        path.write_bytes(signer.to_bytes(passphrase=joint_kit.passphrase))
        federation.grid.context(node).node_config["quancrypt-signing-key"] = str(path)
    federation.grid.inject(Hang(), node=VICTIM, round=1, asks="open", times=1)
    result = federation.train(
        members=Members(signer.member for signer in signers.values()),
        key_id=joint_kit.group.key_id,
        **NO_EVALUATION,
    )
    assert openings(federation) == [(1, []), (2, ["client-3"]), (1, [])]
    assert [r["envelopes"]["refused"] for r in federation.last.records] == [{}, {}, {}]
    assert_equal(final(result, joint_kit.group), federation.expected())


def test_a_client_that_has_left_is_not_asked_to_open(
    joint_federation: JointFederation, joint_kit: JointKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its update stays in the sum, which others open at once."""
    federation, real = joint_federation, Opener._chosen

    def chosen(opener: Opener, inside: Any, silent: Any) -> dict[int, int]:
        if opener.exchanges.history.finished == 1:
            federation.grid.leave(VICTIM)
        return real(opener, inside, silent)

    monkeypatch.setattr(Opener, "_chosen", chosen)
    result = federation.train(2, **NO_EVALUATION)
    assert openings(federation) == [(1, []), (1, [])]
    assert [r["participants"] for r in federation.last.records] == [5, 5]
    assert "client-3" not in federation.last.records[1]["opening"]["participants"]
    assert_equal(final(result, joint_kit.group), Reference(federation.params).train(2))


def test_a_superlink_that_is_away_while_openers_are_chosen(
    joint_federation: JointFederation, joint_kit: JointKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation, real = joint_federation, Opener._chosen

    def chosen(opener: Opener, inside: Any, silent: Any) -> dict[int, int]:
        federation.grid.break_connection("get_node_ids", httpx.ConnectError("down"))
        return real(opener, inside, silent)

    monkeypatch.setattr(Opener, "_chosen", chosen)
    result = federation.train(**NO_EVALUATION)
    assert_equal(final(result, joint_kit.group), Reference(federation.params).train())
