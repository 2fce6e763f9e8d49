"""One federated round of QuanCrypt-FL (arXiv 2411.05260), in the order in which it happens.

1. Clients hold the global weights ``w_t``; the summing side holds none.
2. The round's pruning mask follows from ``w_t`` and ``t`` (:mod:`.pruning`).
3. Each client trains on its own data and forms the difference ``delta_i = w_i - w_t``.
4. Pruned coordinates of the difference are dropped: neither encrypted nor sent.
5. The kept ones are clipped per tensor to a bound that all clients share (:mod:`.clipping`), agreed
   on under encryption (:mod:`.statistics`).
6. They are quantized to ``b`` bits,
7. packed and encrypted: steps 5 to 7 are one pass in the native package.
8. The summing side adds ciphertexts, weighted (:mod:`.weighting`). It has no secret key.
9. Clients decrypt the sum, form the mean, and update: ``w_{t+1} = (1 - lambda) * w_t + lambda *
   (w_t + mean)`` (:mod:`.smoothing`).
10. The new weights are evaluated (not here).

:func:`federated_round` runs them where all parts are in reach, as in a simulation. A deployment
calls the same halves, :func:`local_update`, :func:`protect` and :meth:`Method.apply`, where they
belong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.method.clipping import clip_bounds, from_unit, mean_magnitudes, to_unit
from quancrypt_fl.method.meter import RoundMeter
from quancrypt_fl.method.pruning import Mask, PruningSchedule, scatter, select, shared_masks
from quancrypt_fl.method.smoothing import smooth
from quancrypt_fl.method.statistics import STATISTICS, StatisticsCode
from quancrypt_fl.method.weighting import Share

__all__ = [
    "GlobalState",
    "Method",
    "Participant",
    "Sealed",
    "SummingSide",
    "Tensors",
    "Trained",
    "Update",
    "federated_round",
    "local_update",
    "protect",
]

Tensors = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class GlobalState:
    """What every client knows before a round, the same for all of them.

    Attributes
    ----------
    round
        Rounds finished so far, which is ``t`` of the round to come.
    weights
        Global weights ``w_t`` by tensor name.
    bounds
        Clip bound per tensor, or None before the clients have agreed on any.
    """

    round: int
    weights: Tensors
    bounds: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Trained:
    """Result of local training: weights by tensor name and the mean training loss."""

    weights: Tensors
    loss: float


@dataclass(frozen=True)
class Update:
    """A client's difference, kept coordinates only (one-dimensional), and how it counts."""

    tensors: Tensors
    share: Share
    samples: int
    loss: float


@dataclass(frozen=True)
class Sealed:
    """An upload as serialized; ``ciphertexts`` is 0 where nothing is encrypted."""

    data: bytes
    ciphertexts: int


class Participant(Protocol):
    """A client: it trains, and it alone can open what it and others protected."""

    @property
    def samples(self) -> int:
        """Number of training samples."""

    def train(self, state: GlobalState) -> Trained:
        """Train locally, starting from the global weights."""

    def protect(self, tensors: Tensors, clips: Mapping[str, float], t: int) -> Sealed:
        """Clip, quantize, encrypt and serialize named tensors for round ``t``."""

    def unprotect(self, data: bytes) -> tuple[Tensors, int]:
        """Means of the tensors of a serialized sum, and the sum's total weight."""


class SummingSide(Protocol):
    """The server: it adds what it cannot read."""

    def add(self, data: bytes, weight: int) -> None:
        """Add one serialized upload, ``weight`` times."""

    def result(self) -> bytes:
        """The sum of the uploads since the last call, serialized."""


