"""What a finished run left in its folder: the model's name, its weights, its configuration."""

from __future__ import annotations

import hashlib
import json
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
from quancrypt_fl.errors import CheckpointError
from quancrypt_fl.models import build_model

__all__ = ["TrainedRun", "fill", "read_run"]

_IMAGES: dict[str, tuple[tuple[int, int, int], int]] = {
    "digits": ((1, 8, 8), 10),
    "mnist": ((1, 28, 28), 10),
    "fashion-mnist": ((1, 28, 28), 10),
    "cifar10": ((3, 32, 32), 10),
    "cifar100": ((3, 32, 32), 100),
    "ham10000": ((3, 64, 64), 7),
}
"""Shape of a data set's images and number of its classes, so that an export needs no data."""


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
    """Read ``results.json`` and the weights that ``checkpoints/state.json`` names.

    Where the run watched for its best model (``patience``), these are the best ones.

    Raises
    ------
    CheckpointError
        If a file is absent, damaged, or not of a run.
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
    weights = _weights(folder / "checkpoints")
    image_shape, classes = _IMAGES[config.dataset]
    return TrainedRun(config, weights, image_shape, classes)


def fill(model: nn.Module, weights: dict[str, NDArray[np.float32]]) -> None:
    """Copy weights into a model.

    Raises
    ------
    CheckpointError
        Naming the first tensor that is missing, not known to the model, or of another shape.
    """
    state: dict[str, torch.Tensor] = model.state_dict()
    wanted = {name: tensor for name, tensor in state.items() if tensor.is_floating_point()}
    for name in [*wanted, *weights]:
        given = tuple(weights[name].shape) if name in weights else "absent"
        expected = tuple(wanted[name].shape) if name in wanted else "absent"
        if given != expected:
            raise CheckpointError(f"tensor {name!r} is {given}, the model's is {expected}")
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(torch.tensor(weights[name]))


def _weights(folder: Path) -> dict[str, NDArray[np.float32]]:
    state = folder / "state.json"
    try:
        document = _json(state)
        entry = (document.get("best") or document)["weights"]
        path, digest = folder / Path(entry["file"]).name, entry["sha256"]
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{state}: not a checkpoint: no {error}") from error
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise CheckpointError(f"{path}: damaged (its SHA-256 is not the one in {state.name})")
    try:
        return load(data)
    except SafetensorError as error:
        raise CheckpointError(f"{path}: damaged ({error})") from error


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
