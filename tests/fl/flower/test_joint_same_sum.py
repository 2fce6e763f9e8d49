"""All sums of a round hold the same updates: their difference would be somebody's update.

A server that follows the protocol works together with one client, which has the group key: they
have all that passed the server, also what came too late for a round.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.fl.flower.faults import Hang, Kill, Killed, Replace, killing
from tests.fl.flower.federation import NO_EVALUATION, NODES, assert_equal, final
from tests.fl.flower.joint_federation import JointFederation, JointKit
from tests.fl.flower.local_grid import inflate
from tests.fl.flower.test_joint_failures import VICTIM, openings
from tests.fl.flower.test_joint_hostile import HOSTILE, blobs

from quancrypt_fl.errors import MethodError, NotOpenedError
from quancrypt_fl.flower.ledger import Ledger
from quancrypt_fl.flower.opening import Opener
from quancrypt_fl.flower.protocol import blobs_of
from quancrypt_fl.flower.same_sum import SameSum
from quancrypt_fl.joint.opened import OpenedSum
from quancrypt_fl.joint.protector import JointProtector
from quancrypt_fl.method.weighting import Share

Sums = dict[str, np.ndarray]


def all_opened(federation: JointFederation, round: int) -> Iterator[tuple[Sums, int]]:
    """Every sum of a round whose parts have all passed the server, late ones too; its weight."""
    sums: dict[bytes, dict[int, bytes]] = {}
    for exchange in federation.grid.exchanges:
        if exchange.round == round and "open" in exchange.asks:
            total = blobs_of(inflate(exchange.message_id, exchange.contents))["total"]
            parts = sums.setdefault(total, {})
            for message_id, contents in exchange.replies or []:
                parts[federation.index(exchange.node)] = blobs_of(inflate(message_id, contents))[
                    "part"
                ]
    party = federation.party(NODES[0])
    protector = JointProtector(party.ceremony, party.require_public(), federation.kit.group.secret)
    for total, parts in sums.items():
        if len(parts) >= party.facts.threshold:
            mean, weight = protector.unprotect(OpenedSum(total, parts).to_bytes())
            yield {name: np.rint(each * weight * 127) for name, each in mean.items()}, weight


def assert_they_tell_no_more(opened: list[tuple[Sums, int]], number: int) -> None:
    """So many sums, all alike."""
    assert len(opened) == number
    first, weight = opened[0]
    for sums, other in opened[1:]:
        assert other == weight
        for name, each in sums.items():
            np.testing.assert_array_equal(each, first[name])


UPLOADS_ONCE = [Hang, lambda: Kill("before"), lambda: Replace(blobs(HOSTILE["random"], "upload"))]


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_a_part_that_comes_late_opens_the_same_sum(
    joint_federation: JointFederation, joint_kit: JointKit, rounding: str
) -> None:
    federation = joint_federation
    federation.grid.inject(Hang(seconds=61.0), node=VICTIM, round=1, asks="open", times=1)
    result = federation.train(rounding=rounding, **NO_EVALUATION)
    assert openings(federation) == [(1, []), (2, ["client-3"]), (1, [])]
    assert_they_tell_no_more(list(all_opened(federation, 1)), 2)
    if rounding == "nearest":
        assert_equal(final(result, joint_kit.group), federation.expected())


@pytest.mark.parametrize("fault", UPLOADS_ONCE)
def test_a_client_that_does_not_encrypt_once_more(
    joint_federation: JointFederation, joint_kit: JointKit, fault: Any
) -> None:
    """What it uploaded first stands in for it."""
    federation = joint_federation
    federation.grid.inject(Hang(seconds=61.0), node=VICTIM, round=1, asks="open", times=1)
    again = federation.grid.inject(fault(), node=15, round=1, asks="upload", without="train")
    result = federation.train(**NO_EVALUATION)
    assert again.fired
    assert openings(federation) == [(1, []), (2, ["client-3"]), (1, [])]
    assert set(federation.counted(federation.last.records[1])) == set(NODES)
    assert_they_tell_no_more(list(all_opened(federation, 1)), 2)
    assert_equal(final(result, joint_kit.group), federation.expected())


def test_the_last_attempt_holds_the_same_too(
    joint_federation: JointFederation, joint_kit: JointKit
) -> None:
    federation = joint_federation
    for node in (VICTIM, 15):
        federation.grid.inject(Hang(seconds=61.0), node=node, round=1, asks="open", times=1)
    result = federation.train(**NO_EVALUATION)
    assert openings(federation)[1] == (3, ["client-3", "client-5"])
    assert_they_tell_no_more(list(all_opened(federation, 1)), 3)
    assert_equal(final(result, joint_kit.group), federation.expected())


def test_sums_of_reports_hold_the_same(
    joint_federation: JointFederation, joint_kit: JointKit
) -> None:
    federation = joint_federation
    federation.grid.inject(Hang(seconds=61.0), node=VICTIM, round=0, asks="open", times=1)
    federation.grid.inject(Hang(), node=15, round=0, asks="report", without="train")
    result = federation.train(1, **NO_EVALUATION)
    assert federation.last.records[0]["opening"]["reports"]["attempts"] == 2
    opened = list(all_opened(federation, 0))
    reports = [each for each in opened if len(each[0]) == 1]
    assert len(opened) == 3
    assert_they_tell_no_more(reports, 2)
    assert_equal(final(result, joint_kit.group), federation.expected())


def test_nobody_encrypts_once_more(joint_federation: JointFederation) -> None:
    """A sum of what was there before has been answered for: the round ends without one."""
    federation = joint_federation
    federation.grid.inject(Hang(seconds=61.0), node=VICTIM, round=1, asks="open", times=1)
    for node in NODES:
        federation.grid.inject(Hang(), node=node, round=1, asks="upload", without="train")
    federation.train(2, **NO_EVALUATION)
    assert federation.failed == {2: "no client has encrypted its update afresh for another attempt"}


def test_a_client_that_has_lost_its_training_does_not_train_another(
    joint_federation: JointFederation, joint_kit: JointKit
) -> None:
    """Two sums would differ by its two trainings."""
    federation = joint_federation

    def lose(reply: Any) -> Any:
        for path in federation.state_of(15).rglob("pending"):
            path.unlink()
        return reply

    federation.grid.inject(Hang(seconds=61.0), node=VICTIM, round=1, asks="open", times=1)
    federation.grid.inject(Replace(lose), node=15, round=1, asks="open", times=1)
    federation.grid.inject(Replace(lose), node=15, round=1, asks="train", times=1)
    result = federation.train(2, **NO_EVALUATION)
    assert federation.trained[15, 2] == 1
    assert any("asked for again, is gone" in text for text in federation.watcher.reasons(15))
    assert_they_tell_no_more(list(all_opened(federation, 1)), 2)
    assert_equal(final(result, joint_kit.group), federation.expected())


@pytest.mark.parametrize("call", [1, 2, 3])
@pytest.mark.parametrize("at", ["before", "after"])
def test_a_server_that_starts_anew_forms_no_other_sum_of_the_state(
    joint_federation: JointFederation, joint_kit: JointKit, tmp_path: Path, call: int, at: Any
) -> None:
    """Other clients are there then; whatever was opened before, no second sum is of that state."""
    federation, state = joint_federation, {"state": tmp_path / "server", **NO_EVALUATION}
    with pytest.raises(Killed), killing(Opener, "_parts", call=call, at=at):
        federation.train(**state)
    federation.grid.leave(VICTIM)
    result = federation.go_on(**state)
    for number in range(3):
        opened = list(all_opened(federation, number))
        for number_of_tensors in {len(sums) for sums, _ in opened}:  # reports, and updates
            alike = [each for each in opened if len(each[0]) == number_of_tensors]
            assert_they_tell_no_more(alike, 1)
    failed = federation.failed
    assert len(failed) == (0 if (call, at) in ((1, "before"), (3, "before")) else 1)
    assert set(failed.values()) <= {
        "the server was stopped while clients opened the sum of this round"
    }
    assert_equal(final(result, joint_kit.group), federation.expected())


# --- the keeper of uploads by itself ---


def ledger(kit: JointKit, key_id: str) -> Ledger:
    return Ledger(kit.params, key_id, {"w": ((50,), 1.0)}, {n: Share(n - 10) for n in NODES})


def test_only_those_of_the_first_sum_are_in_the_next(
    joint_federation: JointFederation, joint_kit: JointKit
) -> None:
    federation = joint_federation
    federation.train(1, **NO_EVALUATION)
    party = federation.party(NODES[0])
    protector = JointProtector(party.ceremony, party.require_public(), joint_kit.group.secret)
    key = party.require_public().key_id

    def upload(value: float) -> bytes:
        tensors = {"w": np.full(50, value, np.float32)}
        return protector.protect(tensors, {"w": 1.0}, 0).data

    with SameSum(lambda: ledger(joint_kit, key), repeats=True) as same:
        for node in (11, 13):
            same.add(node, upload(0.5))
        assert same.complete() == [11, 13]
        same.begin_again()
        with pytest.raises(NotOpenedError, match="no client has encrypted its update afresh"):
            same.complete()
        with pytest.raises(MethodError, match="is not in the sum that is formed once more"):
            same.add(12, upload(0.5))
        same.add(13, upload(0.5))
        with pytest.raises(MethodError, match="repeated"):
            same.add(13, upload(0.5))
        assert same.complete() == [11, 13]
        assert same.ledger.entries == {13: 3, 11: 1}
        assert same.ledger.close().weight == 4
