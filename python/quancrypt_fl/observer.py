"""Who wants to follow a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quancrypt_fl.federation_config import FederationConfig

__all__ = ["Observer", "Observers"]


class Observer:
    """Does nothing at every step; subclasses override what they care about."""

    def started(self, config: FederationConfig, finished_rounds: int) -> None:
        """The run begins, or goes on after ``finished_rounds`` rounds."""

    def client_trained(self) -> None:
        """A client has finished its training of this round."""

    def round_finished(self, record: Mapping[str, Any]) -> None:
        """A round is over; ``record`` is its entry in ``results.json``."""

    def finished(self, results: Mapping[str, Any]) -> None:
        """The run is over; ``results`` is the document of ``results.json``."""


class Observers(Observer):
    """Several observers as one."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def started(self, config: FederationConfig, finished_rounds: int) -> None:
        """Tell all of them."""
        for observer in self._observers:
            observer.started(config, finished_rounds)

    def client_trained(self) -> None:
        """Tell all of them."""
        for observer in self._observers:
            observer.client_trained()

    def round_finished(self, record: Mapping[str, Any]) -> None:
        """Tell all of them."""
        for observer in self._observers:
            observer.round_finished(record)

    def finished(self, results: Mapping[str, Any]) -> None:
        """Tell all of them."""
        for observer in self._observers:
            observer.finished(results)
