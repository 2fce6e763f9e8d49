"""Who wants to follow an experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quancrypt_fl.experiments.cells import Cell
from quancrypt_fl.observer import Observer

__all__ = ["Watcher"]


class Watcher:
    """Does nothing at every step; subclasses override what they care about."""

    def started(self, cells: Sequence[Cell], left: Sequence[Cell]) -> None:
        """The experiment begins, or goes on with the cells that are ``left``."""

    def cell_started(self, cell: Cell) -> Observer | None:
        """A cell begins; the observer, if any, follows its rounds."""
        del cell
        return None

    def cell_finished(self, cell: Cell, document: Mapping[str, Any]) -> None:
        """A cell is done and saved."""

    def cell_failed(self, cell: Cell, error: str) -> None:
        """A cell stopped with an error; the others go on."""

    def finished(self, document: Mapping[str, Any]) -> None:
        """All cells have run; ``document`` is that of ``experiment.json``."""
