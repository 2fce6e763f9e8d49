"""Whole passes over a test set, in turn with passes of the original model.

A variant's speed-up is the median of paired ratios: original, variant, original, variant, ... What
else runs on the machine slows both halves of a pair alike. Where pairs disagree nevertheless, or
are too few, no speed-up is claimed.
"""

from __future__ import annotations

import copy
import statistics
import time
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from quancrypt_fl.data import Samples
from quancrypt_fl.training import evaluate_model, memory_format

__all__ = ["compare", "in_layout", "sizes", "verdict", "with_sparse_layers"]

_NOTICEABLE = 1.05
_FEWEST_PAIRS = 3
_WIDEST_SPREAD = 1.5  # largest ratio by the smallest


def compare(
    original: nn.Module, variants: Mapping[str, nn.Module], test: Samples, repeat: int
) -> dict[str, dict[str, float]]:
    """Accuracy, seconds of a pass and speed-up of the original and of each variant.

    Returns
    -------
    dict
        By variant, and for ``"original"``: ``accuracy``, ``seconds`` (median), ``pairs``,
        ``speedup`` (median of the original's time by the variant's), ``speedup_min``,
        ``speedup_max``, ``faster_pairs``: the share of pairs in which the variant took less time,
        and ``original_seconds``: the median of the original in these pairs. The original's own
        ``seconds`` are the median over the pairs of all variants.
    """
    accuracy = evaluate_model(original, test).accuracy  # also warms up
    rows: dict[str, dict[str, float]] = {
        "original": {
            "accuracy": accuracy,
            "speedup": 1.0,
            "speedup_min": 1.0,
            "speedup_max": 1.0,
            "faster_pairs": 0.0,
        }
    }
    base: list[float] = []
    for name, variant in variants.items():
        accuracy = evaluate_model(variant, test).accuracy  # also warms up
        pairs = [(_seconds(original, test), _seconds(variant, test)) for _ in range(repeat)]
        ratios = [before / after for before, after in pairs]
        base += [before for before, _ in pairs]
        rows[name] = {
            "accuracy": accuracy,
            "seconds": statistics.median(after for _, after in pairs),
            "original_seconds": statistics.median(before for before, _ in pairs),
            "pairs": repeat,
            "speedup": statistics.median(ratios),
            "speedup_min": min(ratios),
            "speedup_max": max(ratios),
            "faster_pairs": sum(ratio > 1 for ratio in ratios) / repeat,
        }
    seconds = statistics.median(base)
    rows["original"] |= {"seconds": seconds, "original_seconds": seconds, "pairs": len(base)}
    return rows


def verdict(row: Mapping[str, float]) -> str:
    """In words: faster or slower by 5 % or more, in all pairs; neither; or not reliable.

    Not reliable are fewer than three pairs, ratios of which the largest is more than 1.5 times the
    smallest, and a median of 5 % or more on one side of 1 with a pair on the other.
    """
    pairs, low, high = row["pairs"], row["speedup_min"], row["speedup_max"]
    if pairs < _FEWEST_PAIRS:
        return f"not reliable ({pairs:.0f} of at least {_FEWEST_PAIRS} pairs)"
    differs = not 1 / _NOTICEABLE < row["speedup"] < _NOTICEABLE
    if high > _WIDEST_SPREAD * low or (differs and low <= 1 <= high):
        return f"not reliable (spread {low:.2f} to {high:.2f})"
    if not differs:
        return "no gain"
    if row["speedup"] > 1:
        return f"faster: {row['speedup']:.2f} x"
    return f"slower: {1 / row['speedup']:.2f} x the time"


def in_layout(model: nn.Module) -> nn.Module:
    """The model with its weights in the order of memory that training and evaluation use."""
    return model.to(memory_format=memory_format(model))  # type: ignore[call-overload,no-any-return]


class SparseLinear(nn.Module):
    """A linear layer whose weights are a sparse matrix (CSR)."""

    def __init__(self, dense: nn.Linear) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "Sparse CSR tensor support is in beta state"
            self.matrix = dense.weight.detach().contiguous().to_sparse_csr()
        self.bias = dense.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs) -> (batch, outputs)."""
        return (self.matrix @ x.T.contiguous()).T + self.bias


def with_sparse_layers(model: nn.Module) -> nn.Module:
    """A copy whose linear layers are sparse matrices. torch has no sparse convolution."""
    model = copy.deepcopy(model)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, SparseLinear(module))
    return model


def sizes(model: nn.Module) -> dict[str, Any]:
    """Parameters of a model, and those that are not zero."""
    tensors = [parameter.detach() for parameter in model.parameters()]
    return {
        "parameters": sum(tensor.numel() for tensor in tensors),
        "nonzero": sum(int(torch.count_nonzero(tensor)) for tensor in tensors),
    }


def _seconds(model: nn.Module, test: Samples) -> float:
    start = time.perf_counter()
    evaluate_model(model, test)
    return time.perf_counter() - start
