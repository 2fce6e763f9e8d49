"""Methods at work on one given update, outside of training: what timings and sizes are taken from.

The parties are those of a run (:func:`quancrypt_fl.engines.arrangements.arrange`), and so are the
steps; only training is replaced by an update that was drawn once and is the same for all methods.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.config import QuanCryptConfig
from quancrypt_fl.engines.arrangements import arrange
from quancrypt_fl.engines.parties import Sides
from quancrypt_fl.errors import MethodError
from quancrypt_fl.method.meter import RoundMeter
from quancrypt_fl.method.roles import ClientMemory, ClientSide, GlobalState, Tensors, Trained
from quancrypt_fl.method.rounds import local_update
from quancrypt_fl.method.updates import protect
from quancrypt_fl.models import build_model
from quancrypt_fl.seeds import generator

__all__ = ["IMAGES", "Sample", "Subject", "initial_weights", "update_of"]

IMAGES: Mapping[str, tuple[tuple[int, int, int], int]] = {
    "mlp": ((1, 8, 8), 10),
    "cnn": ((1, 28, 28), 10),
    "alexnet": ((3, 32, 32), 10),
    "resnet18": ((3, 32, 32), 10),
}
"""Image shape and number of classes for which each model is made here: the paper's."""

_UPDATE_SCALE = 1e-3  # mean magnitude of an update: about that of an epoch of Adam
_LEAST_CORRELATION = 0.9  # of an opened sum with the update, of which clipping cuts tails


def initial_weights(model: str) -> dict[str, NDArray[np.float32]]:
    """What travels of a model: every floating-point tensor of its state."""
    shape, classes = IMAGES[model]
    state = build_model(model, shape, classes).state_dict()
    return {
        name: tensor.detach().numpy().copy()
        for name, tensor in state.items()
        if tensor.is_floating_point()
    }


def update_of(weights: Tensors, seed: int) -> dict[str, NDArray[np.float32]]:
    """An update drawn from a Laplace distribution, as peaked as those of training are."""
    rng = generator(seed, "experiment-update")
    return {
        name: rng.laplace(0.0, _UPDATE_SCALE, tensor.shape).astype(np.float32)
        for name, tensor in weights.items()
    }


@dataclass(frozen=True)
class Sample:
    """Figures of one client's update.

    Attributes
    ----------
    seconds
        ``protect``: prepare, clip, quantize, encrypt, serialize; ``add``: parse and add one upload;
        ``unprotect``: parse, decrypt, dequantize, apply. Extrapolated where a share is measured.
    upload, download
        Serialized bytes of a client's update and of the sum, extrapolated likewise.
    reports
        Serialized bytes of what the client sends before updates (clip bounds), as they are.
    ciphertexts
        Of the upload, as measured.
    """

    seconds: Mapping[str, float]
    upload: float
    download: float
    reports: int
    ciphertexts: int


@dataclass
class _Rehearsing:
    """A client that has trained already."""

    index: int
    sides: Sides
    trained: Trained
    samples: int = 100
    memory: ClientMemory = field(default_factory=lambda: ClientMemory({}, {}))

    @property
    def updates(self) -> ClientSide:
        return self.sides.updates

    @property
    def reports(self) -> ClientSide:
        return self.sides.reports

    def train(self, state: GlobalState) -> Trained:
        del state
        return self.trained


class Subject:
    """One method with its parties, on a model's update or the first part of every tensor of it.

    Parameters
    ----------
    fields
        Fields of the configuration.
    weights, update
        Of the whole model.
    share
        Share of every tensor that is measured; results are extrapolated by the number of values.
    clock
        Tells the seconds of a sample: by default wall-clock time.
    """

    def __init__(
        self,
        fields: Mapping[str, Any],
        weights: Tensors,
        update: Tensors,
        share: float = 1.0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._clock = clock
        self.config = QuanCryptConfig(**fields).resolved()
        before = {name: _first(tensor, share) for name, tensor in weights.items()}
        self._update = {name: _first(tensor, share) for name, tensor in update.items()}
        values = sum(tensor.size for tensor in weights.values())
        self._factor = values / sum(tensor.size for tensor in before.values())
        self._parties = arrange(self.config, before)
        self._method = self._parties.method
        self._state = GlobalState(0, before)
        self._masks = self._method.masks(self._state)
        after = {name: before[name] + delta for name, delta in self._update.items()}
        self._client = _Rehearsing(0, self._parties.sides(0), Trained(after, 0.0))
        self._shares = self._method.shares([self._client.samples] * self.config.clients)
        self._reported = self._agree()

    def sample(self) -> Sample:
        """Protect the update once, add it for every client, and open the sum.

        Raises
        ------
        MethodError
            If what comes out is not the update, clipping and rounding aside.
        """
        meter = RoundMeter(clock=self._clock)
        client, state, method = self._client, self._state, self._method
        update = local_update(client, self._shares[0], state, method, self._masks, meter)
        with meter.phase("protect"):
            upload = protect(client, update, state, method, self._masks)
        server = self._parties.server.updates
        for share in self._shares:
            with meter.phase("aggregate"):
                server.add(upload.data, share.weight)
        total = server.result()
        with meter.phase("unprotect"):
            mean, weight = client.updates.unprotect(total)
            new = method.apply(state, mean, weight, self._masks)
        self._check(new.weights)
        seconds = {
            "protect": meter.seconds["protect"],
            "add": meter.seconds["aggregate"] / len(self._shares),
            "unprotect": meter.seconds["unprotect"],
        }
        return Sample(
            {name: value * self._factor for name, value in seconds.items()},
            len(upload.data) * self._factor,
            len(total) * self._factor,
            self._reported,
            upload.ciphertexts,
        )

    def close(self) -> None:
        """End what the method has started."""
        self._parties.close()

    def _agree(self) -> int:
        """Agree on clip bounds; returns the bytes of a client's report."""
        if not self._method.must_agree(self._state):
            return 0
        update = local_update(
            self._client, self._shares[0], self._state, self._method, self._masks, RoundMeter()
        )
        server, reported = self._parties.server.reports, 0
        for share in self._shares:
            report = self._client.reports.protect(*self._method.report(update), 0)
            server.add(report.data, share.weight)
            reported = len(report.data)
        bounds = self._method.agreed(*self._client.reports.unprotect(server.result()))
        self._state = replace(self._state, bounds=bounds)
        return reported

    def _check(self, weights: Tensors) -> None:
        """All clients have sent the same: the mean is their update, where it was kept."""
        sent, arrived = [], []
        for name, delta in self._update.items():
            mask = self._masks[name]
            kept = mask.kept.ravel()
            if mask.gain is not None:
                kept = kept.copy()
                kept[kept] = mask.gain == 1
            change = weights[name] - self._state.weights[name]
            sent.append(delta.ravel()[kept])
            arrived.append(change.ravel()[kept])
        correlation = float(np.corrcoef(np.concatenate(sent), np.concatenate(arrived))[0, 1])
        if not correlation >= self._least_correlation():
            raise MethodError(
                f"{self.config.method}: the opened sum has correlation {correlation:.3f} with the "
                "update that every client has sent"
            )

    def _least_correlation(self) -> float:
        """Few bits leave signs and zeros; masks of clients zero the update by its own size."""
        rough = self.config.bits < 4 or self.config.mask == "client"
        return 0.5 if rough else _LEAST_CORRELATION


def _first(tensor: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    """The first values of a tensor, at least one; the tensor itself for a share of 1."""
    if share >= 1.0:
        return tensor
    return tensor.ravel()[: max(1, math.ceil(tensor.size * share))].copy()
