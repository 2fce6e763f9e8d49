"""``status.json`` as those who watch see it: every value checked, every text safe to show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quancrypt_fl.report.runs import NO_CHOICES, plain
from quancrypt_fl.report.values import (
    UntrustedError,
    count,
    number,
    optional_count,
    optional_number,
    reported_share,
    require_schema,
    section,
    shorten,
    text,
)

__all__ = ["Client", "Event", "Phase", "Record", "Status", "Totals", "parse_status"]

SCHEMA = 1
STATES = ("waiting", "training", "finished", "failed", "stopped")
CLIENT_STATES = ("asked", "answered", "refused", "lost", "idle")
_MOST_RECORDS, _MOST_CLIENTS, _MOST_EVENTS, _MOST_FACTS = 10_000, 20_000, 1_000, 100
_MOST_STEPS = 20  # of which a client or a record gives the seconds
_REASON = 500  # characters


@dataclass(frozen=True, slots=True)
class Phase:
    """The running phase. ``asked``: messages sent; ``failed``: refused or lost."""

    name: str
    since: float
    asked: int
    answered: int
    failed: int


@dataclass(frozen=True, slots=True)
class Client:
    """A client: its state in the running phase, and its figures of all rounds."""

    node: str
    name: str
    state: str
    reason: str | None
    phase: str | None
    since: float | None
    seconds: Mapping[str, float]
    bytes: int
    bytes_all: int
    answered_all: int
    refused_all: int
    lost_all: int
    ignored: int

    @property
    def title(self) -> str:
        """Its name, or its node."""
        return self.name or self.node


@dataclass(frozen=True, slots=True)
class Record:
    """A finished round. Accuracies in ``[0, 1]``, bytes per client; None: not known."""

    round: int
    test_accuracy: float | None
    test_loss: float | None
    train_loss: float | None
    pruning_rate: float | None
    seconds: Mapping[str, float]
    wall_seconds: float | None
    upload: int | None
    download: int | None
    participants: int | None
    lost: int | None
    weight: int | None
    failed: str | None


@dataclass(frozen=True, slots=True)
class Totals:
    """Of all rounds: ``received`` by the server, ``upload`` and ``download`` of one client."""

    seconds: Mapping[str, float]
    upload: int
    download: int
    received: int
    answered: int
    refused: int
    lost: int
    ignored: int
    failed_rounds: int


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened."""

    at: float
    kind: str
    round: int | None
    phase: str | None
    name: str | None
    nbytes: int | None
    text: str


@dataclass(frozen=True, slots=True)
class Status:
    """All of it; times are seconds since 1970 on the server's clock."""

    training: str
    state: str
    error: str | None
    started: float | None
    ended: float | None
    updated: float
    rounds: int
    round: int
    finished: int
    round_started: float | None
    phase: Phase | None
    connected: int | None
    needed: int | None
    facts: Mapping[str, str]
    clients: tuple[Client, ...]
    records: tuple[Record, ...]
    totals: Totals
    events: tuple[Event, ...]

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ("finished", "failed", "stopped")

    @property
    def accuracies(self) -> list[float]:
        """Test accuracy of the rounds that have one."""
        return [r.test_accuracy for r in self.records if r.test_accuracy is not None]

    def heading(self) -> str:
        """The state in a few words."""
        match self.state:
            case "finished":
                return f"Finished after {_rounds(self.finished)}"
            case "failed":
                return f"Failed after {self.finished} of {_rounds(self.rounds)}"
            case "stopped":
                return (
                    f"Stopped after {self.finished} of {_rounds(self.rounds)}; go on with "
                    "quancrypt run --resume"
                )
            case "waiting" if self.needed is not None:
                return f"Waiting for clients: {self.connected or 0} of {self.needed} connected"
            case "waiting":
                return "Waiting for clients"
        return f"Round {self.round} of {self.rounds}"


def _rounds(number_: int) -> str:
    return f"{number_:,} round{'' if number_ == 1 else 's'}"


def parse_status(document: Any) -> Status:
    """Check a document of ``status.json``.

    Raises
    ------
    UntrustedError
        At the first value that is missing or not what it should be.
    """
    require_schema(document, SCHEMA)
    phase = section(document, "phase", required=False)
    totals = section(document, "totals", required=False)
    traffic = section(totals, "bytes", "totals.", required=False)
    return Status(
        training=text(document, "training", default="–"),
        state=_one_of(document, "state", STATES),
        error=_optional_text(document, "error"),
        started=optional_number(document, "started"),
        ended=optional_number(document, "ended"),
        updated=number(document, "updated"),
        rounds=count(document, "rounds"),
        round=count(document, "round"),
        finished=count(document, "finished"),
        round_started=optional_number(document, "round_started"),
        phase=_phase(phase) if phase else None,
        connected=optional_count(document, "connected"),
        needed=optional_count(document, "needed"),
        facts=_facts(section(document, "facts", required=False)),
        clients=tuple(_client(*item) for item in _items(document, "clients", _MOST_CLIENTS)),
        records=tuple(_record(*item) for item in _items(document, "records", _MOST_RECORDS)),
        totals=Totals(
            seconds=_seconds(totals, "totals."),
            upload=optional_count(traffic, "upload", "totals.bytes.") or 0,
            download=optional_count(traffic, "download", "totals.bytes.") or 0,
            **{
                name: optional_count(totals, name, "totals.") or 0
                for name in ("received", "answered", "refused", "lost", "ignored", "failed_rounds")
            },
        ),
        events=tuple(_event(*item) for item in _items(document, "events", _MOST_EVENTS)),
    )


