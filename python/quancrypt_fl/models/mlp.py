"""A small fully connected network, for digits and quick tries on any image set."""

from __future__ import annotations

import math

from torch import nn

__all__ = ["mlp"]

_HIDDEN = 128


def mlp(image_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Flatten, fc -> 128, ReLU, fc -> ``classes``: 9,610 parameters for digits."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(image_shape), _HIDDEN),
        nn.ReLU(),
        nn.Linear(_HIDDEN, classes),
    )
