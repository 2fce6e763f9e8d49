"""What a history knows at one moment, as a value: facts, finished rounds, what is kept and why."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from quancrypt_fl.flower.chain import digest
from quancrypt_fl.flower.history_files import (
    Files,
    HistoryDamageError,
    HistoryError,
    StoredBytes,
    checked_json,
    parse_checked_json,
)

__all__ = [
    "RoundSum",
    "Snapshot",
    "State",
    "amendment_line",
    "differences",
    "read_state",
    "retained",
    "round_line",
]

_VERSION = 1


@dataclass(frozen=True)
class RoundSum:
    """Public facts of a finished round.

    Attributes
    ----------
    round
        Rounds finished before it, 0 for the first.
    chain
        Chain id after it.
    weight
        Total weight of the encrypted sum; 0: the round failed and has none.
    scale
        Factor for prescaled weighting, otherwise 1.0.
    size, digest
        Bytes and SHA-256 in hexadecimal of the sum; 0 and "" if there is none.
    failed
        Why it failed, None if it did not.
    """

    round: int
    chain: str
    weight: int
    scale: float
    size: int
    digest: str
    failed: str | None = None

    def check(self, data: bytes) -> None:
        """Raise HistoryError unless ``data`` is the sum described here."""
        given = f"round {self.round + 1}: weight {self.weight}, failed: {self.failed!r}"
        if self.weight < 0 or (self.weight == 0) != (self.failed is not None):
            raise HistoryError(f"{given}; a round has a positive weight or a reason")
        if self.weight == 0 and (data or self.size or self.digest):
            raise HistoryError(f"{given}; a failed round has no sum, size 0 and an empty digest")
        if self.weight and (len(data), digest(data)) != (self.size, self.digest):
            raise HistoryError(f"{given}; the sum's size or digest is not that of its bytes")


@dataclass(frozen=True)
class Snapshot:
    """A sealed global state after ``round`` rounds; ``used``: a client has opened it."""

    round: int
    size: int
    digest: str
    used: bool = False


@dataclass(frozen=True)
class State:
    """All of it.

    Attributes
    ----------
    start
        Chain id of the initial model.
    first
        Sums are kept from the round that follows this number of finished ones.
    snapshots
        In order of their rounds.
    length, digested
        Bytes of the rounds' file, and the hash that has taken them in.
    """

    training: str
    facts: dict[str, Any]
    start: str
    initial: StoredBytes
    limit_bytes: int
    rounds: tuple[RoundSum, ...] = ()
    records: tuple[dict[str, Any], ...] = ()
    length: int = 0
    first: int = 0
    snapshots: tuple[Snapshot, ...] = ()
    digested: hashlib._Hash = hashlib.sha256()  # noqa: RUF009 - copied before it is updated

    @property
    def chain(self) -> str:
        """Chain id after the finished rounds."""
        return self.rounds[-1].chain if self.rounds else self.start

    def chain_at(self, rounds: int) -> str | None:
        """Chain id after ``rounds`` rounds, None if not so many are finished."""
        if not 0 <= rounds <= len(self.rounds):
            return None
        return self.rounds[rounds - 1].chain if rounds else self.start

    def with_line(self, line: bytes) -> State:
        """The state after another line of the rounds' file."""
        entry = json.loads(line)
        record = entry.pop("record")
        digested = self.digested.copy()
        digested.update(line)
        state = replace(self, length=self.length + len(line), digested=digested)
        if "amends" in entry:
            at = entry["amends"]
            records = (*self.records[:at], record, *self.records[at + 1 :])
            return replace(state, records=records)
        rounds = (*self.rounds, RoundSum(**entry))
        return replace(state, rounds=rounds, records=(*self.records, record))

    def wants_snapshot(self, every: int) -> bool:
        """See ``History.wants_snapshot``."""
        since = self.rounds[self.snapshots[-1].round if self.snapshots else 0 :]
        return bool(since) and (
            0 < every <= len(since)
            or sum(past.size for past in since) > self.limit_bytes
            or (self.first > 0 and not self.snapshots)
        )

    def retained(self, incoming: int = 0) -> State:
        """The state without what may go; ``incoming`` bytes of sums are about to be added."""
        first, snapshots = retained(
            self.rounds, self.first, self.snapshots, self.limit_bytes - incoming
        )
        return replace(self, first=first, snapshots=snapshots)

    def index(self) -> bytes:
        """The file that :func:`read_state` begins with."""
        return checked_json(
            {
                "version": _VERSION,
                "training": self.training,
                "facts": self.facts,
                "chain": self.start,
                "limit_bytes": self.limit_bytes,
                "initial": {"size": self.initial.size, "digest": self.initial.digest},
                "rounds": len(self.rounds),
                "rounds_bytes": self.length,
                "rounds_digest": self.digested.hexdigest(),
                "sums_from": self.first,
                "snapshots": [asdict(snapshot) for snapshot in self.snapshots],
            }
        )