def _items(document: Any, key: str, most: int) -> list[tuple[Any, str]]:
    """The items of a list that may be empty, each with its place."""
    found = document.get(key)
    if not isinstance(found, list) or len(found) > most:
        raise UntrustedError(f"{key} is not a list of at most {most:,} items")
    return [(item, f"{key}[{i}].") for i, item in enumerate(found)]


def _one_of(document: Any, key: str, allowed: tuple[str, ...], place: str = "") -> str:
    found = text(document, key, place)
    if found not in allowed:
        raise UntrustedError(f"{place}{key} = {found!r} is none of {', '.join(allowed)}")
    return found


def _optional_text(document: Any, key: str, place: str = "") -> str | None:
    found = document.get(key)
    if found is None or found == "":
        return None
    if not isinstance(found, str):
        raise UntrustedError(f"{place}{key} is not text: {shorten(found, 40)}")
    return shorten(" ".join(found.split()), _REASON)


def _phase(entry: Any) -> Phase:
    place = "phase."
    return Phase(
        text(entry, "name", place),
        number(entry, "since", place),
        count(entry, "asked", place),
        count(entry, "answered", place),
        count(entry, "failed", place),
    )


def _client(entry: Any, place: str) -> Client:
    return Client(
        node=text(entry, "node", place),
        name=text(entry, "name", place, default=""),
        state=_one_of(entry, "state", CLIENT_STATES, place),
        reason=_optional_text(entry, "reason", place),
        phase=_optional_text(entry, "phase", place),
        since=optional_number(entry, "since", place),
        seconds=_seconds(entry, place),
        **{
            name: optional_count(entry, name, place) or 0
            for name in (
                "bytes", "bytes_all", "answered_all", "refused_all", "lost_all", "ignored",
            )
        },
    )  # fmt: skip


def _record(entry: Any, place: str) -> Record:
    sizes = section(entry, "bytes", place, required=False)
    return Record(
        round=count(entry, "round", place, low=1),
        test_accuracy=reported_share(entry, "test_accuracy", place),
        test_loss=optional_number(entry, "test_loss", place),
        train_loss=optional_number(entry, "train_loss", place),
        pruning_rate=optional_number(entry, "pruning_rate", place, low=0, high=1),
        seconds=_seconds(entry, place),
        wall_seconds=optional_number(entry, "wall_seconds", place, low=0),
        upload=optional_count(sizes, "upload", f"{place}bytes."),
        download=optional_count(sizes, "download", f"{place}bytes."),
        participants=optional_count(entry, "participants", place),
        lost=optional_count(entry, "lost", place),
        weight=optional_count(entry, "weight", place),
        failed=_optional_text(entry, "failed", place),
    )


def _event(entry: Any, place: str) -> Event:
    return Event(
        at=number(entry, "at", place),
        kind=text(entry, "kind", place),
        round=optional_count(entry, "round", place),
        phase=_optional_text(entry, "phase", place),
        name=_optional_text(entry, "name", place),
        nbytes=optional_count(entry, "nbytes", place),
        text=_optional_text(entry, "text", place) or "",
    )


def _seconds(entry: Any, place: str) -> dict[str, float]:
    found = section(entry, "seconds", place, required=False)
    if len(found) > _MOST_STEPS:
        raise UntrustedError(f"{place}seconds has more than {_MOST_STEPS} items")
    return {
        shorten(name, 30): value
        for name in found
        if (value := optional_number(found, name, f"{place}seconds.", low=0)) is not None
    }


def _facts(facts: Mapping[str, Any]) -> dict[str, str]:
    """Names and values as text; what is nested stands with the rest, without names of folders."""
    shown: dict[str, str] = {}
    for name, value in facts.items():
        if name == "receipt":  # stands in the report
            continue
        for key, item in value.items() if isinstance(value, dict) else ((name, value),):
            if key not in NO_CHOICES and len(shown) < _MOST_FACTS:
                shown[shorten(key, 60)] = plain(item)
    return shown
