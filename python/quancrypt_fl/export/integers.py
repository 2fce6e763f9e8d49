"""Symmetric quantization of weights to int8: ``w`` is about ``scale * q``, with no zero point."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.errors import MethodError

__all__ = ["LARGEST_BITS", "SMALLEST_BITS", "dequantize_weights", "quantize_weights"]

SMALLEST_BITS, LARGEST_BITS = 2, 8


def quantize_weights(
    tensor: NDArray[np.float32], bits: int, *, per_channel: bool = True
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round a tensor to multiples of its scale, ties to even.

    Parameters
    ----------
    tensor
        Two dimensions or more; the first is that of the outputs.
    bits
        2 to 8: values are in ``[-(2**(bits - 1) - 1), 2**(bits - 1) - 1]``.
    per_channel
        A scale for each output; otherwise one for the whole tensor.

    Returns
    -------
    values
        int8, the shape of ``tensor``.
    scales
        float32, shape (outputs,) or (1,); 1 where all weights are zero. Each weight is within half
        a scale of ``scale * value``, float32 rounding aside.
    """
    if not SMALLEST_BITS <= bits <= LARGEST_BITS:
        raise MethodError(
            f"bits = {bits}; allowed for an export: {SMALLEST_BITS} to {LARGEST_BITS}"
        )
    if not np.isfinite(tensor).all():
        raise MethodError("weights to export hold NaN or infinity")
    largest_value = 2 ** (bits - 1) - 1
    rows = tensor.reshape(len(tensor) if per_channel else 1, -1)
    scales = (np.abs(rows).max(axis=1) / np.float32(largest_value)).astype(np.float32)
    scales[scales == 0] = 1
    values = np.clip(np.rint(rows / scales[:, np.newaxis]), -largest_value, largest_value)
    return values.astype(np.int8).reshape(tensor.shape), scales


def dequantize_weights(
    values: NDArray[np.int8], scales: NDArray[np.float32]
) -> NDArray[np.float32]:
    """``scale * value``, in float32."""
    shape = (-1, *[1] * (values.ndim - 1))
    return values.astype(np.float32) * scales.reshape(shape)
