"""What is known of a run at the moment, as one document (schema 1), and what happened, as events.

Public facts only: what the server knows, which is no key and no model. Times are seconds since
1970. Nodes are text, for they are larger than the whole numbers that JavaScript tells apart.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from quancrypt_fl.flower.observing import RunObserver

__all__ = ["SCHEMA", "RunStatus"]

SCHEMA = 1
MOST_RECORDS = 1_000  # of rounds; of older ones every other is left out, again and again
MOST_CLIENTS = 10_000
MOST_EVENTS = 50
_NAME, _REASON, _TEXT = 100, 500, 1_000  # characters: names and reasons come from others

Document = dict[str, Any]


class RunStatus(RunObserver):
    """Keeps the document; subclasses say where it goes.

    Parameters
    ----------
    clock
        For tests.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._events: deque[Document] = deque(maxlen=MOST_EVENTS)
        self._clients: dict[int, Document] = {}
        self._document: Document = _blank()

    def document(self) -> Document:
        """The document as it is now; shares parts with the state, so it is not kept."""
        return {
            **self._document,
            "updated": round(self._clock(), 3),
            "clients": list(self._clients.values()),
            "events": list(self._events),
        }

    def earlier(self) -> Any:
        """The document that an earlier server left, if any."""
        return None

    def changed(self, *, urgent: bool = False) -> None:
        """The document has changed; urgent: a phase or a round begins or ends."""

    def happened(self, event: Mapping[str, Any]) -> None:
        """Something for the list of events."""

    # --- what the run tells ---

    def run_started(
        self, *, training: str, rounds: int, finished: int, facts: Mapping[str, Any]
    ) -> None:
        """Begin, or go on with what an earlier server wrote about the same training."""
        now = self._clock()
        with self._lock:
            earlier = self._accept(self.earlier(), training)
            self._document = {
                **_blank(),
                "training": training,
                "state": "waiting",
                "started": earlier.get("started", now),
                "rounds": rounds,
                "round": finished,
                "finished": finished,
                "facts": _plain(facts),
                "records": [r for r in earlier.get("records", []) if r["round"] <= finished],
                "totals": {**_blank()["totals"], **earlier.get("totals", {})},
            }
            self._clients = {
                int(entry["node"]): {**entry, "state": "idle", "reason": None, "phase": None}
                for entry in earlier.get("clients", [])
            }
            self._events.clear()
            self._events.extend(earlier.get("events", []))
            how = "started" if not finished else f"goes on after round {finished} of {rounds}"
            self._event("run", f"training {training[:8]} {how}")
            self.changed(urgent=True)

    def waiting(self, *, connected: int, needed: int) -> None:
        """Say for how many clients the run waits."""
        with self._lock:
            changed = (self._document["connected"], self._document["needed"]) != (connected, needed)
            self._document |= {"state": "waiting", "connected": connected, "needed": needed}
            if changed:
                self._event("waiting", f"{connected} of {needed} clients are connected")
            self.changed()

    def round_started(self, *, round: int, asked: Mapping[int, str]) -> None:
        """Begin a round."""
        with self._lock:
            self._document |= {
                "state": "training",
                "round": round,
                "round_started": self._clock(),
                "connected": None,
                "needed": None,
            }
            for client in self._clients.values():
                client |= {"state": "idle", "reason": None, "phase": None}
            for node, name in asked.items():
                self._client(node, name)
            self._bound_clients()
            self._event("round", f"round {round} starts with {len(asked)} clients", round=round)
            self.changed(urgent=True)

    def phase_started(self, *, round: int, phase: str, asked: Sequence[int]) -> None:
        """Begin a phase with clients that have been asked."""
        now = self._clock()
        with self._lock:
            self._document["phase"] = {
                "name": phase,
                "since": now,
                "asked": len(asked),
                "answered": 0,
                "failed": 0,
            }
            for node in asked:
                client = self._client(node)
                client |= {"state": "asked", "reason": None, "phase": phase, "since": now}
            self.changed(urgent=True)

    def answered(
        self,
        *,
        round: int,
        phase: str,
        node: int,
        name: str,
        seconds: Mapping[str, float],
        nbytes: int,
    ) -> None:
        """Count a reply."""
        with self._lock:
            client = self._settle(node, name, phase, "answered", None)
            client["seconds"] = _plain(dict(list(seconds.items())[:20]))
            client["bytes"] = nbytes
            client["bytes_all"] += nbytes
            self._document["totals"]["received"] += nbytes
            about = {"round": round, "phase": phase, "name": name, "node": node}
            self._event("answered", "answered", **about, nbytes=nbytes)
            self.changed()

    def refused(self, *, round: int, phase: str, node: int, name: str, reason: str) -> None:
        """Count a refusal."""
        with self._lock:
            self._settle(node, name, phase, "refused", reason)
            about = {"round": round, "phase": phase, "name": name, "node": node}
            self._event("refused", f"refused: {reason}", **about)
            self.changed()

    def envelope_refused(
        self, *, round: int, phase: str, node: int, reason: str, member: str | None
    ) -> None:
        """Count it by its reason; the refusal itself is told next."""
        with self._lock:
            counts = self._document["totals"]["envelopes"]
            counts[reason] = counts.get(reason, 0) + 1

    def lost(self, *, round: int, phase: str, node: int, name: str, reason: str) -> None:
        """Count a loss."""
        with self._lock:
            self._settle(node, name, phase, "lost", reason)
            about = {"round": round, "phase": phase, "name": name, "node": node}
            self._event("lost", f"lost: {reason}", **about)
            self.changed()

    def ignored(self, *, round: int, node: int, name: str, reason: str) -> None:
        """Count a reply that counts for nothing else."""
        with self._lock:
            self._client(node, name)["ignored"] += 1
            self._document["totals"]["ignored"] += 1
            self._event("ignored", f"ignored: {reason}", round=round, name=name, node=node)
            self.changed()

    def note(self, text: str) -> None:
        """Keep a remark."""
        with self._lock:
            self._event("note", text)
            self.changed()

    def round_finished(self, record: Mapping[str, Any]) -> None:
        """Keep a round's record, without the list of its clients."""
        now = self._clock()
        kept = _plain({key: value for key, value in record.items() if key != "clients"})
        number, failed = int(record["round"]), record.get("failed")
        with self._lock:
            document = self._document
            started = document.get("round_started")
            wall = (
                kept["seconds"].pop("wall", None) if isinstance(kept.get("seconds"), dict) else None
            )
            if started is not None:  # with what came after the sum, such as evaluation
                wall = max(0.0, now - started)
            kept["wall_seconds"] = wall
            told = any(r["round"] == number for r in document["records"])
            records = [r for r in document["records"] if r["round"] < number]
            document["records"] = _thinned([*records, kept])
            document |= {"round": number, "finished": number, "phase": None, "round_started": None}
            if not told:  # a server that was restarted may tell its last round again
                self._add_to_totals(kept)
            text = f"round {number} failed: {failed}" if failed else _said(number, record)
            self._event("failed" if failed else "finished", text, round=number)
            self.changed(urgent=True)

    def run_finished(self, document: Mapping[str, Any] | None, error: str | None) -> None:
        """The last word."""
        with self._lock:
            failed = error is not None
            self._document |= {
                "state": "failed" if failed else "finished",
                "error": error and error[:_REASON],
                "phase": None,
                "round_started": None,
                "ended": self._clock(),
            }
            if not failed:
                for client in self._clients.values():
                    client |= {"state": "idle", "reason": None, "phase": None}
            self._event("run", f"the run failed: {error}" if failed else "the run is finished")
            self.changed(urgent=True)

    def run_stopped(self) -> None:
        """The last word, unless the run is gone on with."""
        with self._lock:
            self._document |= {
                "state": "stopped",
                "phase": None,
                "round_started": None,
                "ended": self._clock(),
            }
            for client in self._clients.values():
                client |= {"state": "idle", "reason": None, "phase": None}
            self._event("run", "the run was stopped")
            self.changed(urgent=True)

    # --- state ---

    def _client(self, node: int, name: str | None = None) -> Document:
        client = self._clients.setdefault(node, _blank_client(node))
        if name:
            client["name"] = name[:_NAME]
        return client

    def _settle(self, node: int, name: str, phase: str, state: str, reason: str | None) -> Document:
        """A client has answered, or will not: its entry, the phase's count and the totals."""
        client = self._client(node, name)
        running = self._document["phase"]
        if running and client["state"] == "asked":
            running["answered" if state == "answered" else "failed"] += 1
        client |= {
            "state": state,
            "reason": reason and reason[:_REASON],
            "phase": phase,
            "since": self._clock(),
        }
        client[f"{state}_all"] += 1
        self._document["totals"][state] += 1
        return client

    def _bound_clients(self) -> None:
        """Forget those that have not been heard of for longest, beyond :data:`MOST_CLIENTS`."""
        surplus = len(self._clients) - MOST_CLIENTS
        if surplus > 0:
            oldest = sorted(self._clients, key=lambda node: self._clients[node]["since"] or 0.0)
            for node in oldest[:surplus]:
                del self._clients[node]

    def _add_to_totals(self, record: Document) -> None:
        totals = self._document["totals"]
        totals["failed_rounds"] += bool(record.get("failed"))
        for group in ("seconds", "bytes"):
            values = record.get(group)
            for key, value in values.items() if isinstance(values, dict) else ():
                if isinstance(value, int | float):
                    totals[group][key] = totals[group].get(key, 0) + value

    def _event(self, kind: str, text: str, **about: Any) -> None:
        if "node" in about:
            about["node"] = str(about["node"])
        if "name" in about:
            about["name"] = about["name"][:_NAME]
        event = {"at": round(self._clock(), 3), "kind": kind, **about, "text": text[:_TEXT]}
        self._events.append(event)
        self.happened(event)

    @staticmethod
    def _accept(document: Any, training: str) -> Document:
        """``document`` if it is about the same training and sound, else an empty one."""
        try:
            sound = (
                document["schema"] == SCHEMA
                and document["training"] == training
                and document["totals"].keys() == _blank()["totals"].keys()
                and all(isinstance(record["round"], int) for record in document["records"])
                and all(
                    entry.keys() == _blank_client(int(entry["node"])).keys()
                    for entry in document["clients"]
                )
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            return {}
        return dict(document) if sound else {}


def _blank() -> Document:
    return {
        "schema": SCHEMA,
        "engine": "flower",
        "training": None,
        "state": "waiting",
        "error": None,
        "started": None,
        "ended": None,
        "updated": None,
        "rounds": 0,
        "round": 0,
        "finished": 0,
        "round_started": None,
        "phase": None,
        "connected": None,
        "needed": None,
        "facts": {},
        "clients": [],
        "records": [],
        "totals": {
            "seconds": {},
            "bytes": {},
            "received": 0,
            "answered": 0,
            "refused": 0,
            "lost": 0,
            "ignored": 0,
            "failed_rounds": 0,
            "envelopes": {},  # refused, by reason
        },
        "events": [],
    }


def _blank_client(node: int) -> Document:
    return {
        "node": str(node),
        "name": "",
        "state": "idle",
        "reason": None,
        "phase": None,
        "since": None,
        "seconds": {},
        "bytes": 0,
        "bytes_all": 0,
        "answered_all": 0,
        "refused_all": 0,
        "lost_all": 0,
        "ignored": 0,
    }


def _thinned(records: list[Document]) -> list[Document]:
    if len(records) <= MOST_RECORDS:
        return records
    half = len(records) // 2
    return [*records[:half:2], *records[half:]]


def _said(number: int, record: Mapping[str, Any]) -> str:
    accuracy, loss = record.get("test_accuracy"), record.get("train_loss")
    parts = [
        f"accuracy {accuracy:.2%}" if isinstance(accuracy, int | float) else "",
        f"training loss {loss:.4g}" if isinstance(loss, int | float) else "",
    ]
    return f"round {number} is finished" + "".join(f", {part}" for part in parts if part)


def _plain(value: Any, depth: int = 0) -> Any:
    """``value`` as JSON has it: what JSON lacks becomes text, NaN and infinities become null."""
    match value:
        case None | bool() | int():
            return value
        case str():
            return value[:_TEXT]
        case float():
            return value if math.isfinite(value) else None
        case Mapping() if depth < 6:
            return {str(k)[:_NAME]: _plain(v, depth + 1) for k, v in list(value.items())[:500]}
        case list() | tuple() if depth < 6:
            return [_plain(item, depth + 1) for item in value[:500]]
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:  # a NumPy scalar
        return _plain(value.item(), depth + 1)
    return str(value)[:_TEXT]
