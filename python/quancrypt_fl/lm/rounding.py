"""Rounding to 8 bits, row by row: activations between stages, and weights of small machines."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["dequantize_rows", "quantize_rows"]

_LARGEST = 127


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Round each row to multiples of its scale, ties to even.

    Parameters
    ----------
    x
        Shape (..., n), any floating type, finite.

    Returns
    -------
    values
        int8 in [-127, 127], the shape of ``x``.
    scales
        float32, shape (..., 1): a value is within half its scale of the original. 1 for a row of
        zeros.
    """
    rows = x.float()
    scales = rows.abs().amax(dim=-1, keepdim=True) / _LARGEST
    scales = torch.where(scales > 0, scales, torch.ones_like(scales))
    values = (rows / scales).round().clamp(-_LARGEST, _LARGEST).to(torch.int8)
    return values, scales


def dequantize_rows(values: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """What :func:`quantize_rows` rounded."""
    return (values.float() * scales).to(dtype)
