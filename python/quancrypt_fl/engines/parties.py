"""The two sides of a run: clients that hold data and keys, a server that holds neither."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.audit import secrets_within_reach
from quancrypt_fl.errors import FederatedError, MethodError
from quancrypt_fl.method.fedavg import FedAvg
from quancrypt_fl.method.roles import (
    ClientMemory,
    ClientSide,
    GlobalState,
    Opening,
    SummingSide,
    Tensors,
    Trained,
)

__all__ = ["Client", "LocalTrainer", "Parties", "Server", "Sides"]


class LocalTrainer(Protocol):
    """What trains in a client's place, and keeps nothing from one training to the next."""

    def train(
        self, weights: Tensors, samples: Any, t: int, client: int
    ) -> tuple[dict[str, NDArray[np.float32]], float]:
        """Weights trained on a client's samples in round ``t``, and the mean loss over them."""

    def warm_up(self) -> None:
        """Do what is done but once, so that it is not part of a round's time."""


@dataclass(frozen=True)
class Sides:
    """What a client holds of a method: its side of updates, and of the reports before them."""

    updates: ClientSide
    reports: ClientSide


@dataclass
class Client:
    """One simulated client: its samples, and its sides of the method's protection.

    All clients share one ``trainer``.

    Attributes
    ----------
    own_buffers
        Tensors that stay with the client, as all begin with them: local batch-norm statistics, or
        the state of an optimizer; usually none.
    """

    index: int
    data: Sized
    trainer: LocalTrainer
    sides: Sides
    own_buffers: Tensors
    on_trained: Callable[[], None]
    memory: ClientMemory = field(default_factory=lambda: ClientMemory({}, {}))

    @property
    def samples(self) -> int:
        """Number of training samples."""
        return len(self.data)

    @property
    def updates(self) -> ClientSide:
        """Its side of the round's updates."""
        return self.sides.updates

    @property
    def reports(self) -> ClientSide:
        """Its side of the reports before updates."""
        return self.sides.reports

    def train(self, state: GlobalState) -> Trained:
        """Train locally, starting from the global weights."""
        weights, loss = self.trainer.train(
            self.model(state.weights), self.data, state.round, self.index
        )
        if not math.isfinite(loss):
            raise MethodError(
                f"client {self.index}, round {state.round + 1}: local training diverged "
                f"(mean loss {loss})"
            )
        self.memory.buffers = {name: weights.pop(name) for name in self.own_buffers}
        self.on_trained()
        return Trained(weights, loss)

    def model(self, weights: Tensors) -> Tensors:
        """The global weights, with the client's own tensors."""
        return {**weights, **self.own_buffers, **self.memory.buffers}


@dataclass(frozen=True)
class Server:
    """The simulated server: all that it holds is what adds updates, and reports."""

    updates: SummingSide
    reports: SummingSide


@dataclass(frozen=True)
class Parties:
    """A method at work.

    Attributes
    ----------
    method
        What clients compute.
    server
        The summing side.
    sides
        From a client's index to what it holds.
    facts
        Facts for the receipt; empty without protection.
    key_id
        Fingerprint of the key of updates, or None.
    report_key_id
        Fingerprint of the key of reports, or None.
    secret_types
        Classes that the server must not reach.
    ceremony, report_ceremony
        Fingerprints of the ceremonies that made these keys, or None.
    opening
        How clients get to read a sum, or None where each has the key.
    least_arrivals
        Updates below which a sum must not be opened, whatever the configuration says.
    spent
        From rounds to the privacy loss after them, with noise; otherwise None.
    close
        Ends what the method has started, such as processes.
    """

    method: FedAvg
    server: Server
    sides: Callable[[int], Sides]
    facts: Mapping[str, Any] = field(default_factory=dict)
    key_id: str | None = None
    report_key_id: str | None = None
    secret_types: tuple[type, ...] = ()
    ceremony: str | None = None
    report_ceremony: str | None = None
    opening: Opening | None = None
    least_arrivals: int = 1
    spent: Callable[[int], float] | None = None
    close: Callable[[], None] = lambda: None

    def check_server(self) -> None:
        """Search the server for secrets; see :mod:`quancrypt_fl.audit`.

        Raises
        ------
        FederatedError
            If there is one: a run must not go on, nor its receipt be written.
        """
        found = secrets_within_reach(self.server, self.secret_types)
        if found:
            raise FederatedError(f"the summing side can reach secrets: {', '.join(found)}")