def differences(kept: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Nested facts that differ, each as a phrase."""
    then, now = _flat(kept), _flat(json.loads(json.dumps(dict(given))))
    return [
        f"{name}: {then.get(name)!r:.80} then, {now.get(name)!r:.80} now"
        for name in sorted(then.keys() | now.keys())
        if (name in then, then.get(name)) != (name in now, now.get(name))
    ]


def _flat(facts: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in facts.items():
        if isinstance(value, dict) and value:
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def round_line(finished: RoundSum, record: Mapping[str, Any]) -> bytes:
    """A round in the rounds' file."""
    return json.dumps({**asdict(finished), "record": dict(record)}).encode() + b"\n"


def amendment_line(round: int, record: Mapping[str, Any]) -> bytes:
    """Another record for a round, in the rounds' file."""
    return json.dumps({"amends": round, "record": dict(record)}).encode() + b"\n"


def retained(
    rounds: Sequence[RoundSum], first: int, snapshots: tuple[Snapshot, ...], limit_bytes: int
) -> tuple[int, tuple[Snapshot, ...]]:
    """From which round on sums stay, and which snapshots.

    Needed are the sums since the newest snapshot and the one before it, for clients that miss just
    that; without a snapshot, all. Until a client has opened the newest, the snapshot before it (or
    the initial model) and the sums from there on stay too, oldest to go first where ``limit_bytes``
    do not hold them.
    """
    snapshots = snapshots[-2:]
    if snapshots:
        needed = snapshots[-1].round
        while needed > 0:
            needed -= 1
            if rounds[needed].weight:
                break
        if snapshots[-1].used:
            snapshots = snapshots[-1:]
            first = max(first, needed)
        elif len(snapshots) == 2:
            first = max(first, min(snapshots[0].round, needed))
        total = sum(past.size for past in rounds[first:])
        while first < needed and total > limit_bytes:
            total -= rounds[first].size
            first += 1
    while first > 0 and not rounds[first - 1].weight:
        first -= 1  # a failed round takes no bytes
    return first, tuple(snapshot for snapshot in snapshots if snapshot.round >= first)


def read_state(files: Files, index: str, rounds: str, initial: str) -> State:
    """The state that the files of these names hold.

    Raises
    ------
    HistoryDamageError
        Naming the file that is missing or not what was written.
    """
    where = files.where(index)
    document = parse_checked_json(files.read(index), where)
    try:
        if document["version"] != _VERSION:
            raise HistoryError(f"{where}: version {document['version']!r:.20}; known: {_VERSION}")
        about = document["initial"]
        state = State(
            document["training"],
            document["facts"],
            document["chain"],
            StoredBytes(files, initial, about["size"], about["digest"]),
            document["limit_bytes"],
            first=document["sums_from"],
            snapshots=tuple(Snapshot(**snapshot) for snapshot in document["snapshots"]),
        )
        expected = document["rounds_digest"]
        length, count = _count(document, "rounds_bytes"), _count(document, "rounds")
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise HistoryDamageError(f"{where}: damaged ({error!r:.80})") from None
    if files.size(initial) != state.initial.size:
        raise HistoryDamageError(f"{files.where(initial)}: missing or damaged")
    where = files.where(rounds)
    data = files.read(rounds)[:length]  # what follows is of a round that was not finished
    if digest(data) != expected:
        raise HistoryDamageError(f"{where}: damaged (its SHA-256 is not the one in {index})")
    rounds_by_number: dict[int, RoundSum] = {}
    records: dict[int, dict[str, Any]] = {}
    try:
        for line in data.splitlines():
            entry = json.loads(line)
            record = entry.pop("record")
            if "amends" not in entry:
                past = RoundSum(**entry)
                rounds_by_number[past.round] = past
            records[entry.get("amends", entry.get("round"))] = record
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise HistoryDamageError(f"{where}: damaged ({error!r:.80})") from None
    # Lengths first: the range of a count that is only claimed may not fit into memory.
    numbers = (list(records), list(rounds_by_number))
    if any(len(found) != count or found != list(range(count)) for found in numbers):
        raise HistoryDamageError(f"{where}: damaged (not rounds 1 to {count})")
    return replace(
        state,
        rounds=tuple(rounds_by_number.values()),
        records=tuple(records.values()),
        length=length,
        digested=hashlib.sha256(data),
    )


def _count(document: Mapping[str, Any], name: str) -> int:
    value = document[name]
    if type(value) is not int or value < 0:
        raise ValueError(f"{name} is {value!r:.40}; allowed: 0, 1, 2, ...")
    return value
