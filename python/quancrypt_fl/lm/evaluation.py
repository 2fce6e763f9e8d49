"""How well a model says what follows, or to which class a sentence or a picture belongs."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from quancrypt_fl.lm.prepared import Scores
from quancrypt_fl.lm.rows import Rows
from quancrypt_fl.lm.texts import IGNORED, Texts
from quancrypt_fl.training import Evaluation

__all__ = ["cross_entropy", "evaluate_rows", "evaluate_texts", "scores"]

_LOGITS = 1 << 25
"""Values that the scores of one evaluation batch may have: 128 MiB of float32."""

_MOST_ROWS = 128


def evaluate_texts(model: nn.Module, samples: Texts) -> Evaluation:
    """:func:`evaluate_rows` of texts."""
    return evaluate_rows(model, samples, scores)


def evaluate_rows(model: nn.Module, samples: Rows, scores: Scores) -> Evaluation:
    """Accuracy and mean cross-entropy over classes, or over all tokens that are predicted.

    Parameters
    ----------
    model
        A model of transformers, in evaluation mode, also with an adapter.
    samples
        Rows that it knows the tokens of.
    scores
        What it says of such rows.
    """
    correct = counted = 0
    loss_sum = 0.0
    order = np.argsort(samples.lengths, kind="stable")  # rows of a batch are alike: little padding
    start, size = 0, 1  # of the first batch: it tells how many scores a row has
    with torch.inference_mode():
        while start < len(samples):
            rows = order[start : start + size]
            found, labels = scores(model, samples, rows)
            known = labels != IGNORED
            correct += int(((found.argmax(dim=-1) == labels) & known).sum())
            counted += int(known.sum())
            loss_sum += float(cross_entropy(found, labels, "sum").double())
            start += len(rows)
            per_row = max(1, found.numel() // len(rows))
            size = max(1, min(_MOST_ROWS, _LOGITS // per_row))
    return Evaluation(correct / counted, loss_sum / counted, counted)


def scores(model: nn.Module, samples: Texts, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Scores of some rows in float32, shape (..., classes or tokens), and labels, shape (...)."""
    lengths = samples.lengths[rows]
    longest = int(lengths.max())
    mask = (np.arange(longest) < lengths[:, None]).astype(np.int64)
    labels = samples.labels[rows] if samples.labels.ndim == 1 else samples.labels[rows, :longest]
    device = next(model.parameters()).device
    inputs, attended, answers = (
        torch.from_numpy(array).to(device)
        for array in (samples.inputs[rows, :longest], mask, labels)
    )
    found: Tensor = model(input_ids=inputs, attention_mask=attended).logits
    return found.float(), answers


def cross_entropy(found: Tensor, labels: Tensor, reduction: str) -> Tensor:
    """Of scores and labels as :func:`scores` gives them, over all that is known."""
    return nn.functional.cross_entropy(
        found.flatten(0, -2), labels.flatten(), ignore_index=IGNORED, reduction=reduction
    )
