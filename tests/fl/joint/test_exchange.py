"""A sum that is made again: fresh uploads of those that are there, earlier ones of the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from types import SimpleNamespace
from typing import Any, cast

import pytest

from quancrypt_fl.method.exchange import Exchange
from quancrypt_fl.method.meter import RoundMeter
from quancrypt_fl.method.roles import Again, EachByItself, Participant, Sealed, Update
from quancrypt_fl.method.weighting import Share

CLIENTS = [2, 3, 5]


class Summing:
    """Keeps what is added until the sum is asked for."""

    def __init__(self) -> None:
        self.added: list[tuple[bytes, int]] = []

    def add(self, data: bytes, weight: int) -> None:
        self.added.append((data, weight))

    def result(self) -> bytes:
        added, self.added = self.added, []
        return b"+".join(b"%d*%s" % (weight, data) for data, weight in added)


class Twice:
    """Asks for the sum again, as if some had fallen silent."""

    repeats = True

    def __init__(self, *silent: set[int]) -> None:
        self.silent = silent
        self.sums: list[bytes] = []

    def opened(
        self, what: str, total: bytes, clients: Sequence[int], again: Again, meter: Any, t: int
    ) -> bytes:
        assert list(clients) == CLIENTS
        self.sums = [total, *(again(away) for away in self.silent)]
        return self.sums[-1]


def exchanged(opening: Any, what: str) -> tuple[bytes, RoundMeter]:
    """Three clients with weights 1 to 3; an upload says whose it is and which encryption."""
    numbers = count()

    def pairs() -> Iterator[tuple[Participant, Update]]:
        for weight, index in enumerate(CLIENTS, start=1):
            client = cast("Participant", SimpleNamespace(index=index))
            yield client, Update({}, Share(weight))

    def encrypt(client: Participant, update: Update) -> Sealed:
        del update
        return Sealed(b"%d.%d" % (client.index, next(numbers)), ciphertexts=1)

    meter = RoundMeter(participants=len(CLIENTS))
    with Exchange(what, Summing(), opening, meter, 0) as exchange:
        for client, update in pairs():
            exchange.upload(client, update, encrypt)
        assert [share.weight for share in exchange.shares] == [1, 2, 3]
        return exchange.opened(exchange.total(), pairs, encrypt), meter


def test_silent_clients_count_with_what_they_had_uploaded() -> None:
    opening = Twice({3}, {3, 5})
    exchanged(opening, "updates")
    assert opening.sums == [
        b"1*2.0+2*3.1+3*5.2",
        b"1*2.3+2*3.1+3*5.4",
        b"1*2.5+2*3.1+3*5.2",
    ]


@pytest.mark.parametrize("what", ["updates", "reports"])
def test_what_is_sent_again_is_counted_and_nobody_arrives_twice(what: str) -> None:
    _, meter = exchanged(Twice({3}), what)
    assert meter.arrived == (3 if what == "updates" else 0)
    assert meter.bytes_per_client["upload"] == round(5 * len(b"2.0") / 3)
    assert meter.ciphertexts_per_client == round(5 / 3)


def test_where_each_has_the_key_nothing_is_kept() -> None:
    total, _ = exchanged(EachByItself(), "updates")
    assert total == b"1*2.0+2*3.1+3*5.2"
