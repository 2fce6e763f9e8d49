"""QuanCrypt-FL's choices (arXiv 2411.05260): pruned, clipped to a common bound, quantized."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.method.clipping import clip_bounds, from_unit, mean_magnitudes, to_unit
from quancrypt_fl.method.fedavg import Clips, FedAvg
from quancrypt_fl.method.influence import distance, influence
from quancrypt_fl.method.pruning import (
    Mask,
    PruningSchedule,
    kept_count,
    shared_masks,
    zero_smallest,
)
from quancrypt_fl.method.roles import GlobalState, Tensors, Update
from quancrypt_fl.method.statistics import STATISTICS, StatisticsCode

__all__ = ["Layout", "QuanCrypt"]

Layout = Mapping[str, tuple[tuple[int, ...], float]]
"""Shape and clip bound of each tensor of an upload, in order."""


@dataclass(frozen=True, kw_only=True)
class QuanCrypt(FedAvg):
    """The choices that all participants of a run share.

    Attributes
    ----------
    statistics
        How mean magnitudes travel inside of a ciphertext.
    pruning
        Pruning schedule, or None to send every coordinate.
    mask
        ``"shared"``: chosen by the global weights, and not sent; ``"client"``: each client leaves
        out the smallest of what it would send, and sends zeros.
    clip_factor
        ``alpha``: the clip bound is ``alpha`` times the mean magnitude of what is kept.
    max_bound
        No clip bound is larger, whatever clients report.
    prune_global
        Clients set the smallest new global weights to zero, at the round's pruning rate.
    """

    statistics: StatisticsCode
    pruning: PruningSchedule | None = None
    mask: str = "shared"
    clip_factor: float = 3.0
    max_bound: float = math.inf
    prune_global: bool = False

    def at(self, t: int) -> Self:
        """With statistics of the tensors that travel in round ``t``."""
        if not self.turns:
            return self
        names = tuple(self.travelling(self.statistics.names, t))
        return replace(self, statistics=replace(self.statistics, names=names))

    def pruning_rate(self, t: int) -> float:
        """Pruning rate of round ``t``; 0 without pruning."""
        return self.pruning.rate(t) if self.pruning else 0.0

    def masks(self, state: GlobalState) -> dict[str, Mask]:
        """Step 2. A coordinate gains for the rounds that it sits out, unless what is left out is
        carried over, or whole weights travel.
        """
        if self.mask == "client":
            return super().masks(state)
        names = self.travelling(state.weights, state.round)
        weights = {name: state.weights[name] for name in names}
        masks = shared_masks(weights, self.pruning_rate(state.round), state.round)
        if self.error_feedback or self.update == "weights":
            return {name: Mask(mask.kept) for name, mask in masks.items()}
        return masks

    def prepare(self, tensors: Tensors, state: GlobalState, client: int) -> Tensors:
        """Step 4 with a mask of the client's own."""
        if self.mask == "shared":
            return super().prepare(tensors, state, client)
        rate = self.pruning_rate(state.round)
        return {name: zero_smallest(tensor, rate) for name, tensor in tensors.items()}

    def must_agree(self, state: GlobalState) -> bool:
        """Before a tensor's first updates; afterwards statistics come with the updates."""
        bounds = state.bounds or {}
        return any(name not in bounds for name in self.travelling(state.weights, state.round))

    def report(self, update: Update) -> tuple[Tensors, Clips]:
        """The digits of the update's mean magnitudes."""
        return {STATISTICS: self._digits(update)}, {STATISTICS: float(self.statistics.q_max)}

    def agreed(self, report: Tensors, weight: int) -> dict[str, float]:
        """``alpha`` times the weighted mean of the clients' mean magnitudes.

        Of a tensor that only some clients train, the mean is over those (:attr:`.FedAvg.factors`);
        of one that too few of them could, it is the smallest bound.
        """
        means = self.statistics.decode(report[STATISTICS], weight)
        means = {name: mean * self._factor(name) for name, mean in means.items()}
        return clip_bounds(means, self.clip_factor, self.max_bound)

    def outgoing(self, update: Update, state: GlobalState) -> tuple[Tensors, Clips]:
        """Tensors divided by their bounds, and the statistics for the next round's bounds."""
        assert state.bounds is not None
        bounds = state.bounds
        tensors = {name: to_unit(delta, bounds[name]) for name, delta in update.tensors.items()}
        clips = dict.fromkeys(tensors, 1.0)
        tensors[STATISTICS] = self._digits(update)
        clips[STATISTICS] = float(self.statistics.q_max)
        return tensors, clips

    def report_layout(self) -> Layout:
        """Shape and clip bound of what :meth:`report` gives."""
        return {STATISTICS: (self.statistics.shape, float(self.statistics.q_max))}

    def upload_layout(self, shapes: Mapping[str, tuple[int, ...]], t: int) -> Layout:
        """Shape and clip bound of what :meth:`outgoing` gives in round ``t``, for any weights.

        A summing side that knows no weights can tell by it what an upload has to look like.
        """
        return {**self._kept_layout(shapes, t, 1.0), **self.at(t).report_layout()}

    def _kept_layout(self, shapes: Mapping[str, tuple[int, ...]], t: int, bound: float) -> Layout:
        """Shape of what is sent of each tensor in round ``t``, and the clip bound of all."""
        rate = self.pruning_rate(t) if self.mask == "shared" else 0.0
        names = self.travelling(shapes, t)
        return {name: ((kept_count(shapes[name], rate, t),), bound) for name in names}

    def sent(self, quantized: Tensors, state: GlobalState) -> Tensors:
        """Quantized values times their bounds."""
        assert state.bounds is not None
        bounds = state.bounds
        return {
            name: from_unit(values, bounds[name])
            for name, values in quantized.items()
            if name != STATISTICS
        }

    def incoming(
        self, mean: Tensors, weight: int, state: GlobalState
    ) -> tuple[Tensors, dict[str, float] | None]:
        """Means times their bounds; the bounds that the clients' statistics set.

        A tensor that nobody could train keeps its bound.
        """
        nobody = {name for name, factor in self.factors.items() if factor == 0}
        bounds = self.agreed(mean, weight)
        return self.sent(mean, state), {n: b for n, b in bounds.items() if n not in nobody}

    def of_able(self, mean: Tensors, state: GlobalState) -> Tensors:
        """See :meth:`.FedAvg.of_able`. A mean of clipped values is within the clip bound; what is
        beyond it comes of clients that should have sent zeros.
        """
        bounds = self.bounds_of(state)
        return {
            name: np.clip(tensor, -np.float32(bounds[name]), np.float32(bounds[name]))
            for name, tensor in super().of_able(mean, state).items()
        }

    def finish(self, weights: Tensors, t: int) -> Tensors:
        """Step 9: prune the global model, where asked to."""
        if not self.prune_global:
            return weights
        rate = self.pruning_rate(t)
        return {name: zero_smallest(tensor, rate) for name, tensor in weights.items()}

    def bounds_of(self, state: GlobalState) -> Mapping[str, float]:
        """Clip bound of each tensor that travels in the round that begins with ``state``."""
        assert state.bounds is not None
        return state.bounds

    def influence(
        self,
        before: GlobalState,
        after: GlobalState,
        masks: Mapping[str, Mask],
        share: float,
        scale: float,
    ) -> dict[str, Any] | None:
        """See :func:`quancrypt_fl.method.influence.influence`.

        ``next_bound`` is the largest clip bound of the next round that one client's statistics can
        bring about, if its digits are in range; None where bounds are fixed.
        """
        bounds = self.bounds_of(before)
        figures = influence(
            {name: bound * min(self._factor(name), 1 / share) for name, bound in bounds.items()},
            masks,
            share,
            factor=self.outer.factor * scale,
            update_l2=distance(after.weights, before.weights),
        )
        most = max(1.0, *map(self._factor, bounds))
        return {**figures, "next_bound": self._next_bound(most * share)}

    def _factor(self, name: str) -> float:
        return self.factors.get(name, 1.0)

    def _next_bound(self, share: float) -> float | None:
        return min(self.clip_factor * share * self.statistics.largest, self.max_bound)

    def _digits(self, update: Update) -> NDArray[np.float32]:
        """Mean magnitudes over kept coordinates, as digits."""
        means = mean_magnitudes(update.tensors)
        if self.mask == "client":  # zeros stand for what was left out
            for name, tensor in update.tensors.items():
                means[name] *= tensor.size / max(1, int(np.count_nonzero(tensor)))
        return self.statistics.encode(means)
