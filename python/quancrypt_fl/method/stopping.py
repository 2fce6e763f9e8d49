"""Early stopping: a run ends when validation stops improving, and returns to its best round."""

from __future__ import annotations

from dataclasses import dataclass

from quancrypt_fl.method.roles import Tensors

__all__ = ["Best", "EarlyStopping"]


@dataclass(frozen=True)
class Best:
    """The best global model so far.

    Attributes
    ----------
    round
        Rounds finished when it was reached.
    accuracy, loss
        Its accuracy and loss on the validation set.
    weights
        Its weights.
    """

    round: int
    accuracy: float
    loss: float
    weights: Tensors


@dataclass
class EarlyStopping:
    """Watches the validation accuracy of round after round.

    Attributes
    ----------
    patience
        Rounds without a better accuracy after which to stop.
    best
        The first round of the highest accuracy so far.
    """

    patience: int
    best: Best | None = None

    def note(self, finished: int, accuracy: float, loss: float, weights: Tensors) -> None:
        """Note the validation after ``finished`` rounds."""
        if self.best is None or accuracy > self.best.accuracy:
            self.best = Best(finished, accuracy, loss, weights)

    def should_stop(self, finished: int) -> bool:
        """Whether ``patience`` rounds have passed since the best one."""
        return self.best is not None and finished - self.best.round >= self.patience
