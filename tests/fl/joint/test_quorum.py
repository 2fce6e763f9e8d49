"""Who is asked to open a sum, and what follows when one falls silent; answers are made up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from itertools import combinations
from typing import Any

import pytest

from quancrypt_fl.errors import NotOpenedError
from quancrypt_fl.joint.opened import OpenedSum
from quancrypt_fl.joint.quorum import ATTEMPTS, Quorum
from quancrypt_fl.method.meter import RoundMeter
from quancrypt_fl.method.participation import choose, lose
from quancrypt_fl.seeds import generator

CLIENTS = [1, 2, 4, 5, 7, 8]
NEEDED = 3


class Asked:
    """Answers as clients do, once for each sum, and sums as a server does."""

    def __init__(self, seed: int, dropout: float, clients: Sequence[int] = CLIENTS) -> None:
        self.seed, self.dropout, self.clients = seed, dropout, list(clients)
        self.answered: list[tuple[bytes, int, list[int]]] = []
        self.away: list[set[int]] = []
        self.meter = RoundMeter(participants=len(self.clients), arrived=len(self.clients))

    def answer(self, client: int, total: bytes, participants: Sequence[int]) -> bytes:
        assert (total, client) not in {(sum_, who) for sum_, who, _ in self.answered}
        self.answered.append((total, client, list(participants)))
        return b"part of %d" % client

    def again(self, away: Collection[int]) -> bytes:
        self.away.append(set(away))
        return b"sum %d" % len(self.away)

    def open(self, what: str = "updates", t: int = 0) -> OpenedSum:
        quorum = Quorum(
            NEEDED, {"updates": self.answer, "reports": self.answer}, self.dropout, self.seed
        )
        assert quorum.repeats == (self.dropout > 0)
        data = quorum.opened(what, b"sum 0", self.clients, self.again, self.meter, t)
        return OpenedSum.from_bytes(data)


def outcome(seed: int, dropout: float, t: int = 0) -> tuple[Asked, OpenedSum | None]:
    asked = Asked(seed, dropout)
    try:
        return asked, asked.open(t=t)
    except NotOpenedError:
        return asked, None


def seeds(attempts: int, *, opened: bool, dropout: float = 0.3) -> list[int]:
    """Some with which so many sums are tried."""
    found = []
    for seed in range(300):
        asked, result = outcome(seed, dropout)
        tried = asked.meter.openings["updates"]["attempts"]
        if tried == attempts and (result is not None) == opened:
            found.append(seed)
    assert len(found) >= 3
    return found[:5]


def test_the_chosen_answer_and_nobody_else() -> None:
    asked = Asked(1, 0.0)
    opened = asked.open()
    assert len(opened.parts) == NEEDED
    assert set(opened.parts) < set(CLIENTS)
    assert opened.total == b"sum 0"
    assert opened.parts == {client: b"part of %d" % client for client in opened.parts}
    assert asked.answered == [(b"sum 0", client, sorted(opened.parts)) for client in opened.parts]
    assert asked.away == []
    assert asked.meter.openings == {
        "updates": {"participants": sorted(opened.parts), "attempts": 1, "lost": []}
    }


def test_a_seed_decides_who_and_rounds_and_sums_differ() -> None:
    def chosen(seed: int, what: str, t: int) -> list[int]:
        return sorted(Asked(seed, 0.0).open(what, t).parts)

    assert chosen(1, "updates", 0) == chosen(1, "updates", 0)
    for varied in (
        [chosen(seed, "updates", 0) for seed in range(8)],
        [chosen(1, "updates", t) for t in range(8)],
    ):
        assert len({tuple(one) for one in varied}) > 3
    assert any(chosen(s, "updates", 0) != chosen(s, "reports", 0) for s in range(5))


def test_every_set_is_equally_likely() -> None:
    """Pearson's chi-square over the 20 sets of 3 of 6: below the 99.9 % quantile of 19 dof."""
    draws = 2000
    seen = Counter(tuple(sorted(Asked(3, 0.0).open(t=t).parts)) for t in range(draws))
    assert set(seen) == set(combinations(CLIENTS, NEEDED))
    expected = draws / 20
    assert sum((count - expected) ** 2 / expected for count in seen.values()) < 43.82


@pytest.mark.parametrize("attempts", [2, 3])
def test_a_new_sum_and_others_after_one_fell_silent(attempts: int) -> None:
    for seed in seeds(attempts, opened=True):
        asked, opened = outcome(seed, 0.3)
        assert opened is not None
        assert opened.total == b"sum %d" % (attempts - 1)
        assert len(asked.away) == attempts - 1
        for before, after in zip([set[int](), *asked.away], asked.away, strict=False):
            assert before < after
        assert not asked.away[-1] & set(opened.parts)
        note = asked.meter.openings["updates"]
        assert note["participants"] == sorted(opened.parts)
        assert set(note["lost"]) == asked.away[-1]
        for number in range(attempts):  # those of a sum were named before any of them answered
            named = {tuple(p) for sum_, _, p in asked.answered if sum_ == b"sum %d" % number}
            assert len(named) <= 1


def test_losses_follow_the_seed_as_documented() -> None:
    for seed in range(20):
        asked, _ = outcome(seed, 0.3)
        away: set[int] = set()
        for attempt in range(asked.meter.openings["updates"]["attempts"]):
            present = [client for client in CLIENTS if client not in away]
            places = choose(len(present), NEEDED, generator(seed, "opening", 0, attempt))
            chosen = [present[place] for place in places]
            away |= lose(chosen, 0.3, generator(seed, "open-dropout", 0, attempt))
        assert asked.meter.openings["updates"]["lost"] == sorted(away)


def test_after_so_many_attempts_the_round_is_given_up() -> None:
    for seed in seeds(ATTEMPTS, opened=False, dropout=0.25):
        asked = Asked(seed, 0.25)
        with pytest.raises(NotOpenedError, match=r"(in each of 3 attempts|are left; 3 open it)"):
            asked.open()
        note = asked.meter.openings["updates"]
        assert note["participants"] == []
        assert note["attempts"] == ATTEMPTS
        assert len(asked.away) == ATTEMPTS - 1


@pytest.mark.parametrize(
    ("clients", "dropout", "said"),
    [
        ([1, 2], 0.0, "2 of the 2 clients in the sum of reports are left; 3 open it together"),
        ([3], 0.0, "1 of the 1 clients"),
        ([1, 2, 3], 0.999, "0 of the 3 clients in the sum of reports are left"),
    ],
)
def test_too_few_clients(clients: list[int], dropout: float, said: str) -> None:
    asked = Asked(1, dropout, clients)
    with pytest.raises(NotOpenedError, match=said):
        asked.open("reports")


def test_bytes_and_seconds_are_counted() -> None:
    (seed, *_) = seeds(2, opened=True)
    asked, _ = outcome(seed, 0.3)
    parts = sum(len(b"part of %d" % client) for _, client, _ in asked.answered)
    assert asked.meter.bytes_per_client == {
        "upload": round(parts / len(CLIENTS)),
        "download": round(2 * NEEDED * len(b"sum 0") / len(CLIENTS)),
    }
    assert asked.meter.seconds["open"] > 0


def test_reports_count_for_all_that_train_and_updates_for_those_that_arrived() -> None:
    def uploaded(what: str) -> Any:
        meter = RoundMeter(participants=10, arrived=5)
        meter.answered(what, 1000)
        meter.repeated(what, 500, 2)
        return meter.bytes_per_client["upload"]

    assert uploaded("reports") == 150
    assert uploaded("updates") == 300
