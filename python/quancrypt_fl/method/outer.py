"""What clients do with the mean of a round: step 9, between the opened sum and the new weights.

FedAvg replaces the weights by the clients' average (:class:`Average`). DiLoCo (arXiv 2311.08105)
takes the average change for a gradient, and descends along it with momentum (:class:`Nesterov`).
Every client computes this by itself, from what all of them have opened: elementwise in float32, so
that all get the same bits, and the summing side learns nothing of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.method.smoothing import smooth

__all__ = ["Average", "Nesterov", "OuterOptimizer"]

Tensor = NDArray[np.float32]


class OuterOptimizer(Protocol):
    """From weights before a round, and their average after it, to the weights of all."""

    @property
    def factor(self) -> float:
        """How much of a round's mean change is in the weights right after it."""

    def step(
        self, before: Tensor, aggregate: Tensor, momentum: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """One tensor's step.

        Parameters
        ----------
        before, aggregate
            Global weights before the round, and the clients' average after it, of equal shape.
        momentum
            What the last step of this tensor gave, of that shape; None before the first.

        Returns
        -------
        weights, momentum
            The new weights, and what to give to the next step: None if there is nothing to keep.
        """


@dataclass(frozen=True)
class Average:
    """The average itself, or that with some of the old weights (:mod:`.smoothing`).

    Attributes
    ----------
    smoothing
        ``lambda`` in ``(0, 1]``.
    """

    smoothing: float = 1.0

    @property
    def factor(self) -> float:
        """See :class:`OuterOptimizer`."""
        return self.smoothing

    def step(
        self, before: Tensor, aggregate: Tensor, momentum: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """See :class:`OuterOptimizer`; nothing is kept."""
        del momentum
        return smooth(before, aggregate, self.smoothing), None


@dataclass(frozen=True)
class Nesterov:
    """Gradient descent with Nesterov's momentum, as ``torch.optim.SGD(nesterov=True)`` does it.

    With the mean change ``u = aggregate - before``, which is the negative of DiLoCo's outer
    gradient: ``m <- mu m + u`` and ``w <- w + lr (u + mu m)``. A coordinate that a mask leaves out
    has ``u = 0`` in that round, and goes on by its momentum.

    Attributes
    ----------
    lr
        Outer learning rate, above 0.
    momentum
        ``mu`` in ``[0, 1)``.
    """

    lr: float
    momentum: float

    @property
    def factor(self) -> float:
        """``lr (1 + mu)`` at once. With what follows by momentum it is ``lr / (1 - mu)``."""
        return self.lr * (1 + self.momentum)

    def step(
        self, before: Tensor, aggregate: Tensor, momentum: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """See :class:`OuterOptimizer`."""
        rate, decay = np.float32(self.lr), np.float32(self.momentum)
        change = aggregate - before
        kept: Tensor = change if momentum is None else decay * momentum + change
        ahead: Tensor = change + decay * kept
        return before + rate * ahead, kept if self.momentum else None
