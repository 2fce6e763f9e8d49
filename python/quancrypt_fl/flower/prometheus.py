"""The figures of a run for Prometheus: text format 0.0.4 over HTTP, on loopback unless asked.

Needs the extra ``prometheus``. Labels have few values on purpose: names of clients come from the
clients, so that only the first :data:`MOST_CLIENTS` of them get a series of their own.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from quancrypt_fl.errors import FederatedError
from quancrypt_fl.flower.observing import RunObserver

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["MetricsError", "PrometheusMetrics", "PrometheusServer"]

MOST_CLIENTS = 1_000
MOST_STEPS = 16  # names of what a client measured
OTHER = "other"
_STATES = ("waiting", "training", "finished", "failed", "stopped")
_SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0)
_LONGEST_NAME = 100


class MetricsError(FederatedError):
    """Metrics are asked for and cannot be served."""


class PrometheusMetrics(RunObserver):
    """Counts what a run tells, in a registry of its own.

    Counters begin at 0 when a server starts, as Prometheus expects.

    Parameters
    ----------
    clock
        Seconds since 1970, for tests.

    Raises
    ------
    MetricsError
        If prometheus_client is not installed.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        try:
            from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram
        except ImportError as error:
            raise MetricsError(
                "metrics need prometheus_client: pip install 'quancrypt-native[prometheus]'"
            ) from error
        self.registry: CollectorRegistry = CollectorRegistry()
        self._clock = clock
        self._names: set[str] = set()
        self._steps: set[str] = set()
        self._states: dict[int, str] = {}
        self._round_began: float | None = None

        def options(name: str, text: str) -> dict[str, Any]:
            about = {"name": f"quancrypt_{name}", "documentation": text}
            return {**about, "registry": self.registry}

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(**options(name, text), labelnames=labels)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(**options(name, text), labelnames=labels)

        def histogram(name: str, text: str, *labels: str) -> Histogram:
            return Histogram(**options(name, text), labelnames=labels, buckets=_SECONDS)

        self._state = Enum(**options("run_state", "What the run does."), states=list(_STATES))
        self._rounds = gauge("rounds", "Rounds that the run shall have.")
        self._round = gauge("round", "The running round, counted from 1.")
        self._finished = counter("rounds_finished", "Rounds that are over.", "result")
        self._round_seconds = histogram("round_seconds", "A round on the server's clock.")
        self._phases = histogram("phase_seconds", "A phase of a round.", "phase")
        self._client_seconds = histogram(
            "client_seconds", "What clients took for a step, on their clocks.", "step"
        )
        self._connected = gauge("clients_connected", "Clients connected while the run waits.")
        self._needed = gauge("clients_needed", "Clients that the run waits for.")
        self._clients = gauge("clients", "Clients of the running phase by state.", "state")
        self._replies = counter("replies", "What became of messages to clients.", "phase", "result")
        self._envelopes = counter(
            "envelopes_refused", "Replies refused before anything of them was parsed.", "reason"
        )
        self._received = counter("received_bytes", "Bytes of accepted replies.", "phase")
        self._last_answer = gauge(
            "client_last_answer_timestamp_seconds", "When a client's reply was accepted.", "client"
        )
        self._per_client = counter(
            "client_traffic_bytes", "Bytes of one client in finished rounds.", "direction"
        )
        self._weight = gauge("round_weight", "Total weight of the last round's sum.")
        self._figures = {
            name: gauge(name, text)
            for name, text in (
                ("test_accuracy", "Test accuracy of the last round that has one, 0 to 1."),
                ("test_loss", "Test loss of the last round that has one."),
                ("train_loss", "Mean training loss of the last round that has one."),
                ("pruning_rate", "Share of the weights that the last round left out."),
            )
        }
        for result in ("ok", "failed"):
            self._finished.labels(result=result)
        self._count_clients()

    # --- what the run tells ---

    def run_started(
        self, *, training: str, rounds: int, finished: int, facts: Mapping[str, Any]
    ) -> None:
        """Set the number of rounds."""
        self._state.state("waiting")
        self._rounds.set(rounds)
        self._round.set(finished)

    def waiting(self, *, connected: int, needed: int) -> None:
        """Set both numbers."""
        self._state.state("waiting")
        self._connected.set(connected)
        self._needed.set(needed)

    def round_started(self, *, round: int, asked: Mapping[int, str]) -> None:
        """Set the round, and the clock."""
        self._state.state("training")
        self._round.set(round)
        self._round_began = self._clock()

    def phase_started(self, *, round: int, phase: str, asked: Sequence[int]) -> None:
        """All that are asked have not answered."""
        self._states = dict.fromkeys(asked, "asked")
        self._count_clients()

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
        """Count a reply, its bytes and its times."""
        self._settle(node, phase, "answered")
        self._received.labels(phase=phase).inc(nbytes)
        known = self._known(self._names, (name or str(node))[:_LONGEST_NAME], MOST_CLIENTS)
        self._last_answer.labels(client=known).set(self._clock())
        for step, spent in seconds.items():
            valid = step if re.fullmatch(r"[a-z][a-z_+]{0,29}", step) else OTHER
            label = self._known(self._steps, valid, MOST_STEPS)
            if 0 <= spent < math.inf:
                self._client_seconds.labels(step=label).observe(spent)

    def refused(self, *, round: int, phase: str, node: int, name: str, reason: str) -> None:
        """Count it."""
        self._settle(node, phase, "refused")

    def envelope_refused(
        self, *, round: int, phase: str, node: int, reason: str, member: str | None
    ) -> None:
        """Count it by its reason, of which there are few."""
        self._envelopes.labels(reason=reason).inc()

    def lost(self, *, round: int, phase: str, node: int, name: str, reason: str) -> None:
        """Count it."""
        self._settle(node, phase, "lost")

    def ignored(self, *, round: int, node: int, name: str, reason: str) -> None:
        """Count it; the phase that it was meant for is over."""
        self._replies.labels(phase="over", result="ignored").inc()

    def round_finished(self, record: Mapping[str, Any]) -> None:
        """Take over the record's figures."""
        self._finished.labels(result="failed" if record.get("failed") else "ok").inc()
        if self._round_began is not None:
            self._round_seconds.observe(max(0.0, self._clock() - self._round_began))
            self._round_began = None
        for phase, spent in (record.get("seconds") or {}).items():
            if phase != "wall" and isinstance(spent, int | float):
                self._phases.labels(phase=phase).observe(spent)
        for direction, size in (record.get("bytes") or {}).items():
            if isinstance(size, int | float):
                self._per_client.labels(direction=direction).inc(size)
        for name, gauge in self._figures.items():
            if isinstance(value := record.get(name), int | float):
                gauge.set(value)
        if isinstance(weight := record.get("weight"), int | float):
            self._weight.set(weight)
        self._states = {}
        self._count_clients()

    def run_finished(self, document: Mapping[str, Any] | None, error: str | None) -> None:
        """Set the state."""
        self._end("finished" if error is None else "failed")

    def run_stopped(self) -> None:
        """Set the state."""
        self._end("stopped")

    def _end(self, state: str) -> None:
        self._state.state(state)
        self._states = {}
        self._count_clients()

    # --- labels ---

    def _settle(self, node: int, phase: str, state: str) -> None:
        result = "accepted" if state == "answered" else state
        self._replies.labels(phase=phase, result=result).inc()
        if (before := self._states.get(node)) is not None:
            self._clients.labels(state=before).dec()
        self._clients.labels(state=state).inc()
        self._states[node] = state

    def _count_clients(self) -> None:
        states = list(self._states.values())
        for state in ("asked", "answered", "refused", "lost"):
            self._clients.labels(state=state).set(states.count(state))

    @staticmethod
    def _known(seen: set[str], label: str, most: int) -> str:
        """``label``, or :data:`OTHER` once there are ``most`` different ones."""
        if label not in seen and len(seen) >= most:
            return OTHER
        seen.add(label)
        return label


class PrometheusServer:
    """Serves the metrics at ``/metrics`` until closed; a context manager.

    Parameters
    ----------
    metrics
        What to serve.
    port
        0: a free one; see the attribute.
    host
        Where to listen. Metrics name clients: open another address to your own network only.

    Raises
    ------
    MetricsError
        If the port is taken.
    """

    def __init__(self, metrics: PrometheusMetrics, port: int = 0, host: str = "127.0.0.1") -> None:
        from prometheus_client import start_http_server

        try:
            self._server, self._thread = start_http_server(
                port, addr=host, registry=metrics.registry
            )
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise MetricsError(f"metrics cannot be served at {host}:{port}: {reason}") from error
        self.host = host
        self.port = int(self._server.server_port)

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
