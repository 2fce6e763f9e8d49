"""State of a run after each round, on disk: safetensors for tensors, JSON for the rest, no pickle.

``state.json`` is replaced last and in one step, and names the files that belong to it with their
SHA-256: a run that is killed at any moment leaves the previous checkpoint or the new one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from quancrypt_fl.atomic_files import remove_leftovers, sync_folder, write_atomically
from quancrypt_fl.errors import CheckpointError
from quancrypt_fl.method.roles import ClientMemory, GlobalState, Tensors
from quancrypt_fl.method.stopping import Best

__all__ = ["Checkpoint", "Checkpoints"]

_VERSION = 2
_STATE = "state.json"
_RESIDUAL, _BUFFERS = "residual/", "buffers/"

Entry = dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on.

    Keys themselves are never stored: a resumed run makes a fresh one, which changes no result.

    Attributes
    ----------
    state
        Global state after the last round.
    records
        The rounds' records.
    keys
        Fingerprints of the keys used so far.
    best
        The best model so far, where the run watches for it.
    memories
        What clients keep to themselves, by client; those that keep nothing may be left out.
    """

    state: GlobalState
    records: list[dict[str, Any]]
    keys: list[dict[str, Any]]
    best: Best | None = None
    memories: Mapping[int, ClientMemory] = field(default_factory=dict)


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
        self._written: dict[str, tuple[tuple[object, ...], Entry]] = {}

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, then remove the files of older ones.

        Tensors that have been written before and are still the same objects are not written again.
        """
        if not self._folder.is_dir():
            self._folder.mkdir(parents=True, exist_ok=True)
            sync_folder(self._folder.parent)
        state, best = checkpoint.state, checkpoint.best
        entries: dict[str, Entry] = {}

        def store(role: str, tensors: dict[str, Any], sources: tuple[object, ...]) -> Entry:
            entries[role] = self._store(f"{role}-round-{state.round:05d}", role, tensors, sources)
            return entries[role]

        document = {
            "version": _VERSION,
            "identity": self._identity,
            "round": state.round,
            "weights": store("weights", dict(state.weights), (state.weights,)),
            "bounds": dict(state.bounds) if state.bounds is not None else None,
            "momentum": store("momentum", dict(state.momentum), (state.momentum,))
            if state.momentum
            else None,
            "records": checkpoint.records,
            "keys": checkpoint.keys,
            "best": best
            and {
                "round": best.round,
                "accuracy": best.accuracy,
                "loss": best.loss,
                "weights": store("best", dict(best.weights), (best.weights,)),
            },
            "clients": {
                str(client): store(
                    f"client-{client}",
                    {
                        **{_RESIDUAL + name: t for name, t in memory.residual.items()},
                        **{_BUFFERS + name: t for name, t in memory.buffers.items()},
                    },
                    (memory.residual, memory.buffers),
                )
                for client, memory in sorted(checkpoint.memories.items())
                if memory.residual or memory.buffers
            },
        }
        # All of them durable before the file that names them is.
        sync_folder(self._folder)
        write_atomically(self._folder / _STATE, json.dumps(document, indent=1).encode())
        self._remove_files(keep={entry["file"] for entry in entries.values()})

    def clear(self) -> None:
        """Forget the checkpoints of an earlier run in the same folder."""
        (self._folder / _STATE).unlink(missing_ok=True)
        self._remove_files(keep=set())

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
        try:
            self._check_identity(path, identity)
            return self._checkpoint(document)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{path}: not a checkpoint ({error})") from error

    def _checkpoint(self, document: Mapping[str, Any]) -> Checkpoint:
        momentum = document.get("momentum")  # older checkpoints have none
        state = GlobalState(
            int(document["round"]),
            self._load(document["weights"]),
            document["bounds"],
            self._load(momentum) if momentum else {},
        )
        best = document["best"] and Best(
            int(document["best"]["round"]),
            float(document["best"]["accuracy"]),
            float(document["best"]["loss"]),
            self._load(document["best"]["weights"]),
        )
        memories = {
            int(client): _memory(self._load(entry)) for client, entry in document["clients"].items()
        }
        return Checkpoint(state, document["records"], document["keys"], best, memories)

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

    def _store(
        self, stem: str, role: str, tensors: dict[str, Any], sources: tuple[object, ...]
    ) -> Entry:
        """Write a file, unless what ``sources`` hold is what the last file of ``role`` holds."""
        before, entry = self._written.get(role, ((), {}))
        if before and all(old is new for old, new in zip(before, sources, strict=True)):
            return entry
        data = save(tensors)
        entry = {
            "file": f"{stem}.safetensors",
            "sha256": hashlib.sha256(data).hexdigest(),
            "names": list(tensors),  # safetensors sorts; stochastic rounding goes by position
        }
        write_atomically(self._folder / entry["file"], data, durable_name=False)
        self._written[role] = sources, entry
        return entry

    def _load(self, entry: Entry) -> dict[str, NDArray[np.float32]]:
        path = self._folder / Path(entry["file"]).name
        try:
            data = path.read_bytes()
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise CheckpointError(f"{path}: damaged (its SHA-256 is not the one in {_STATE})")
        try:
            tensors = load(data)
        except SafetensorError as error:
            raise CheckpointError(f"{path}: damaged ({error})") from error
        return {name: tensors[name] for name in entry["names"]}

    def _remove_files(self, keep: set[str]) -> None:
        remove_leftovers(self._folder)
        for old in self._folder.glob("*-round-*.safetensors"):
            if old.name not in keep:
                old.unlink()


def _memory(tensors: Tensors) -> ClientMemory:
    def part(prefix: str) -> Tensors:
        return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}

    return ClientMemory(part(_RESIDUAL), part(_BUFFERS))
