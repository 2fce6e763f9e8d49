"""What only a deployed run has: who took part in each round, and a state before there are results.

A ``status.json`` of a run that goes on, or that ended without results, becomes a document as far as
it goes; its values are checked by :func:`quancrypt_fl.report.runs.parse_run` like any others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quancrypt_fl.report.values import (
    UntrustedError,
    optional_count,
    optional_number,
    require_schema,
    section,
    text,
)

__all__ = ["ClientShare", "client_shares", "document_of", "is_over"]

STATUS_SCHEMA = 1
MAX_CLIENTS = 20_000  # of a round
_MOST_STEPS = 20


@dataclass(frozen=True, slots=True)
class ClientShare:
    """A client's part in a round. ``weight``: what its update counted, 0 if it did not."""

    name: str
    node: str
    weight: int
    samples: int | None
    seconds: Mapping[str, float]


def client_shares(entry: Any, place: str) -> tuple[ClientShare, ...]:
    """The list ``clients`` of a round, empty where there is none."""
    found = entry.get("clients")
    if found is None:
        return ()
    if not isinstance(found, list) or len(found) > MAX_CLIENTS:
        raise UntrustedError(f"{place}clients is not a list of at most {MAX_CLIENTS:,} items")
    return tuple(_share(item, f"{place}clients[{i}].") for i, item in enumerate(found))


def _share(item: Any, place: str) -> ClientShare:
    node = text(item, "node", place, default="–")
    seconds = section(item, "seconds", place, required=False)
    if len(seconds) > _MOST_STEPS:
        raise UntrustedError(f"{place}seconds has more than {_MOST_STEPS} items")
    return ClientShare(
        name=text(item, "name", place, default=node),
        node=node,
        weight=optional_count(item, "weight", place) or 0,
        samples=optional_count(item, "samples", place),
        seconds={
            step: value
            for step in seconds
            if (value := optional_number(seconds, step, f"{place}seconds.", low=0)) is not None
        },
    )


def is_over(status: Any) -> bool:
    """Whether a status says that nothing more will happen."""
    return isinstance(status, Mapping) and status.get("state") in ("finished", "failed", "stopped")


def document_of(status: Any) -> dict[str, Any]:
    """A document of results as far as ``status`` goes.

    Raises
    ------
    UntrustedError
        If it is no status, or no round is finished.
    """
    require_schema(status, STATUS_SCHEMA)
    records = status.get("records")
    if not isinstance(records, list) or not records:
        raise UntrustedError("no round is finished yet")
    facts = dict(section(status, "facts", required=False))
    receipt = facts.pop("receipt", None)
    facts = _flat(facts)
    clients = status.get("clients")
    return {
        "schema": 1,
        "engine": "flower",
        "unfinished": not is_over(status),
        "method": _text(facts, "method") or "quancrypt",
        "dataset": _text(facts, "dataset"),
        "model": _text(facts, "model"),
        "clients": max(1, len(clients)) if isinstance(clients, list) else 1,
        "config": facts,
        "rounds": records,
        "receipt": receipt if isinstance(receipt, dict) else None,
        "totals": {
            name: value
            for name in ("parameters", "float32_update_bytes")
            if isinstance(value := facts.get(name), int) and not isinstance(value, bool)
        },
    }


def _text(facts: Mapping[str, Any], name: str) -> str | None:
    """Facts are whatever a strategy tells: one of another type is shown, and means nothing here."""
    value = facts.get(name)
    return value if isinstance(value, str) else None


def _flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in facts.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return flat
