"""A party's record of what it has helped to open, as it is written and read."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from tests.fl.flower.joint_federation import JointFederation, JointKit

from quancrypt_fl.errors import MethodError
from quancrypt_fl.flower.openings import MOST_OPENINGS, MOST_SUMS, Asking, Openings
from quancrypt_fl.flower.stores import StoreError

FIRST = Asking("0" * 32, 0, "a" * 64, ())
SUMS = [f"{number:064x}" for number in range(20)]


def read(openings: Openings) -> Openings:
    """Written and read again."""
    return Openings.from_document(json.loads(json.dumps(openings.to_document())))


def test_it_only_grows() -> None:
    openings = Openings()
    for number in range(3):
        asking = replace(FIRST, round=number, chain=f"{number:064x}")
        for digest in SUMS[:MOST_OPENINGS]:
            openings = read(openings.with_sum(asking, digest))
        with pytest.raises(MethodError, match=f"allowed: {MOST_OPENINGS}"):
            openings.with_sum(asking, SUMS[-1])
    assert openings.sums == 3 * MOST_OPENINGS
    openings = read(openings.with_sum(replace(FIRST, training="1" * 32), SUMS[0]))
    with pytest.raises(MethodError, match="begin another training"):
        openings.with_sum(FIRST, SUMS[-1])
    assert openings.sums == 3 * MOST_OPENINGS + 1


def test_the_same_sum_twice() -> None:
    openings = read(Openings().with_sum(FIRST, SUMS[0]))
    with pytest.raises(MethodError, match="has answered for this sum before"):
        openings.with_sum(FIRST, SUMS[0])


def test_a_number_of_sums_for_all_trainings() -> None:
    document = {**Openings().to_document(), "sums": MOST_SUMS - 1}
    openings = read(Openings.from_document(document).with_sum(FIRST, SUMS[0]))
    with pytest.raises(MethodError, match="10,000 sums under this joint key; allowed: 10,000"):
        openings.with_sum(replace(FIRST, training="2" * 32), SUMS[1])


def test_what_a_version_before_has_written() -> None:
    """It knows the sums of one state, of a training that it does not name."""
    old = {"state": "a" * 64, "sums": SUMS[:4]}
    openings = Openings.from_document(old)
    assert openings.sums == 4
    assert read(openings.with_sum(FIRST, SUMS[0])).sums == 5


@pytest.mark.parametrize(
    "document",
    [
        {"version": 3, "sums": 0, "trainings": {}},
        {"version": 2, "sums": "0", "trainings": {}},
        {"version": 2, "sums": 0},
        {"version": 2, "sums": 0, "trainings": []},
        {"version": 2, "sums": 0, "trainings": {"0": {"round": 0, "chain": "x", "opened": []}}},
        {"version": 2, "sums": 0, "trainings": {"0": {"round": "0", "chain": "a" * 64}}},
        {"version": 2, "sums": 0, "trainings": {"0": 7}},
        {"sums": 7},
    ],
    ids=repr,
)
def test_a_damaged_record_opens_nothing(
    joint_federation: JointFederation, joint_kit: JointKit, document: dict[str, Any]
) -> None:
    joint_federation.train(1, fraction_evaluate=0.0)
    party = joint_federation.party(12)
    (party._folder / "openings.json").write_text(json.dumps(document))
    with pytest.raises(StoreError, match=r"openings\.json: is damaged"):
        party._openings()
