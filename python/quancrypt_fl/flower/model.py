"""A Flower ArrayRecord as the tensors of a model, and back, without loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import ArrayRecord
from numpy.typing import NDArray
from safetensors.numpy import load, save

from quancrypt_fl.errors import ConfigError

__all__ = ["initial_model", "model_bytes", "model_from_bytes"]

_ORDER = "__order__"  # safetensors sorts by name; the order of tensors is part of a model


def initial_model(arrays: ArrayRecord) -> dict[str, NDArray[Any]]:
    """The tensors of an initial model, in order.

    Raises
    ------
    ConfigError
        If none is of floats, one is of a type that NumPy has not, or one is not finite.
    """
    model: dict[str, NDArray[Any]] = {}
    for name, array in arrays.items():
        tensor = array.numpy()
        if tensor.dtype.kind not in "fiub" or tensor.dtype.itemsize > 8:
            raise ConfigError(
                f"tensor {name!r} of the initial model is {tensor.dtype}; allowed: floats of 16 to "
                "64 bits, integers, booleans"
            )
        if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
            raise ConfigError(f"tensor {name!r} of the initial model holds NaN or infinity")
        model[name] = tensor
    if not any(tensor.dtype.kind == "f" for tensor in model.values()):
        raise ConfigError(f"the initial model has {len(model)} tensors, none of them of floats")
    return model


def model_bytes(model: Mapping[str, NDArray[Any]]) -> bytes:
    """The model as safetensors."""
    tensors = {name: np.ascontiguousarray(t).reshape(t.shape) for name, t in model.items()}
    order = "\n".join(model).encode()
    return save({**tensors, _ORDER: np.frombuffer(order, dtype=np.uint8)})


def model_from_bytes(data: bytes) -> dict[str, NDArray[Any]]:
    """What :func:`model_bytes` was given."""
    tensors = load(data)
    order = tensors.pop(_ORDER).tobytes().decode()
    return {name: tensors[name] for name in order.split("\n")}
