"""State of a run after each round, on disk: safetensors for weights, JSON for the rest, no pickle.

``state.json`` is replaced last and in one step, and names the weights file that belongs to it with
its SHA-256: a run that is killed at any moment leaves the previous checkpoint or the new one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from quancrypt_fl.errors import CheckpointError
from quancrypt_fl.method.rounds import GlobalState

__all__ = ["Checkpoint", "Checkpoints", "write_atomically"]

_VERSION = 1
_STATE = "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on: the state, the rounds' records, and the keys used so far.

    Keys themselves are never stored: a resumed run makes a fresh one, which changes no result.
    """

    state: GlobalState
    records: list[dict[str, Any]]
    keys: list[dict[str, Any]]


class Checkpoints:
    """The checkpoints of one run.

    Parameters
    ----------
    folder
        Where they lie; made when the first is saved.
    identity
        The configuration's fields that decide results; see ``QuanCryptConfig.identity``.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self._folder = folder
        self._identity = dict(identity)

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, then remove the files of older ones."""
        self._folder.mkdir(parents=True, exist_ok=True)
        state = checkpoint.state
        weights_file = f"round-{state.round:05d}.safetensors"
        data = save(dict(state.weights))
        write_atomically(self._folder / weights_file, data)
        document = {
            "version": _VERSION,
            "identity": self._identity,
            "round": state.round,
            "weights": {"file": weights_file, "sha256": hashlib.sha256(data).hexdigest()},
            "bounds": dict(state.bounds) if state.bounds is not None else None,
            "records": checkpoint.records,
            "keys": checkpoint.keys,
        }
        write_atomically(self._folder / _STATE, json.dumps(document, indent=1).encode())
        for old in self._folder.glob("round-*.safetensors"):
            if old.name != weights_file:
                old.unlink()

    def clear(self) -> None:
        """Forget the checkpoints of an earlier run in the same folder."""
        (self._folder / _STATE).unlink(missing_ok=True)
        for old in self._folder.glob("round-*.safetensors"):
            old.unlink()

    def load(self) -> Checkpoint:
        """The last checkpoint.

        Raises
        ------
        CheckpointError
            If there is none, it is damaged, or another configuration made it (naming the fields).
        """
        path = self._folder / _STATE
        try:
            document = json.loads(path.read_bytes())
            version, identity = document["version"], document["identity"]
        except FileNotFoundError:
            raise CheckpointError(f"{path}: no checkpoint to resume from") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path}: not a checkpoint ({error})") from error
        if version != _VERSION:
            raise CheckpointError(f"{path}: checkpoint version {version}, expected {_VERSION}")
        self._check_identity(path, identity)
        try:
            bounds = document["bounds"]
            state = GlobalState(int(document["round"]), self._weights(document["weights"]), bounds)
            return Checkpoint(state, document["records"], document["keys"])
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path}: not a checkpoint ({error})") from error

    def _check_identity(self, path: Path, identity: Mapping[str, Any]) -> None:
        differing = [
            f"{name}: {identity.get(name)!r} then, {self._identity.get(name)!r} now"
            for name in sorted(identity.keys() | self._identity.keys())
            if identity.get(name) != self._identity.get(name)
        ]
        if differing:
            raise CheckpointError(
                f"{path}: made with another configuration ({'; '.join(differing)})"
            )

    def _weights(self, entry: Mapping[str, str]) -> dict[str, NDArray[np.float32]]:
        path = self._folder / Path(entry["file"]).name
        try:
            data = path.read_bytes()
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise CheckpointError(f"{path}: damaged (its SHA-256 is not the one in {_STATE})")
        try:
            return load(data)
        except SafetensorError as error:
            raise CheckpointError(f"{path}: damaged ({error})") from error


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``path`` so that it holds its old content or all of ``data``, whatever happens."""
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
