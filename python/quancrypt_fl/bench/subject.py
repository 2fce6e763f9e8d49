"""What is timed: something that performs named operations on freshly drawn input."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.bench.timing import Thunk, seconds

__all__ = ["Subject", "WrongAnswerError", "random_values"]

_LINE_FLOATS = 16  # float32 values in 64 bytes


class WrongAnswerError(AssertionError):
    """A subject decrypted something else than what went in: its times mean nothing."""


class Subject(ABC):
    """One implementation with its keys, ready to be timed.

    Attributes
    ----------
    key, label
        Short name for documents, and one for people.
    values
        Values that one operation handles.
    upload_bytes
        Serialized bytes of one update of ``values`` values, known after :meth:`check`.
    """

    key: str
    label: str
    values: int
    upload_bytes: int = 0

    @property
    @abstractmethod
    def operations(self) -> Mapping[str, Callable[[], Thunk]]:
        """For each operation: what prepares it, untimed, and returns what is to be timed."""

    @abstractmethod
    def refresh(self, rng: np.random.Generator) -> None:
        """Draw new input, and forget what was made of the old."""

    @abstractmethod
    def check(self, rng: np.random.Generator) -> None:
        """Raise :class:`WrongAnswerError` unless a sum decrypts to the sum of the inputs."""

    def ns_per_value(self, operation: str, rng: np.random.Generator) -> float:
        """One sample: nanoseconds per value of ``operation`` on new input."""
        self.refresh(rng)
        return seconds(self.operations[operation]()) / self.values * 1e9

    def require(self, right: Any, what: str) -> None:
        """Raise :class:`WrongAnswerError` unless ``right``."""
        if not bool(right):
            raise WrongAnswerError(f"{self.label}: {what} is wrong")


def random_values(rng: np.random.Generator, count: int, clip: float) -> NDArray[np.float32]:
    """Normal values, some beyond ``clip``, at a random place relative to a cache line."""
    room = rng.standard_normal(count + _LINE_FLOATS, dtype=np.float32)
    room *= np.float32(clip / 2)
    start = int(rng.integers(_LINE_FLOATS))
    return room[start : start + count]
