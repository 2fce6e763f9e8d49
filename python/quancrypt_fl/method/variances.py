"""Running variances of batch norm, which sums of noisy differences can make negative."""

from __future__ import annotations

import numpy as np

from quancrypt_fl.method.roles import Tensors

__all__ = ["possible"]

_VARIANCE = "running_var"  # torch's name of the buffer


def possible(weights: Tensors) -> Tensors:
    """``weights`` with running variances that rounding or noise made negative at 0."""
    impossible = {
        name: np.maximum(tensor, np.float32(0))
        for name, tensor in weights.items()
        if name.endswith(_VARIANCE) and (tensor < 0).any()
    }
    return {**weights, **impossible} if impossible else weights
