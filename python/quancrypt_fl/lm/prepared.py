"""What a fine-tuning has to know of its task: a model, rows, and what the model says of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from quancrypt_fl.lm.base import Base
from quancrypt_fl.lm.rows import DataSet

__all__ = ["Prepared", "Scores"]

Scores = Callable[[nn.Module, Any, NDArray[np.int64]], tuple[Tensor, Tensor]]
"""From a model, :class:`.Rows` and indices of some of them to scores in float32, of shape
(..., classes or tokens), and labels, of shape (...), with :data:`.IGNORED` where there is nothing
to say.
"""


@dataclass(frozen=True)
class Prepared:
    """All that a fine-tuning needs to know of its task.

    Attributes
    ----------
    base
        The model, and what of it is tuned.
    data
        What it learns from.
    scores
        What it says of rows.
    digest
        SHA-256 of all rows.
    """

    base: Base
    data: DataSet
    scores: Scores
    digest: bytes
