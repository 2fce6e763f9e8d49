"""Under a joint key clients and server are killed at random, from the ceremony to the end.

The training ends, all clients hold the same model, and no party has answered twice for anything.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from tests.fl.flower.faults import Death
from tests.fl.flower.federation import NO_EVALUATION, NODES, assert_equal, final
from tests.fl.flower.joint_federation import JointFederation, JointKit
from tests.fl.flower.test_random_kills import Place, Survivors, deaths

from quancrypt_fl.flower import mod, parties
from quancrypt_fl.flower.ceremony import CeremonyRun
from quancrypt_fl.flower.exchanges import Exchanges
from quancrypt_fl.flower.history import History
from quancrypt_fl.flower.history_files import Folder
from quancrypt_fl.flower.ledger import Ledger
from quancrypt_fl.flower.opening import Opener
from quancrypt_fl.flower.parties import JointParty
from quancrypt_fl.flower.stores import FolderStore
from quancrypt_fl.joint.protector import JointProtector

ROUNDS = 10

# What a process does, where it dies, and of how many calls one is chosen: those of about a round.
CEREMONY: list[tuple[str, Any, str, int]] = [
    ("dealing", JointParty, "deals", 5),
    ("writing its party's state", JointParty, "_write", 3),
    ("showing its share", JointParty, "share", 1),
    ("joining", JointParty, "join", 3),
]
CLIENT: list[tuple[str, Any, str, int]] = [
    ("receiving", mod, "read_request", 10),
    ("encrypting", JointProtector, "protect", 5),
    ("opening a sum with others", parties, "sealed_part", 3),
    ("keeping its part", JointParty, "_write", 6),
    ("reading a mean", JointProtector, "unprotect", 5),
    ("holding the model", FolderStore, "hold", 5),
]
SERVER: list[tuple[str, Any, str, int]] = [
    ("asking", Exchanges, "run", 2),
    ("closing a ledger", Ledger, "close", 1),
    ("choosing who opens", Opener, "_chosen", 1),
    ("collecting parts", Opener, "_parts", 1),
    ("counting a round", History, "append", 1),
    ("writing a file", Folder, "write", 6),
]


def plan_of(seed: int) -> list[Death]:
    """The ceremony first, in its order, the server in it too; then each place, in random order."""
    rng = random.Random(seed)
    later: list[Place] = [("client", place) for place in CLIENT] + [
        ("server", place) for place in SERVER
    ]
    rng.shuffle(later)
    first: list[Place] = [("client", place) for place in CEREMONY]
    first.insert(rng.randint(0, 3), ("server", ("passing on", CeremonyRun, "_exchange", 1)))
    return deaths(rng, [*first, *later])


@pytest.mark.parametrize("seed", range(6))
def test_whoever_dies(
    joint_federation: JointFederation, joint_kit: JointKit, tmp_path: Path, seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    federation, sent = joint_federation, set[tuple[int, bytes, tuple[int, ...]]]()
    real = parties.sealed_part

    def noted(party: Any, group: Any, data: bytes, participants: Any) -> bytes:
        sealed = real(party, group, data, participants)
        assert all((party.index, data) != (index, total) for index, total, _ in sent)
        sent.add((party.index, data, tuple(participants)))
        return sealed

    monkeypatch.setattr(parties, "sealed_part", noted)
    plan = plan_of(seed)
    made = Survivors(federation, tmp_path / "server", plan, returns=True)
    made.watch(monkeypatch)
    result = made.run(ROUNDS, **NO_EVALUATION)
    assert len(made.died) == len(plan), made.died[-1]
    model = final(result, joint_kit.group)
    for node in NODES:
        assert_equal(dict(federation.held(node).state.weights), model)
    records = federation.last.records
    assert [record["round"] for record in records] == list(range(1, ROUNDS + 1))
    assert sum(record["failed"] is None for record in records) >= ROUNDS // 2
