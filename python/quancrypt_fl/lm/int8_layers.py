"""Layers whose weights are int8 rows, each with a scale.

Products are integer arithmetic where torch has oneDNN's kernels (x86, and ARM builds with them):
each row of activations is rounded to 7 bits by the largest value in it. 7, because processors
without VNNI instructions add two products of 8 bits in 16, which would overflow. Elsewhere rows are
turned back into floating-point numbers for each call, which saves memory but no time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from quancrypt_fl.lm.rounding import dequantize_rows, quantize_rows

__all__ = ["Int8Embedding", "Int8Linear", "Int8Rows", "has_kernels"]

_MIDDLE = 64  # activations are in [1, 127], and 64 means 0
_LARGEST = 63
_SMALLEST_SCALE = 1e-30


def has_kernels() -> bool:
    """Whether this torch multiplies int8 weights as they are."""
    return hasattr(torch.ops.onednn, "qlinear_prepack")


class Int8Rows(nn.Module):
    """A weight whose rows are rounded: int8, shape (outputs, inputs), and scales (outputs,)."""

    weight: Tensor
    scale: Tensor

    def __init__(self, outputs: int, inputs: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("weight", torch.empty((outputs, inputs), dtype=torch.int8))
        self.register_buffer("scale", torch.empty(outputs, dtype=dtype))

    def round(self, weight: Tensor) -> None:
        """Take over a floating-point weight."""
        values, scales = quantize_rows(weight.detach())
        self.weight, self.scale = values.contiguous(), scales[:, 0].to(weight.dtype)


class Int8Linear(Int8Rows):
    """``x W^T + bias``; the first product packs the rows for the kernels, and lets go of them."""

    def __init__(
        self, outputs: int, inputs: int, dtype: torch.dtype, bias: nn.Parameter | None
    ) -> None:
        super().__init__(outputs, inputs, dtype)
        self.bias = bias
        self._packed: tuple[Tensor, Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """``x``: shape (..., inputs); the result has its type."""
        rows = x.reshape(-1, x.shape[-1])
        product = self._integer_product(rows) if has_kernels() else self._product(rows)
        if self.bias is not None:
            product = product + self.bias
        return product.to(x.dtype).view(*x.shape[:-1], -1)

    def _integer_product(self, rows: Tensor) -> Tensor:
        if self._packed is None:
            packed = torch.ops.onednn.qlinear_prepack(self.weight, None)
            scales = self.scale.float()
            self._packed = packed, scales, torch.zeros(len(scales), dtype=torch.long)
            del self.weight, self.scale
        weight, scales, zeros = self._packed
        largest = rows.abs().amax(dim=-1, keepdim=True).float()
        steps = (largest / _LARGEST).clamp_(min=_SMALLEST_SCALE)
        values = (rows / steps).round_().add_(_MIDDLE).to(torch.uint8)
        options: tuple[Any, ...] = (1.0, 0, torch.float32, "none", [], "")
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            values, 1.0, _MIDDLE, weight, scales, zeros, None, *options
        )
        return product * steps

    def _product(self, rows: Tensor) -> Tensor:
        return rows @ dequantize_rows(self.weight, self.scale[:, None], rows.dtype).T


class Int8Embedding(Int8Rows):
    """Rows of the table, as floating-point numbers."""

    def forward(self, tokens: Tensor) -> Tensor:
        """``tokens``: shape (...); the result: (..., inputs)."""
        return dequantize_rows(self.weight[tokens], self.scale[tokens, None], self.scale.dtype)
