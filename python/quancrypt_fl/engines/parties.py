"""The two sides of a run, made from a configuration: clients that hold keys, a server that cannot.

A method's arrangement is decided here and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from quancrypt_fl.audit import secrets_within_reach
from quancrypt_fl.baselines.vanilla import PlainProtector, PlainSummer
from quancrypt_fl.config import QuanCryptConfig
from quancrypt_fl.data import Samples
from quancrypt_fl.errors import FederatedError, MethodError
from quancrypt_fl.method.pruning import shared_masks
from quancrypt_fl.method.rounds import (
    GlobalState,
    Method,
    Sealed,
    SummingSide,
    Tensors,
    Trained,
)
from quancrypt_fl.method.statistics import StatisticsCode
from quancrypt_fl.method.weighting import sample_shares, shares
from quancrypt_fl.protect import SECRET_TYPES, Protection
from quancrypt_fl.seeds import generator
from quancrypt_fl.training import Trainer

__all__ = ["Client", "Parties", "Server", "encrypted_parties", "plain_parties"]


class ClientSide(Protocol):
    """What protects and opens: see :class:`quancrypt_fl.protect.Protector`."""

    def protect(self, tensors: Tensors, clips: Mapping[str, float], t: int) -> Sealed:
        """Serialize an update so that it may leave the client."""

    def unprotect(self, data: bytes) -> tuple[Tensors, int]:
        """Open a sum."""


@dataclass(frozen=True)
class Client:
    """One simulated client: its samples, and its side of the method's protection.

    All clients share one ``trainer``, which keeps nothing from one training to the next.
    """

    index: int
    data: Samples
    trainer: Trainer
    side: ClientSide
    on_trained: Callable[[], None]

    @property
    def samples(self) -> int:
        """Number of training samples."""
        return len(self.data)

    def train(self, state: GlobalState) -> Trained:
        """Train locally, starting from the global weights."""
        weights, loss = self.trainer.train(state.weights, self.data, state.round, self.index)
        if not math.isfinite(loss):
            raise MethodError(
                f"client {self.index}, round {state.round + 1}: local training diverged "
                f"(mean loss {loss})"
            )
        self.on_trained()
        return Trained(weights, loss)

    def protect(self, tensors: Tensors, clips: Mapping[str, float], t: int) -> Sealed:
        """Serialize an update so that it may leave the client."""
        return self.side.protect(tensors, clips, t)

    def unprotect(self, data: bytes) -> tuple[Tensors, int]:
        """Open a sum."""
        return self.side.unprotect(data)


@dataclass(frozen=True)
class Server:
    """The simulated server: all that it holds is what adds updates."""

    summer: SummingSide

    def add(self, data: bytes, weight: int) -> None:
        """Add one serialized upload, ``weight`` times."""
        self.summer.add(data, weight)

    def result(self) -> bytes:
        """The sum of the uploads since the last call, serialized."""
        return self.summer.result()


@dataclass(frozen=True)
class Parties:
    """A method at work.

    Attributes
    ----------
    method
        What clients compute.
    server
        The summing side.
    side
        From a client's index to its protection.
    facts
        Facts for the receipt; empty without protection.
    key_id
        Fingerprint of the key, or None.
    """

    method: Method
    server: Server
    side: Callable[[int], ClientSide]
    facts: Mapping[str, Any] = field(default_factory=dict)
    key_id: str | None = None

    def check_server(self) -> None:
        """Search the server for secrets; see :mod:`quancrypt_fl.audit`.

        Raises
        ------
        FederatedError
            If there is one: a run must not go on, nor its receipt be written.
        """
        found = secrets_within_reach(self.server, SECRET_TYPES)
        if found:
            raise FederatedError(f"the summing side can reach secrets: {', '.join(found)}")


def encrypted_parties(config: QuanCryptConfig, weights: Tensors) -> Parties:
    """QuanCrypt-FL: one secret key among the clients, public parameters for the server.

    ``config`` has its defaults filled in; ``weights`` give the size of an update.
    """
    assert config.max_weight is not None
    max_weight = config.max_weight

    code = StatisticsCode(tuple(weights), config.bits, max_weight)
    method = Method(
        shares=lambda counts: shares(config.weighting, counts, max_weight),
        pruning=config.schedule() if config.pruning else None,
        statistics=code,
        clip_factor=config.clip_factor,
        smoothing=config.smoothing,
    )
    masks = shared_masks(weights, method.pruning_rate(0), t=0)
    protection = Protection(
        bits=config.bits,
        max_weight=max_weight,
        security=config.security,
        values=sum(mask.size for mask in masks.values()) + code.shape[0] * code.shape[1],
    )

    def side(client: int) -> ClientSide:
        return protection.client(
            config.rounding, lambda t: generator(config.seed, "rounding", t, client)
        )

    return Parties(method, Server(protection.server()), side, protection.facts(), protection.key_id)


def plain_parties() -> Parties:
    """Vanilla FedAvg: nothing is pruned, clipped, quantized or encrypted."""
    return Parties(
        Method(shares=sample_shares),
        Server(PlainSummer()),
        lambda client: PlainProtector(),
    )
