"""What passes between parties, seen from outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest
from safetensors.numpy import load

from quancrypt_fl import Simulation
from quancrypt_fl.engines.parties import Sides
from quancrypt_fl.method.quancrypt import QuanCrypt
from quancrypt_fl.method.roles import ClientSide, Sealed

Tensors = Mapping[str, np.ndarray]
STATISTICS = "quancrypt.mean_magnitudes"


@dataclass
class Uploads:
    """Everything that clients trained and uploaded in a run, by (client, round).

    Attributes
    ----------
    changes
        Trained weights minus the weights that training began with.
    protected
        Tensors as handed over for protection, statistics among them.
    opened
        The uploads, opened one by one with the clients' key, times the round's clip bounds.
    reports
        Bytes of reports; ``updates``: bytes of updates.
    """

    changes: dict[tuple[int, int], Tensors] = field(default_factory=dict)
    protected: dict[tuple[int, int], Tensors] = field(default_factory=dict)
    opened: dict[tuple[int, int], Tensors] = field(default_factory=dict)
    bounds: dict[tuple[int, int], Mapping[str, float]] = field(default_factory=dict)
    reports: dict[tuple[int, int], int] = field(default_factory=dict)
    updates: dict[tuple[int, int], int] = field(default_factory=dict)


@dataclass
class _Side:
    inner: ClientSide
    client: int
    uploads: Uploads
    agreed: list[Mapping[str, float]]
    report: bool

    def protect(self, tensors: Tensors, clips: Mapping[str, float], t: int) -> Sealed:
        sealed = self.inner.protect(tensors, clips, t)
        key = self.client, t
        if self.report:
            self.uploads.reports[key] = len(sealed.data)
            return sealed
        self.uploads.updates[key] = len(sealed.data)
        self.uploads.protected[key] = dict(tensors)
        bounds = self.uploads.bounds[key] = self.agreed[-1] if self.agreed else {}
        opened = self.inner.unprotect(sealed.data)[0] if bounds else load(sealed.data)
        self.uploads.opened[key] = {
            name: values * np.float32(bounds.get(name, 1.0))
            for name, values in opened.items()
            if name != STATISTICS
        }
        return sealed

    def unprotect(self, data: bytes) -> tuple[Tensors, int]:
        return self.inner.unprotect(data)

    def quantized(self, tensors: Tensors, clips: Mapping[str, float], t: int) -> Tensors:
        return self.inner.quantized(tensors, clips, t)


def watch(simulation: Simulation, monkeypatch: pytest.MonkeyPatch) -> Uploads:
    """Watch a simulation that has not begun."""
    uploads = Uploads()
    agreed: list[Mapping[str, float]] = []
    original, train = QuanCrypt.agreed, simulation.task.trainer.train

    def agree(self: QuanCrypt, report: Tensors, weight: int) -> dict[str, float]:
        agreed.append(original(self, report, weight))
        return dict(agreed[-1])

    def trained(weights: Tensors, samples: object, t: int, client: int) -> tuple[Tensors, float]:
        after, loss = train(weights, samples, t, client)
        uploads.changes[client, t] = {n: after[n] - weights[n] for n in after}
        return after, loss

    monkeypatch.setattr(QuanCrypt, "agreed", agree)
    monkeypatch.setattr(simulation.task.trainer, "train", trained)
    for client in simulation._clients:
        sides = client.sides
        client.sides = Sides(
            _Side(sides.updates, client.index, uploads, agreed, report=False),
            _Side(sides.reports, client.index, uploads, agreed, report=True),
        )
    return uploads
