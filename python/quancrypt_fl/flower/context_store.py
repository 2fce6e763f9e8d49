"""A client's state in Flower's ``Context.state``, for clients without a folder of their own.

Flower keeps it as long as the SuperNode's process lives, and hands it to the app with each message.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, RecordDict
from numpy.typing import NDArray

from quancrypt_fl.flower.stores import Store

__all__ = ["MODEL", "ContextStore"]

MODEL = "quancrypt-model"
"""Key of the ArrayRecord with the final global model, once it is there."""

_PREFIX = "quancrypt-state-"


class ContextStore(Store):
    """State in the records of a context: an ArrayRecord of this training and no other.

    Parameters
    ----------
    records
        ``Context.state``.
    training
        Id of the training; what the records hold of others is removed.
    """

    def __init__(self, records: RecordDict, training: str) -> None:
        super().__init__(training)
        self._records = records
        self._key = f"{_PREFIX}{training}"
        for key in [key for key in records if key.startswith(_PREFIX) and key != self._key]:
            del records[key]

    def finish(self, model: Mapping[str, NDArray[Any]]) -> None:
        """Put the final global model into the records, under :data:`MODEL`."""
        arrays = {name: Array(np.asarray(t)) for name, t in model.items()}
        self._records[MODEL] = ArrayRecord(arrays)

    def _read(self, name: str) -> bytearray | None:
        array = self._arrays().get(name)
        return None if array is None else bytearray(array.data)

    def _write(self, name: str, data: bytearray) -> None:
        array = Array("uint8", (len(data),), "quancrypt", bytes(data))
        self._records[self._key] = ArrayRecord({**self._arrays(), name: array})

    def _delete(self, name: str) -> None:
        arrays = self._arrays()
        if arrays.pop(name, None) is not None:
            self._records[self._key] = ArrayRecord(arrays)

    def _where(self, name: str) -> str:
        return f"{name} in the client's context"

    def _arrays(self) -> dict[str, Array]:
        record = self._records.get(self._key)
        return dict(record) if isinstance(record, ArrayRecord) else {}
