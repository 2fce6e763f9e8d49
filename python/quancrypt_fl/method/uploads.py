"""Checks of an upload that travels in the clear, before anything is added to a sum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from quancrypt_fl.errors import MethodError

__all__ = ["check_alike", "parsed"]


def parsed(data: bytes, dtype: DTypeLike) -> dict[str, NDArray[Any]]:
    """The tensors of an upload in safetensors format.

    Raises
    ------
    MethodError
        If the bytes are anything else, or a tensor is not of ``dtype`` or not finite.
    """
    try:
        tensors = load(data)
    except (SafetensorError, KeyError) as error:  # KeyError: an element type that NumPy has not
        raise MethodError(f"an upload is damaged: {error}") from None
    expected = np.dtype(dtype)
    for name, tensor in tensors.items():
        if tensor.dtype != expected:
            raise MethodError(f"tensor {name!r} of an upload is {tensor.dtype}, not {expected}")
        if not np.isfinite(tensor).all():
            raise MethodError(
                f"tensor {name!r} of an upload holds NaN or infinity: local training diverged"
            )
    return tensors


def check_alike(tensors: Mapping[str, NDArray[Any]], before: Mapping[str, NDArray[Any]]) -> None:
    """Check that an upload has the names and shapes of the sum so far.

    Raises
    ------
    MethodError
        If it does not.
    """
    if tensors.keys() != before.keys():
        raise MethodError(
            f"an upload has other tensors than the sum so far: {sorted(tensors)}, not "
            f"{sorted(before)}"
        )
    for name, tensor in tensors.items():
        if tensor.shape != before[name].shape:
            raise MethodError(
                f"tensor {name!r} of an upload has the shape {tensor.shape}; earlier ones have "
                f"{before[name].shape}"
            )
