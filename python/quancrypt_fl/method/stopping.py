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
    """Watches the validation of round after round.

    Attributes
    ----------
    patience
        Rounds without a better model after which to stop.
    judged_by
        ``"accuracy"``: a higher one is better; ``"loss"``: a lower one is.
    best
        The first round of the best model so far.
    """

    patience: int
    judged_by: str = "accuracy"
    best: Best | None = None

    def note(self, finished: int, accuracy: float, loss: float, weights: Tensors) -> None:
        """Note the validation after ``finished`` rounds."""
        if self.best is None or self._better(accuracy, loss, self.best):
            self.best = Best(finished, accuracy, loss, weights)

    def _better(self, accuracy: float, loss: float, best: Best) -> bool:
        return loss < best.loss if self.judged_by == "loss" else accuracy > best.accuracy

    def should_stop(self, finished: int) -> bool:
        """Whether ``patience`` rounds have passed since the best one."""
        return self.best is not None and finished - self.best.round >= self.patience