@dataclass(frozen=True)
class Method:
    """The choices that all participants of a run share.

    Attributes
    ----------
    shares
        From the sample counts of a round's participants to their shares.
    pruning
        Pruning schedule, or None to send every coordinate.
    statistics
        How statistics travel, or None for a method that neither clips nor quantizes.
    clip_factor
        ``alpha``: the clip bound is ``alpha`` times the mean magnitude.
    smoothing
        ``lambda`` in ``(0, 1]``.
    """

    shares: Callable[[Sequence[int]], list[Share]]
    pruning: PruningSchedule | None = None
    statistics: StatisticsCode | None = None
    clip_factor: float = 3.0
    smoothing: float = 1.0

    def pruning_rate(self, t: int) -> float:
        """Pruning rate of round ``t``; 0 without pruning."""
        return self.pruning.rate(t) if self.pruning else 0.0

    def masks(self, state: GlobalState) -> dict[str, Mask]:
        """Step 2: the mask of each tensor for the round to come."""
        return shared_masks(state.weights, self.pruning_rate(state.round), state.round)

    def apply(
        self, state: GlobalState, mean: Tensors, weight: int, masks: Mapping[str, Mask]
    ) -> GlobalState:
        """Step 9: the state after a round, from the decrypted mean and its total weight."""
        weights = {}
        for name, before in state.weights.items():
            kept = mean[name]
            if state.bounds is not None:
                kept = from_unit(kept, state.bounds[name])
            weights[name] = smooth(before, before + scatter(kept, masks[name]), self.smoothing)
        return GlobalState(state.round + 1, weights, self.bounds_from(mean, weight))

    def bounds_from(self, mean: Tensors, weight: int) -> dict[str, float] | None:
        """Clip bounds from the statistics that came with a decrypted mean."""
        if self.statistics is None:
            return None
        means = self.statistics.decode(mean[STATISTICS], weight)
        return clip_bounds(means, self.clip_factor)


def federated_round(
    state: GlobalState,
    clients: Sequence[Participant],
    server: SummingSide,
    method: Method,
    meter: RoundMeter,
) -> GlobalState:
    """Run one round and return the state after it; times and bytes go to ``meter``.

    Updates are made, sent and added one by one, so that one is in memory at a time; only the first
    round holds all of them while the clients agree on clip bounds.
    """
    masks = method.masks(state)
    shares = method.shares([client.samples for client in clients])
    updates: Iterable[Update] = (
        local_update(client, share, state, masks, meter)
        for client, share in zip(clients, shares, strict=True)
    )
    if method.statistics is not None and state.bounds is None:
        updates = list(updates)
        state = replace(state, bounds=_agree_on_bounds(clients, updates, server, method, meter))

    for client, update in zip(clients, updates, strict=True):
        with meter.phase("protect"):
            upload = protect(client, update, state, method)
        meter.uploaded(len(upload.data), upload.ciphertexts)
        with meter.phase("aggregate"):
            server.add(upload.data, update.share.weight)
    with meter.phase("aggregate"):
        total = server.result()
    meter.downloaded(len(total))
    with meter.phase("unprotect"):
        mean, weight = clients[0].unprotect(total)
        return method.apply(state, mean, weight, masks)


def local_update(
    client: Participant,
    share: Share,
    state: GlobalState,
    masks: Mapping[str, Mask],
    meter: RoundMeter,
) -> Update:
    """Steps 3 and 4: train, and keep what the mask keeps of the (scaled) difference."""
    with meter.phase("train"):
        trained = client.train(state)
    with meter.phase("protect"):
        tensors = {
            name: select(trained.weights[name] - before, masks[name])
            for name, before in state.weights.items()
        }
        if share.scale != 1.0:
            tensors = {name: delta * np.float32(share.scale) for name, delta in tensors.items()}
    meter.trained(trained.loss, client.samples)
    return Update(tensors, share, client.samples, trained.loss)


def protect(client: Participant, update: Update, state: GlobalState, method: Method) -> Sealed:
    """Steps 5 to 7: the update and its statistics, as the client uploads them."""
    if method.statistics is None or state.bounds is None:
        return client.protect(update.tensors, {}, state.round)
    digits = method.statistics.encode(mean_magnitudes(update.tensors))
    bounds = state.bounds
    tensors = {name: to_unit(delta, bounds[name]) for name, delta in update.tensors.items()}
    clips = dict.fromkeys(tensors, 1.0)
    tensors[STATISTICS] = digits
    clips[STATISTICS] = float(method.statistics.q_max)
    return client.protect(tensors, clips, state.round)


def _agree_on_bounds(
    clients: Sequence[Participant],
    updates: Sequence[Update],
    server: SummingSide,
    method: Method,
    meter: RoundMeter,
) -> dict[str, float] | None:
    """The exchange of statistics alone that precedes the first round."""
    if method.statistics is None:
        return None
    clips = {STATISTICS: float(method.statistics.q_max)}
    for client, update in zip(clients, updates, strict=True):
        with meter.phase("protect"):
            digits = method.statistics.encode(mean_magnitudes(update.tensors))
            upload = client.protect({STATISTICS: digits}, clips, 0)
        meter.uploaded(len(upload.data), upload.ciphertexts)
        with meter.phase("aggregate"):
            server.add(upload.data, update.share.weight)
    with meter.phase("aggregate"):
        total = server.result()
    meter.downloaded(len(total))
    with meter.phase("unprotect"):
        return method.bounds_from(*clients[0].unprotect(total))
