"""An adapter as it begins, in two files: what a deployment's server needs, and what its clients do.

Factors that never travel are drawn once and handed out, not drawn again by each client: singular
vectors differ in their last bits from one processor to the next, and averages of factors are exact
only if the frozen ones are the same bits everywhere. ``initial.safetensors`` holds what travels:
the server needs no model, and gets none. ``frozen.safetensors`` holds the rest of the adapter, by
which base model it was made, and the digest of what travels, so that a client knows it again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from quancrypt_fl.errors import ConfigError

if TYPE_CHECKING:
    from quancrypt_fl.lm.adapters import Adapter
    from quancrypt_fl.lm.run import LanguageTask

__all__ = [
    "Initial",
    "frozen_bytes",
    "initial_bytes",
    "known_initial",
    "read_initial",
    "take_frozen",
    "weights_digest",
]

_FACTS = "quancrypt"


@dataclass(frozen=True)
class Initial:
    """What travels, as a training begins with it.

    Attributes
    ----------
    weights
        In the adapter's order.
    parameters, exchanged
        Numbers of values: of model and adapter, and of what a client sends in a round.
    about
        What ``results.json`` names at its top: data, model, task, mode, metric.
    """

    weights: Mapping[str, NDArray[np.float32]]
    parameters: int
    exchanged: int
    about: Mapping[str, Any]


def initial_bytes(task: LanguageTask) -> bytes:
    """The file for the server: names, shapes and first values of what travels; nothing of a base
    model.
    """
    parameters, exchanged = task.sizes()
    facts = {
        "names": list(task.weights),
        "parameters": parameters,
        "exchanged": exchanged,
        "about": task.about(),
    }
    return save(dict(task.weights), metadata={_FACTS: json.dumps(facts)})


def read_initial(path: Path) -> Initial:
    """Inverse of :func:`initial_bytes`; needs neither torch nor transformers.

    Raises
    ------
    ConfigError
        Naming the file, if it is not one.
    """
    facts, tensors = _read(path)
    try:
        weights = {name: tensors[name] for name in facts["names"]}
        return Initial(weights, int(facts["parameters"]), int(facts["exchanged"]), facts["about"])
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: is no adapter of quancrypt provision: {error!r}") from error


def frozen_bytes(task: LanguageTask) -> bytes:
    """The file for clients: the factors that never travel, classes, which base model it is, and the
    digest of what travels as it begins.
    """
    tensors = {
        name: np.array(tensor.float().cpu().numpy(), order="C")
        for name, tensor in task.adapter.frozen().items()
    }
    facts = {
        "base": _base(task.adapter),
        "classes": _classes(task),
        "initial": weights_digest(task.weights),
    }
    return save(tensors, metadata={_FACTS: json.dumps(facts)})


def weights_digest(weights: Mapping[str, NDArray[np.float32]]) -> str:
    """SHA-256 of named tensors, whatever their order, in hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(np.ascontiguousarray(tensor).tobytes())
    return digest.hexdigest()


def known_initial(path: Path) -> str:
    """The digest in a file of :func:`frozen_bytes`: of the weights with which a training begins.

    Raises
    ------
    ConfigError
        Naming the file, if it is none, or an earlier version made it.
    """
    facts, _ = _read(path)
    digest = facts.get("initial")
    if not isinstance(digest, str):
        raise ConfigError(
            f"{path}: does not say with which adapter a training begins: an earlier version made "
            "it; make the kits anew (quancrypt provision)"
        )
    return digest


def take_frozen(task: LanguageTask, path: Path) -> None:
    """Give a client's adapter the factors that all share.

    Raises
    ------
    ConfigError
        If the base model is another one, or the data have other classes: means of what such
        clients train would mean nothing.
    """
    import torch

    facts, tensors = _read(path)
    if facts.get("base") != _base(task.adapter):
        raise ConfigError(
            "the base model here is not the one for which the kits were made: its weights differ; "
            "all sites need the same files"
        )
    if facts.get("classes") != _classes(task):
        raise ConfigError(
            f"the classes of the data here are {_listed(_classes(task))}; the kits were made for "
            f"{_listed(facts.get('classes') or [])}; all sites need the same ones"
        )
    own = task.adapter.frozen()
    if own.keys() != tensors.keys() or any(
        tuple(own[name].shape) != tensor.shape for name, tensor in tensors.items()
    ):
        raise ConfigError(f"{path}: holds the factors of another adapter than the run's")
    for name, tensor in tensors.items():
        own[name].copy_(torch.from_numpy(tensor))


def _read(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[np.float32]]]:
    try:
        with safe_open(path, framework="np") as file:
            facts = json.loads((file.metadata() or {})[_FACTS])
            return dict(facts), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ConfigError(f"{path}: is no adapter of quancrypt provision: {error!r}") from error


def _base(adapter: Adapter) -> str:
    """SHA-256 of the base model's weights: of what is neither in the adapter nor fresh."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in adapter.model.state_dict().items():
        if ".lora_" in name or ".modules_to_save." in name or ".original_module." in name:
            continue
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _classes(task: LanguageTask) -> list[str]:
    return [str(name) for name in getattr(task.data, "classes", ())]


def _listed(classes: list[str]) -> str:
    return ", ".join(map(repr, classes[:10])) or "none"
