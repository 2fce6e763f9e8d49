"""What a finished run left in its folder: the model's name, its weights, its configuration."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load
from torch import nn

from quancrypt_fl.config import QuanCryptConfig, describe_errors
from quancrypt_fl.data.shapes import IMAGES
from quancrypt_fl.errors import CheckpointError
from quancrypt_fl.models import build_model

__all__ = ["TrainedRun", "check_shapes", "fill", "read_run"]

_RUNNING_VARIANCE = ".running_var"


@dataclass(frozen=True)
class TrainedRun:
    """A run's configuration and its last weights.

    Attributes
    ----------
    config
        The configuration, as in results.json.
    weights
        Parameters and floating-point buffers, by name.
    image_shape
        (channels, height, width).
    classes
        Number of outputs.
    """

    config: QuanCryptConfig
    weights: dict[str, NDArray[np.float32]]
    image_shape: tuple[int, int, int]
    classes: int

    def model(self) -> nn.Module:
        """The trained model, ready for inference."""
        model = build_model(self.config.model, self.image_shape, self.classes)
        fill(model, self.weights)
        return model.eval()


def read_run(folder: Path) -> TrainedRun:
    """Read ``results.json`` and ``model.safetensors``, the weights of the result.

    Where the run watched for its best model (``patience``), these are the best ones. A folder
    without ``model.safetensors`` has the weights that ``checkpoints/state.json`` names: the best
    ones, otherwise the last.

    Raises
    ------
    CheckpointError
        If a file is absent, damaged, or not of a run, or the weights are another model's.
    """
    results = _json(folder / "results.json")
    try:
        config = QuanCryptConfig.model_validate(results["config"])
    except ValidationError as error:
        raise CheckpointError(
            f"{folder / 'results.json'}: not of a run of this version ({describe_errors(error)})"
        ) from error
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / 'results.json'}: not of a run: no {error}") from error
    image_shape, classes = IMAGES[config.dataset]
    source, weights = _weights(folder)
    try:
        with torch.device("meta"):
            model = build_model(config.model, image_shape, classes)
        check_shapes(model, {name: tuple(tensor.shape) for name, tensor in weights.items()})
    except CheckpointError as error:
        raise CheckpointError(
            f"{source}: not weights of {config.model} for {config.dataset}, the run's model "
            f"({error})"
        ) from error
    return TrainedRun(config, weights, image_shape, classes)


def fill(model: nn.Module, weights: dict[str, NDArray[np.float32]]) -> None:
    """Copy weights into a model.

    Variances of batch norms below 0, which an average of noisy or quantized updates can have,
    become 0: their square root would be NaN.

    Raises
    ------
    CheckpointError
        See :func:`check_shapes`.
    """
    check_shapes(model, {name: tuple(tensor.shape) for name, tensor in weights.items()})
    with torch.no_grad():
        for name, tensor in _floating_point(model).items():
            tensor.copy_(torch.tensor(weights[name]))
            if name.endswith(_RUNNING_VARIANCE):
                tensor.clamp_(min=0)


def check_shapes(model: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Compare shapes of weights with a model's, which may be on torch's ``meta`` device.

    Raises
    ------
    CheckpointError
        Naming the first tensor that is missing, not known to the model, or of another shape.
    """
    wanted = _floating_point(model)
    for name in [*wanted, *shapes]:
        given = shapes.get(name, "absent")
        expected = tuple(wanted[name].shape) if name in wanted else "absent"
        if given != expected:
            raise CheckpointError(f"tensor {name!r} is {given}, the model's is {expected}")


def _floating_point(model: nn.Module) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = model.state_dict()
    return {name: tensor for name, tensor in state.items() if tensor.is_floating_point()}


def _weights(folder: Path) -> tuple[Path, dict[str, NDArray[np.float32]]]:
    """The file that holds a run's weights, and its tensors."""
    path = folder / "model.safetensors"
    if os.path.lexists(path):
        return path, _tensors(path, _content(path))
    return _checkpoint(folder / "checkpoints")


def _checkpoint(folder: Path) -> tuple[Path, dict[str, NDArray[np.float32]]]:
    state = folder / "state.json"
    try:
        document = _json(state)
        entry = (document.get("best") or document)["weights"]
        path, digest = folder / Path(entry["file"]).name, entry["sha256"]
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{state}: not a checkpoint: no {error}") from error
    data = _content(path)
    if hashlib.sha256(data).hexdigest() != digest:
        raise CheckpointError(f"{path}: damaged (its SHA-256 is not the one in {state.name})")
    return path, _tensors(path, data)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error


def _tensors(path: Path, data: bytes) -> dict[str, NDArray[np.float32]]:
    try:
        tensors = load(data)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged ({error})") from error
    for name, tensor in tensors.items():
        if tensor.dtype != np.float32:
            raise CheckpointError(f"{path}: tensor {name!r} is {tensor.dtype}, not float32")
    return tensors


def _json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; RUN is the folder of a run") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from error
    if not isinstance(document, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    return document
