"""Which coordinates are left out (steps 2, 4 and 9 of a round).

Pruning is unstructured and by L1 magnitude. By default the mask is *shared*: it is computed from
the global weights and the round's number, which every client knows, so that all clients find the
same one, no mask travels, and pruned coordinates are neither encrypted nor sent.

It is soft: pruned coordinates come back. A coordinate that nobody sends cannot grow, so the
smallest weights of one round would be the smallest of the next, and a fixed mask would freeze them
for good (MNIST, CNN, 10 clients, 8 rounds, one seed: 95.2 % against 95.6 % without pruning).
Therefore coordinates take turns: one in ``m`` is exempt from pruning in every round, each in its
turn, and an exempt coordinate that is small enough to be pruned in the other rounds counts ``m``
times, for the rounds that it sits out (95.8 %). ``m`` is 2 for rates up to one half.

A client's own mask, and pruning of the global model, simply set the smallest to zero.

As in ``torch.nn.utils.prune.l1_unstructured``, each tensor is pruned by itself. Tensors with fewer
than two dimensions (biases, scales) are few and sensitive and are never pruned.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.errors import MethodError

__all__ = [
    "Mask",
    "PruningSchedule",
    "keep_all",
    "kept_count",
    "prune_smallest",
    "scatter",
    "select",
    "shared_masks",
    "zero_smallest",
]

_PRUNED_FROM_DIMENSIONS = 2


@dataclass(frozen=True)
class Mask:
    """What a round does with the coordinates of one tensor.

    Attributes
    ----------
    kept
        True where a coordinate is sent; the shape of the tensor.
    gain
        How many rounds each kept coordinate stands for, in memory order, shape (kept,); None if all
        stand for one.
    """

    kept: NDArray[np.bool_]
    gain: NDArray[np.float32] | None = None

    @property
    def size(self) -> int:
        """Number of kept coordinates."""
        return int(np.count_nonzero(self.kept))


@dataclass(frozen=True)
class PruningSchedule:
    """The pruning rate over the rounds, from ``p_0`` up to ``p_target``.

    Parameters
    ----------
    p_0, p_target
        Rates before round ``t_eff`` and from round ``t_target`` on, in ``[0, 1)``.
    t_eff, t_target
        Rounds between which the rate rises linearly; ``t_eff < t_target``.
    """

    p_0: float = 0.2
    p_target: float = 0.5
    t_eff: int = 40
    t_target: int = 300

    def __post_init__(self) -> None:
        for name in ("p_0", "p_target"):
            rate = getattr(self, name)
            if not 0.0 <= rate < 1.0:
                raise MethodError(f"{name} = {rate}: a pruning rate is in [0, 1)")
        if self.p_0 > self.p_target:
            raise MethodError(f"p_0 = {self.p_0} is above p_target = {self.p_target}")
        if self.t_eff >= self.t_target:
            raise MethodError(
                f"t_eff = {self.t_eff} must be below t_target = {self.t_target}: "
                "the rate rises between these rounds"
            )

    def rate(self, t: int) -> float:
        """Rate of round ``t`` (counted from 0).

        The published rule ``p_0 + (p_target - p_0) * max(0, (t - t_eff) / (t_target - t_eff))``
        goes on rising after ``t_target``; here it stops at ``p_target``.
        """
        progress = (t - self.t_eff) / (self.t_target - self.t_eff)
        return self.p_0 + (self.p_target - self.p_0) * min(1.0, max(0.0, progress))


def keep_all(shape: tuple[int, ...]) -> Mask:
    """The mask that leaves nothing out."""
    return Mask(np.ones(shape, dtype=np.bool_))


def prune_smallest(tensor: NDArray[np.float32], rate: float, t: int) -> Mask:
    """Mask of ``tensor`` in round ``t`` at pruning rate ``rate``.

    Exactly ``floor(rate * size)`` coordinates are pruned, or all that are not exempt if they are
    fewer (rates within ``1 / size`` of 1): those of the smallest magnitude among the ones that are
    not exempt, the first in memory order where magnitudes are equal. The choice
    depends on values alone (a partial sort would break ties differently from one CPU to the next),
    so all clients agree on it.
    """
    turns = _turns(rate)
    count = tensor.size - _kept_count(tensor.size, rate, t)
    if count == 0:
        return keep_all(tensor.shape)
    exempt = (np.arange(tensor.size) + t) % turns == 0
    magnitude = np.abs(tensor).ravel()
    pruned, threshold = _smallest(magnitude, ~exempt, count)
    gain = np.where(exempt & (magnitude <= threshold), np.float32(turns), np.float32(1))
    return Mask(np.logical_not(pruned).reshape(tensor.shape), gain[~pruned])


def kept_count(shape: tuple[int, ...], rate: float, t: int) -> int:
    """Coordinates that :func:`shared_masks` keeps of a tensor: its values do not matter."""
    size = math.prod(shape)
    return _kept_count(size, rate, t) if len(shape) >= _PRUNED_FROM_DIMENSIONS else size


def _kept_count(size: int, rate: float, t: int) -> int:
    """What is left of ``size`` coordinates, of which every :func:`_turns`-th is exempt."""
    turns = _turns(rate)
    first = -t % turns  # the first exempt one
    exempt = max(0, -(-(size - first) // turns))
    return size - min(_pruned_count(size, rate), size - exempt)


def _turns(rate: float) -> int:
    """One coordinate in so many is exempt in a round."""
    return max(2, math.ceil(1 / (1 - rate) - 1e-9))


def zero_smallest(tensor: NDArray[np.float32], rate: float) -> NDArray[np.float32]:
    """``tensor`` with exactly ``floor(rate * size)`` coordinates of smallest magnitude at zero.

    Tensors with fewer than two dimensions come back as they are, like all at rate 0.
    """
    count = _pruned_count(tensor.size, _rate_of(tensor, rate))
    if count == 0:
        return tensor
    everywhere = np.ones(tensor.size, dtype=np.bool_)
    pruned, _ = _smallest(np.abs(tensor).ravel(), everywhere, count)
    return np.where(pruned.reshape(tensor.shape), np.float32(0), tensor)


def _pruned_count(size: int, rate: float) -> int:
    return math.floor(rate * size + 1e-9)


def _rate_of(tensor: NDArray[np.float32], rate: float) -> float:
    return rate if tensor.ndim >= _PRUNED_FROM_DIMENSIONS else 0.0


def _smallest(
    magnitude: NDArray[np.float32], candidates: NDArray[np.bool_], count: int
) -> tuple[NDArray[np.bool_], np.float32]:
    """Where the ``count`` smallest candidates are, the first of equal ones, and the largest."""
    threshold = np.partition(magnitude[candidates], count - 1)[count - 1]
    chosen = candidates & (magnitude < threshold)
    ties = np.flatnonzero(candidates & (magnitude == threshold))
    chosen[ties[: count - int(np.count_nonzero(chosen))]] = True
    return chosen, threshold


def shared_masks(
    weights: Mapping[str, NDArray[np.float32]], rate: float, t: int
) -> dict[str, Mask]:
    """The mask of every tensor of the global weights in round ``t`` at pruning rate ``rate``."""
    return {
        name: prune_smallest(tensor, _rate_of(tensor, rate), t) for name, tensor in weights.items()
    }


def select(tensor: NDArray[np.float32], mask: Mask) -> NDArray[np.float32]:
    """The kept coordinates of ``tensor`` in memory order, one-dimensional."""
    return tensor.ravel() if mask.size == tensor.size else tensor[mask.kept]


def scatter(values: NDArray[np.float32], mask: Mask) -> NDArray[np.float32]:
    """Put kept coordinates, times their gain, back in place, with zeros at the pruned ones.

    Returns the shape of the mask.
    """
    if mask.gain is None and mask.size == values.size == mask.kept.size:
        return values.reshape(mask.kept.shape)
    tensor = np.zeros(mask.kept.shape, dtype=np.float32)
    tensor[mask.kept] = values if mask.gain is None else values * mask.gain
    return tensor
