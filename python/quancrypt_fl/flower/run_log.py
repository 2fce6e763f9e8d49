"""A run in Flower's log, for people: a line for each thing worth a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from logging import INFO, WARNING
from typing import Any

from flwr.common import log

from quancrypt_fl.flower.observing import RunObserver

__all__ = ["RunLog"]


class RunLog(RunObserver):
    """Writes to Flower's logger: progress as information, what went wrong as warnings."""

    def run_started(
        self, *, training: str, rounds: int, finished: int, facts: Mapping[str, Any]
    ) -> None:
        """A line for the training."""
        del facts
        since = f", going on after round {finished}" if finished else ""
        log(INFO, "training %s: %d rounds%s", training[:8], rounds, since)

    def round_started(self, *, round: int, asked: Mapping[int, str]) -> None:
        """A line for the round."""
        log(INFO, "round %d: %s", round, _listed(asked.values(), "client"))

    def phase_started(self, *, round: int, phase: str, asked: Sequence[int]) -> None:
        """A line for the phase."""
        log(INFO, "round %d: %s asked of %d", round, phase, len(asked))

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
        """A line for the reply."""
        del node
        spent = ", ".join(f"{what} {value:.2f} s" for what, value in seconds.items() if value)
        log(INFO, "round %d: %s: %s, %s bytes (%s)", round, name, phase, f"{nbytes:,}", spent)

    def refused(self, *, round: int, phase: str, node: int, name: str, reason: str) -> None:
        """A warning."""
        del node
        log(WARNING, "round %d: %s: %s refused: %s", round, name, phase, reason)

    def lost(self, *, round: int, phase: str, node: int, name: str, reason: str) -> None:
        """A warning."""
        del node
        log(WARNING, "round %d: %s: %s: %s", round, name, phase, reason)

    def ignored(self, *, round: int, node: int, name: str, reason: str) -> None:
        """A warning."""
        del node
        log(WARNING, "round %d: %s: a reply is ignored: %s", round, name, reason)

    def note(self, text: str) -> None:
        """The text."""
        log(INFO, "%s", text)

    def round_finished(self, record: Mapping[str, Any]) -> None:
        """A line for the result."""
        if record["failed"]:
            log(WARNING, "round %d failed: %s", record["round"], record["failed"])
            return
        accuracy = record["test_accuracy"]
        log(
            INFO,
            "round %d: %d of %d updates, weight %d%s",
            record["round"],
            record["participants"],
            record["participants"] + record["lost"],
            record["weight"],
            "" if accuracy is None else f", accuracy {accuracy:.2%}",
        )


def _listed(names: Any, noun: str, most: int = 8) -> str:
    names = list(names)
    shown = ", ".join(names[:most]) + (", ..." if len(names) > most else "")
    return f"{len(names)} {noun}{'' if len(names) == 1 else 's'} ({shown})"
