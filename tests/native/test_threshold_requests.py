"""Smudging belongs to one request, and one party may be asked by several threads.

That the core draws other noise for another request, whatever the operating system's generator
gives, is in ``cpp/tests/test_requests.cpp``: only there can the generator be stood in for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
from tests.native.threshold_parties import Group, ceremony_of, group, meet, parameters

import quancrypt_native as qn
from quancrypt_native.threshold import AnsweredError, Party

Q = np.arange(-50, 50)
THREADS = 8


class Recorder:
    """Stands in for a party's core: keeps what smudging is drawn from beside fresh randomness."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []

    def partial_decryption(self, *arguments: Any) -> bytes:
        self.requests.append(bytes(arguments[4]))
        return b""


def requests_of(party: Party, asked: Iterable[tuple[qn.EncryptedUpdate, list[int]]]) -> list[bytes]:
    """What a party whose memory is gone draws smudging from, for each of these requests."""
    state = party.to_bytes(passphrase=bytes(32), random_passphrase=True)
    recorder = Recorder()
    for total, participants in asked:
        resumed = Party.from_bytes(state, party.ceremony, passphrase=bytes(32))
        resumed._core = recorder  # type: ignore[assignment]
        resumed.partial_decryption(total, participants)
    return recorder.requests


def test_each_request_has_a_seed_of_its_own() -> None:
    """Ciphertext, participants, party: a copy of a machine draws the same only for the same."""
    party_group = group(2, 3)
    one, two = party_group.total(Q), party_group.total(Q)
    again = qn.EncryptedUpdate.from_bytes(one.to_bytes(), party_group.params)
    asked = [(one, [0, 1]), (again, [1, 0]), (two, [0, 1]), (one, [0, 2]), (one, [0, 1, 2])]
    seeds = requests_of(party_group.parties[0], asked)
    assert {len(seed) for seed in seeds} == {32}
    assert seeds[0] == seeds[1]
    assert len(set(seeds[1:])) == 4
    assert requests_of(party_group.parties[1], asked[:1])[0] not in seeds


def test_a_seed_is_of_one_ceremony() -> None:
    """Another ceremony, another seed, even for a party that kept its secret."""
    party_group, other = group(2, 3), meet(ceremony_of(parameters(3), 2))
    stranger = other.parties[0]
    memoryview(stranger._pair_secret)[:] = memoryview(party_group.parties[0]._pair_secret)
    chosen, identity = [0, 1], bytes(32)
    parties = stranger, party_group.parties[0]
    ours, theirs = (bytes(party._request_seed(identity, chosen)) for party in parties)
    assert ours != theirs


def at_once(calls: list[Callable[[], object]]) -> list[object]:
    """Results of calls from as many threads, or what they raised."""
    together = threading.Barrier(len(calls))
    results: list[object] = [None] * len(calls)

    def run(place: int) -> None:
        together.wait()
        try:
            results[place] = calls[place]()
        except qn.QuanCryptError as error:
            results[place] = error

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_deals_that_arrive_at_once_are_taken_in_once_each() -> None:
    """Each from two threads: one of the two is refused, and the share is the sum of all."""
    ceremony = ceremony_of(parameters(5), 3)
    parties = [Party(ceremony, index) for index in range(5)]
    for recipient in parties:
        deals = [(p.index, p.deal()[recipient.index]) for p in parties if p is not recipient]
        calls: list[Callable[[], object]] = [
            partial(recipient.receive, sender, data) for sender, data in deals * 2
        ]
        results = at_once(calls)
        assert sum(isinstance(result, qn.ParameterError) for result in results) == 4
        assert results.count(None) == 4
        assert recipient.missing == []
    public = ceremony.public_key({party.index: party.public_share() for party in parties})
    party_group = Group(ceremony, parties, public)
    total = party_group.total(Q)
    for chosen in ([0, 1, 2], [2, 3, 4]):
        total = party_group.total(Q)
        parts = party_group.parts(total, chosen)
        np.testing.assert_array_equal(ceremony.decrypt_integers(total, parts), Q)


def test_one_of_many_threads_gets_the_answer() -> None:
    party_group = meet(ceremony_of(parameters(3), 2))
    party, other = party_group.parties[0], party_group.parties[1]
    total = party_group.total(Q)
    results = at_once([lambda: party.partial_decryption(total, [0, 1])] * THREADS)
    (answer,) = (result for result in results if isinstance(result, bytes))
    assert sum(isinstance(result, AnsweredError) for result in results) == THREADS - 1
    parts = {0: answer, 1: other.partial_decryption(total, [0, 1])}
    np.testing.assert_array_equal(party_group.ceremony.decrypt_integers(total, parts), Q)


def test_different_sums_are_answered_at_once() -> None:
    party_group = group(2, 3)
    totals = [party_group.total(Q + k) for k in range(THREADS)]
    answers = [
        at_once([partial(party.partial_decryption, total, [0, 2]) for total in totals])
        for party in (party_group.parties[0], party_group.parties[2])
    ]
    for k, (total, zero, two) in enumerate(zip(totals, *answers, strict=True)):
        assert isinstance(zero, bytes)
        assert isinstance(two, bytes)
        sums = party_group.ceremony.decrypt_integers(total, {0: zero, 2: two})
        np.testing.assert_array_equal(sums, Q + k)


def test_a_state_is_saved_while_deals_arrive() -> None:
    """What is saved is the party before or after each deal: it goes on from there."""
    ceremony = ceremony_of(parameters(3), 2)
    parties = [Party(ceremony, index) for index in range(3)]
    deals = {sender: parties[sender].deal() for sender in (0, 2)}
    receiving: list[Callable[[], object]] = [
        partial(parties[1].receive, sender, deals[sender][1]) for sender in deals
    ]
    saving: list[Callable[[], object]] = [
        lambda: parties[1].to_bytes(passphrase=bytes(32), random_passphrase=True)
    ] * 6
    states = at_once(receiving + saving)[2:]
    for state in states:
        assert isinstance(state, bytes)
        resumed = Party.from_bytes(state, ceremony, passphrase=bytes(32))
        for sender in resumed.missing:
            resumed.receive(sender, deals[sender][1])
        assert bytes(resumed._core.save()) == bytes(parties[1]._core.save())
