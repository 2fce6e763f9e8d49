"""Who wants to follow a run on Flower: what the strategy tells, step by step.

Rounds count from 1. A node is Flower's number of a client (a random 64-bit integer), a name what
the client calls itself. Observers come second: one that fails is dropped with a logged warning, and
the training goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["RunObserver", "RunObservers"]

_log = logging.getLogger(__name__)


class RunObserver:
    """Does nothing at every step; subclasses override what they care about."""

    def run_started(
        self, *, training: str, rounds: int, finished: int, facts: Mapping[str, Any]
    ) -> None:
        """The run of ``rounds`` rounds begins, or goes on after ``finished`` of them."""

    def waiting(self, *, connected: int, needed: int) -> None:
        """Too few clients are connected; told again whenever their number changes."""

    def round_started(self, *, round: int, asked: Mapping[int, str]) -> None:
        """A round begins with the clients ``asked``: names by node."""

    def phase_started(self, *, round: int, phase: str, asked: Sequence[int]) -> None:
        """Messages went out: train, report, upload, train+upload, open, evaluate or finish.

        ``ceremony`` comes before the first round, for each message of making a joint key.
        """

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
        """A client's reply of ``nbytes`` bytes is accepted; its own ``seconds`` by step."""

    def refused(self, *, round: int, phase: str, node: int, name: str, reason: str) -> None:
        """A client sent an error, or a reply that is not accepted."""

    def envelope_refused(
        self, *, round: int, phase: str, node: int, reason: str, member: str | None
    ) -> None:
        """An envelope is refused: why, in a word, and whose it says it is. ``refused`` follows."""

    def lost(self, *, round: int, phase: str, node: int, name: str, reason: str) -> None:
        """A client did not answer in time."""

    def ignored(self, *, round: int, node: int, name: str, reason: str) -> None:
        """A reply came late or twice and counts for nothing."""

    def note(self, text: str) -> None:
        """Something else that a person who watches should know."""

    def round_finished(self, record: Mapping[str, Any]) -> None:
        """A round is over: its entry in ``results.json``, with ``weight`` and ``failed``."""

    def run_finished(self, document: Mapping[str, Any] | None, error: str | None) -> None:
        """The run is over: the document of ``results.json``, or why there is none."""

    def run_stopped(self) -> None:
        """Somebody stopped the run before its end; it can be gone on with."""


class RunObservers(RunObserver):
    """Several observers as one; one that raises is dropped, and the others still hear of it."""

    def __init__(self, *observers: RunObserver) -> None:
        self._observers = list(observers)

    def _tell(self, tell: Callable[[RunObserver], None]) -> None:
        for observer in list(self._observers):
            try:
                tell(observer)
            except Exception:  # the training must not end with one who only watches
                _log.warning("%s failed and is dropped", type(observer).__name__, exc_info=True)
                self._observers.remove(observer)

    def run_started(
        self, *, training: str, rounds: int, finished: int, facts: Mapping[str, Any]
    ) -> None:
        """Tell all of them."""
        self._tell(
            lambda o: o.run_started(
                training=training, rounds=rounds, finished=finished, facts=facts
            )
        )

    def waiting(self, *, connected: int, needed: int) -> None:
        """Tell all of them."""
        self._tell(lambda o: o.waiting(connected=connected, needed=needed))

    def round_started(self, *, round: int, asked: Mapping[int, str]) -> None:
        """Tell all of them."""
        self._tell(lambda o: o.round_started(round=round, asked=asked))

    def phase_started(self, *, round: int, phase: str, asked: Sequence[int]) -> None:
        """Tell all of them."""
        self._tell(lambda o: o.phase_started(round=round, phase=phase, asked=asked))

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
        """Tell all of them."""
        self._tell(
            lambda o: o.answered(
                round=round, phase=phase, node=node, name=name, seconds=seconds, nbytes=nbytes
            )
        )

    def refused(self, *, round: int, phase: str, node: int, name: str, reason: str) -> None:
        """Tell all of them."""
        self._tell(
            lambda o: o.refused(round=round, phase=phase, node=node, name=name, reason=reason)
        )

    def envelope_refused(
        self, *, round: int, phase: str, node: int, reason: str, member: str | None
    ) -> None:
        """Tell all of them."""
        self._tell(
            lambda o: o.envelope_refused(
                round=round, phase=phase, node=node, reason=reason, member=member
            )
        )

    def lost(self, *, round: int, phase: str, node: int, name: str, reason: str) -> None:
        """Tell all of them."""
        self._tell(lambda o: o.lost(round=round, phase=phase, node=node, name=name, reason=reason))

    def ignored(self, *, round: int, node: int, name: str, reason: str) -> None:
        """Tell all of them."""
        self._tell(lambda o: o.ignored(round=round, node=node, name=name, reason=reason))

    def note(self, text: str) -> None:
        """Tell all of them."""
        self._tell(lambda o: o.note(text))

    def round_finished(self, record: Mapping[str, Any]) -> None:
        """Tell all of them."""
        self._tell(lambda o: o.round_finished(record))

    def run_finished(self, document: Mapping[str, Any] | None, error: str | None) -> None:
        """Tell all of them."""
        self._tell(lambda o: o.run_finished(document, error))

    def run_stopped(self) -> None:
        """Tell all of them."""
        self._tell(lambda o: o.run_stopped())
