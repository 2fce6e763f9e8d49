"""Batch-norm statistics that stay with a client from round to round (``batch_norm = "local"``)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, RecordDict
from numpy.typing import NDArray
from safetensors.numpy import load, save

from quancrypt_fl.atomic_files import write_atomically
from quancrypt_fl.errors import CheckpointError

__all__ = ["OwnBuffers"]

Tensors = dict[str, NDArray[np.float32]]

_RECORD = "quancrypt.buffers"


class OwnBuffers:
    """Kept in Flower's context, or in a file where there is one, which outlives the node.

    Parameters
    ----------
    initial
        What a model starts with; empty where nothing is local.
    records
        ``Context.state``.
    path
        The file, or None.
    """

    def __init__(
        self, initial: Mapping[str, NDArray[np.float32]], records: RecordDict, path: Path | None
    ) -> None:
        self._initial = dict(initial)
        self._records = records
        self._path = path

    def before(self, t: int) -> Tensors:
        """Statistics with which round ``t`` begins; a training begins with the initial ones."""
        return dict(self._initial) if t == 0 else self.latest()

    def latest(self) -> Tensors:
        """Those of the last training here, or the initial ones."""
        if not self._initial:
            return {}
        if self._path is not None:
            kept = self._read(self._path)
        else:
            record = self._records.array_records.get(_RECORD)
            kept = {} if record is None else {name: a.numpy() for name, a in record.items()}
        return {**self._initial, **kept}

    def keep(self, buffers: Tensors) -> None:
        """Keep them for the next round."""
        if not buffers:
            return
        if self._path is None:
            record = ArrayRecord({name: Array(tensor) for name, tensor in buffers.items()})
            self._records[_RECORD] = record
            return
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(self._path, save(buffers))

    def _read(self, path: Path) -> Tensors:
        if not path.exists():
            return {}
        try:
            tensors = load(path.read_bytes())
        except Exception as error:  # safetensors raises types of its own
            raise CheckpointError(f"{path}: is damaged: {error}; remove it") from error
        shapes = {name: tensor.shape for name, tensor in self._initial.items()}
        return {
            name: tensor for name, tensor in tensors.items() if shapes.get(name) == tensor.shape
        }
