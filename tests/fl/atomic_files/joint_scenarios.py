"""A party of a joint key: its files before and after each step of the ceremony, and of an answer.

The ceremony is made once, of three parties; party 0's folder is kept as it was after each step.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from tests.fl.flower.joint_federation import JointKit, make_kit

import quancrypt_native as qn
from quancrypt_fl.errors import MethodError
from quancrypt_fl.flower.openings import Asking
from quancrypt_fl.flower.parties import JointParty

__all__ = ["STEPS", "Step"]

OPENING, OTHERS = (0, 1), (0, 2)
ASKING = Asking("0" * 32, 0, "0" * 64, ({"w": ((9,), 0.5)},))


@dataclass(frozen=True)
class Made:
    """What party 0 gets from the other two, and a sum of both of theirs."""

    kit: JointKit
    stages: Path
    deals: dict[int, bytes]
    shares: dict[int, bytes]
    total: bytes


@dataclass(frozen=True)
class Step:
    """One step of party 0; see :class:`tests.fl.atomic_files.scenarios.Scenario`."""

    prepare: Callable[[Path], None]
    act: Callable[[Path], None]
    read: Callable[[Path], str]


def made(folder: Path) -> Made:
    return _made(folder.parents[1])


@lru_cache
def _made(root: Path) -> Made:
    kit = make_kit(root / "ceremony" / "kit", b"group", parties=3, threshold=2)
    parties = [kit.party(root / "ceremony" / str(index), index) for index in range(3)]
    stages = root / "ceremony" / "stages"

    def keep(stage: str) -> None:
        shutil.copytree(root / "ceremony" / "0", stages / stage)

    dealt = {sender: party.deals() for sender, party in enumerate(parties)}
    keep("dealt")
    shares = {
        index: party.share(
            {sender: deals[index] for sender, deals in dealt.items() if sender != index}
        )
        for index, party in enumerate(parties)
    }
    keep("shared")
    for party in parties:
        public = party.join(shares)
    keep("joined")
    encryptor = qn.Encryptor(kit.params, public)
    updates = [{"w": np.full(9, value, np.float32)} for value in (0.1, 0.3)]
    uploads = [encryptor.encrypt(update, clip={"w": 0.5}) for update in updates]
    return Made(
        kit,
        stages,
        {1: dealt[1][0], 2: dealt[2][0]},
        shares,
        qn.aggregate(uploads).to_bytes(),
    )


def party(folder: Path) -> JointParty:
    return made(folder).kit.party(folder / "state", 0)


def after(stage: str) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        shutil.copytree(made(folder).stages / stage, folder / "state")

    return prepare


def nothing(folder: Path) -> None:
    made(folder)


def file(folder: Path, name: str) -> bool:
    return any((folder / "state").rglob(name))


# --- the ceremony ---


def deal(folder: Path) -> None:
    party(folder).deals()


def read_deal(folder: Path) -> str:
    """The secrets are on disk, and open, or nobody has seen a deal of theirs."""
    if not file(folder, "party.sealed"):
        return "old"
    party(folder).deals()
    return "new"


def share(folder: Path) -> None:
    party(folder).share(made(folder).deals)


def read_share(folder: Path) -> str:
    """What was dealt is taken in: then, and not before, the party can join."""
    try:
        public = party(folder).join(made(folder).shares)
    except MethodError as error:
        if "before the deals" not in str(error):
            raise
        return "old"
    for path in (folder / "state").rglob("public.key"):
        path.unlink()  # as it was
    assert public.key_id == joined_key(folder)
    return "new"


def join(folder: Path) -> None:
    party(folder).join(made(folder).shares)


def read_join(folder: Path) -> str:
    public = party(folder).public
    if public is None:
        return "old"
    assert public.key_id == joined_key(folder)
    return "new"


def joined_key(folder: Path) -> str:
    stage = made(folder).stages / "joined"
    return made(folder).kit.party(stage, 0).require_public().key_id


# --- an answer ---


def answer(folder: Path) -> None:
    """Give the part, unless the answer is spent, as that of a party that died over it."""
    if read_answer(folder) == "old":
        part(folder, OPENING)


def read_answer(folder: Path) -> str:
    """A sum is answered in one way at most: once the answer may have been given, in no other."""
    if not file(folder, "openings.json"):
        assert not file(folder, "part")
        return "old"
    with pytest.raises(MethodError, match="answered for this sum before"):
        part(folder, OTHERS)
    return "new"


def part(folder: Path, participants: tuple[int, ...]) -> bytes:
    group = made(folder).kit.group.secret
    return party(folder).part(made(folder).total, participants, group, ASKING)


STEPS = {
    "joint key: deal": Step(nothing, deal, read_deal),
    "joint key: share": Step(after("dealt"), share, read_share),
    "joint key: join": Step(after("shared"), join, read_join),
    "joint key: an answer": Step(after("joined"), answer, read_answer),
}
