"""What a language model is judged by, without torch or a model: a server can use it."""

from __future__ import annotations

import math

__all__ = ["metric_of", "value_from"]

_LARGEST_EXPONENT = 700.0  # e^709 is the largest float64


def metric_of(task: str) -> str:
    """What is reported per round: ``"perplexity"`` of texts and captions, else ``"accuracy"``."""
    return "perplexity" if task in ("causal", "multimodal") else "accuracy"


def value_from(metric: str, *, accuracy: float, loss: float) -> float:
    """The metric's value: the exponential of the mean cross-entropy, or the accuracy."""
    if metric == "perplexity":
        return math.exp(min(loss, _LARGEST_EXPONENT))
    return accuracy
