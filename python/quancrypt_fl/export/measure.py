"""Whole passes over a test set, in turn with passes of the original model.

A variant's speed-up is the median of paired ratios: original, variant, original, variant, ... What
else runs on the machine slows both halves of a pair alike.
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

_NOTICEABLE, _MOST_PAIRS = 1.05, 0.75


def compare(
    original: nn.Module, variants: Mapping[str, nn.Module], test: Samples, repeat: int
) -> dict[str, dict[str, float]]:
    """Accuracy, seconds of a pass and speed-up of the original and of each variant.

    Returns
    -------
    dict
        By variant, and for ``"original"``: ``accuracy``, ``seconds`` (median), ``speedup`` (median
        of the original's time by the variant's), ``speedup_min``, ``speedup_max``, and
        ``faster_pairs``: the share of pairs in which the variant took less time.
    """
    accuracy = evaluate_model(original, test).accuracy
    base = [_seconds(original, test) for _ in range(repeat)]
    rows = {
        "original": {
            "accuracy": accuracy,
            "seconds": statistics.median(base),
            "speedup": 1.0,
            "speedup_min": 1.0,
            "speedup_max": 1.0,
            "faster_pairs": 0.0,
        }
    }
    for name, variant in variants.items():
        accuracy = evaluate_model(variant, test).accuracy  # also warms up
        pairs = [(_seconds(original, test), _seconds(variant, test)) for _ in range(repeat)]
        ratios = [before / after for before, after in pairs]
        rows[name] = {
            "accuracy": accuracy,
            "seconds": statistics.median(after for _, after in pairs),
            "speedup": statistics.median(ratios),
            "speedup_min": min(ratios),
            "speedup_max": max(ratios),
            "faster_pairs": sum(ratio > 1 for ratio in ratios) / repeat,
        }
    return rows


def verdict(row: Mapping[str, float]) -> str:
    """In words: faster or slower by 5 % or more, in three pairs of four; or neither."""
    if row["speedup"] >= _NOTICEABLE and row["faster_pairs"] >= _MOST_PAIRS:
        return f"faster: {row['speedup']:.2f} x"
    if row["speedup"] <= 1 / _NOTICEABLE and row["faster_pairs"] <= 1 - _MOST_PAIRS:
        return f"slower: {1 / row['speedup']:.2f} x the time"
    return "no gain"


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
