"""Federated averaging, and the places where other methods differ from it.

:func:`quancrypt_fl.method.rounds.federated_round` calls these in the order of a round. Here every
one does what plain FedAvg does; :class:`~quancrypt_fl.method.quancrypt.QuanCrypt` and the baselines
override what they change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from quancrypt_fl.method.outer import Average, OuterOptimizer
from quancrypt_fl.method.pruning import Mask, keep_all, scatter
from quancrypt_fl.method.roles import GlobalState, Tensors, Update
from quancrypt_fl.method.weighting import Share, sample_shares

__all__ = ["FedAvg"]

Clips = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class FedAvg:
    """The choices that all participants of a run share.

    Attributes
    ----------
    shares
        From the sample counts of a round's participants to their shares.
    update
        ``"delta"``: clients send ``w_i - w_t``; ``"weights"``: they send ``w_i``.
    outer
        From the mean of a round to the new weights; see :mod:`.outer`.
    error_feedback
        Clients carry what was left out of an upload over to their next one.
    turns
        The names of the tensors that travel, for one round after the other and again from the
        first; the others stay as they are in that round. Empty: all travel in every round.
    factors
        Of tensors that only some clients can train, while the others send zeros: the weight of all
        whose updates are in the sum over the weight of those that can, so that the mean becomes
        theirs; 0 if too few of them are in it. All other tensors have 1. Only for differences.
    report_factors
        The same of the sum of reports that precedes updates: a client that reports may fall silent.
    """

    shares: Callable[[Sequence[int]], list[Share]] = sample_shares
    update: str = "delta"
    outer: OuterOptimizer = field(default_factory=Average)
    error_feedback: bool = False
    turns: tuple[frozenset[str], ...] = ()
    factors: Mapping[str, float] = field(default_factory=dict)
    report_factors: Mapping[str, float] = field(default_factory=dict)

    def travelling(self, names: Iterable[str], t: int) -> list[str]:
        """Those of ``names`` that travel in round ``t``, in their order."""
        if not self.turns:
            return list(names)
        turn = self.turns[t % len(self.turns)]
        return [name for name in names if name in turn]

    def at(self, t: int) -> Self:
        """The method as it is in round ``t``: of the tensors that travel then, and no others."""
        del t
        return self

    def pruning_rate(self, t: int) -> float:
        """Share of the coordinates that is left out of round ``t``."""
        del t
        return 0.0

    def masks(self, state: GlobalState) -> dict[str, Mask]:
        """The coordinates that clients send of each tensor that travels, the same for all."""
        names = self.travelling(state.weights, state.round)
        return {name: keep_all(state.weights[name].shape) for name in names}

    def prepare(self, tensors: Tensors, state: GlobalState, client: int) -> Tensors:
        """What one client does to its whole update by itself."""
        del state, client
        return tensors

    def must_agree(self, state: GlobalState) -> bool:
        """Whether clients exchange reports before this round's updates."""
        del state
        return False

    def report(self, update: Update) -> tuple[Tensors, Clips]:
        """What a client reports, and the clip bounds of these tensors."""
        raise NotImplementedError(f"{type(self).__name__} exchanges no reports")

    def agreed(self, report: Tensors, weight: int) -> dict[str, float]:
        """Clip bounds per tensor, from the opened sum of reports."""
        raise NotImplementedError(f"{type(self).__name__} exchanges no reports")

    def outgoing(self, update: Update, state: GlobalState) -> tuple[Tensors, Clips]:
        """The tensors that a client protects, and their clip bounds."""
        del state
        return update.tensors, {}

    def sent(self, quantized: Tensors, state: GlobalState) -> Tensors:
        """From quantized outgoing tensors back to what of the update has been sent."""
        del state
        return quantized

    def incoming(
        self, mean: Tensors, weight: int, state: GlobalState
    ) -> tuple[Tensors, dict[str, float] | None]:
        """From an opened sum to the mean update, and the clip bounds of the next round."""
        del weight, state
        return mean, None

    def influence(
        self,
        before: GlobalState,
        after: GlobalState,
        masks: Mapping[str, Mask],
        share: float,
        scale: float,
    ) -> dict[str, Any] | None:
        """What a client of so large a share can do at most; None if nothing bounds it."""
        del before, after, masks, share, scale
        return None

    def finish(self, weights: Tensors, t: int) -> Tensors:
        """What every client does to the new global weights of round ``t`` that travelled."""
        del t
        return weights

    def apply(
        self,
        state: GlobalState,
        mean: Tensors,
        weight: int,
        masks: Mapping[str, Mask],
        scale: float = 1.0,
    ) -> GlobalState:
        """The state after a round.

        Parameters
        ----------
        mean, weight
            Opened sum of the uploads that arrived, divided by their total weight, and this weight.
        masks
            See :meth:`masks`.
        scale
            Factor to the mean of clients that scaled their updates by their shares: not 1 where
            some of them have not arrived.
        """
        arrived, bounds = self.incoming(mean, weight, state)
        if scale != 1.0:
            arrived = {name: tensor * np.float32(scale) for name, tensor in arrived.items()}
        own = {name: arrived[name] for name in self.factors if name in arrived}
        return self.advance(state, {**arrived, **self.of_able(own, state)}, bounds, masks)

    def of_able(self, mean: Tensors, state: GlobalState) -> Tensors:
        """From means over all clients to means over those that can train these tensors."""
        del state
        return {name: tensor * np.float32(self.factors[name]) for name, tensor in mean.items()}

    def advance(
        self,
        state: GlobalState,
        mean: Tensors,
        bounds: Mapping[str, float] | None,
        masks: Mapping[str, Mask],
    ) -> GlobalState:
        """The state after a round, from the mean update and the clip bounds of the next round.

        Tensors that have not travelled keep their values, bounds and momentum.
        """
        weights, momentum = dict(state.weights), dict(state.momentum)
        for name in masks:
            before, values = state.weights[name], mean[name]
            if self.update == "weights":
                aggregate = before.copy()
                aggregate[masks[name].kept] = values
            else:
                aggregate = before + scatter(values, masks[name])
            weights[name], kept = self.outer.step(before, aggregate, momentum.get(name))
            if kept is not None:
                momentum[name] = kept
        if bounds is not None:
            bounds = {**(state.bounds or {}), **bounds}
        after = {**weights, **self.finish({name: weights[name] for name in masks}, state.round)}
        return GlobalState(state.round + 1, after, bounds, momentum)
