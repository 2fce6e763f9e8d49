"""Where a client's stores keep their state, for tests of both kinds of stores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from tests.fl.flower.states import TRAINING, bits, held, memory, pending

from quancrypt_fl.flower.context_store import ContextStore
from quancrypt_fl.flower.stores import FolderStore, Store

__all__ = ["EMPTY", "OLD", "ContextPlace", "FolderPlace", "Place", "filled", "seen"]


class Place:
    """Somewhere to keep state, which outlives the store object."""

    def open(self, training: str = TRAINING) -> Store:
        raise NotImplementedError

    def get(self, name: str) -> bytes:
        raise NotImplementedError

    def set(self, name: str, data: bytes) -> None:
        raise NotImplementedError


class FolderPlace(Place):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, training: str = TRAINING) -> Store:
        return FolderStore(self.folder, training, wait=0)

    def get(self, name: str) -> bytes:
        return (self.folder / TRAINING / name).read_bytes()

    def set(self, name: str, data: bytes) -> None:
        (self.folder / TRAINING / name).write_bytes(data)


class ContextPlace(Place):
    """The records of a context, some of which are the app's own."""

    def __init__(self) -> None:
        self.records = RecordDict({"the app's own": ConfigRecord({"a": 1})})

    def open(self, training: str = TRAINING) -> Store:
        return ContextStore(self.records, training)

    def get(self, name: str) -> bytes:
        record = self.records[f"quancrypt-state-{TRAINING}"]
        assert isinstance(record, ArrayRecord)
        return record[name].data

    def set(self, name: str, data: bytes) -> None:
        record = self.records[f"quancrypt-state-{TRAINING}"]
        assert isinstance(record, ArrayRecord)
        record[name] = Array("uint8", (len(data),), "quancrypt", data)


def seen(place: Place, training: str = TRAINING) -> Any:
    """All that a fresh store of the place holds."""
    with place.open(training) as store:
        return bits(store.held()), bits(store.pending()), bits(store.memory())


EMPTY = (None, None, ("memory", [], []))

OLD = (bits(held(3)), bits(pending(3)), bits(memory(3)))
"""What :func:`filled` puts there."""


def filled(place: Place) -> None:
    with place.open() as store:
        store.hold(held(3))
        store.keep_pending(pending(3))
        store.remember(memory(3))
