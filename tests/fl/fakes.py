"""Participants whose training is made up: any update, at no cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from quancrypt_fl import QuanCryptConfig
from quancrypt_fl.engines.arrangements import arrange
from quancrypt_fl.engines.parties import Parties, Sides
from quancrypt_fl.method.meter import RoundMeter
from quancrypt_fl.method.roles import ClientMemory, ClientSide, GlobalState, Trained
from quancrypt_fl.method.rounds import federated_round

Tensors = Mapping[str, np.ndarray]


@dataclass
class FakeClient:
    """Its training adds ``change`` to what it is given."""

    index: int
    sides: Sides
    change: Tensors
    samples: int = 1
    memory: ClientMemory = field(default_factory=lambda: ClientMemory({}, {}))

    @property
    def updates(self) -> ClientSide:
        return self.sides.updates

    @property
    def reports(self) -> ClientSide:
        return self.sides.reports

    def train(self, state: GlobalState) -> Trained:
        return Trained({n: w + self.change[n] for n, w in state.weights.items()}, 1.0)


@dataclass
class FakeFederation:
    """A method at work on made-up updates, one per client."""

    parties: Parties
    clients: list[FakeClient]
    state: GlobalState

    def round(self) -> RoundMeter:
        meter = RoundMeter()
        self.state = federated_round(
            self.state, self.clients, self.parties.server, self.parties.method, meter
        )
        return meter


def federation(
    weights: Tensors,
    changes: list[Tensors],
    samples: Callable[[int], int] = lambda _: 1,
    **choices: Any,
) -> FakeFederation:
    config = QuanCryptConfig(clients=len(changes), **choices).resolved()
    parties = arrange(config, weights)
    clients = [FakeClient(i, parties.sides(i), c, samples(i)) for i, c in enumerate(changes)]
    return FakeFederation(parties, clients, GlobalState(0, weights))
