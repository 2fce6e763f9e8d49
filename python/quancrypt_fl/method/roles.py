"""Who takes part in a round, and what passes between them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.method.meter import RoundMeter
from quancrypt_fl.method.weighting import Share

__all__ = [
    "NOTHING_TO_SUM",
    "Again",
    "ClientMemory",
    "ClientSide",
    "Coordinator",
    "EachByItself",
    "GlobalState",
    "Opening",
    "Participant",
    "Sealed",
    "SummingSide",
    "Tensors",
    "Trained",
    "Update",
    "Uploader",
]

NOTHING_TO_SUM = "no client's update arrived: there is nothing to sum"

Tensors = Mapping[str, NDArray[np.float32]]

Again = Callable[[Collection[int]], bytes]
"""The serialized sum of the same updates once more, under fresh encryption.

Clients in the collection are away: of them the server adds what they uploaded before.
"""


@dataclass(frozen=True)
class GlobalState:
    """What every client knows before a round, the same for all of them.

    Attributes
    ----------
    round
        Rounds finished so far, which is ``t`` of the round to come.
    weights
        Global weights ``w_t`` by tensor name, averaged batch-norm statistics among them.
    bounds
        Clip bound per tensor, or None before the clients have agreed on any.
    momentum
        What an outer optimizer keeps of each tensor (:mod:`.outer`); empty where it keeps nothing.
    """

    round: int
    weights: Tensors
    bounds: Mapping[str, float] | None = None
    momentum: Tensors = field(default_factory=dict)


@dataclass(frozen=True)
class Trained:
    """Result of local training: weights by tensor name and the mean training loss."""

    weights: Tensors
    loss: float


@dataclass(frozen=True)
class Update:
    """What a client has to send in a round, and how it counts.

    Attributes
    ----------
    tensors
        Coordinates that the shared mask keeps, one-dimensional.
    share
        The client's part in the sum.
    whole
        All coordinates, for a method that carries over what is left out; otherwise None.
    """

    tensors: Tensors
    share: Share
    whole: Tensors | None = None


@dataclass(frozen=True)
class Sealed:
    """An upload as serialized; ``ciphertexts`` is 0 where nothing is encrypted."""

    data: bytes
    ciphertexts: int


@dataclass
class ClientMemory:
    """What a client alone keeps from one round to the next; tensors are replaced, not changed.

    Attributes
    ----------
    residual
        What its uploads have left out so far (error feedback); empty before the first.
    buffers
        What never leaves it: local batch-norm statistics, or the state of an optimizer; empty
        before its first training.
    """

    residual: Tensors
    buffers: Tensors


class ClientSide(Protocol):
    """What protects uploads and opens sums."""

    def protect(self, tensors: Tensors, clips: Mapping[str, float], t: int) -> Sealed:
        """Serialize named tensors of round ``t`` so that they may leave the client.

        A method that quantizes clips each tensor to its bound in ``clips``.
        """

    def unprotect(self, data: bytes) -> tuple[Tensors, int]:
        """Means of the tensors of a serialized sum, and the sum's total weight."""

    def quantized(self, tensors: Tensors, clips: Mapping[str, float], t: int) -> Tensors:
        """What an upload of the same arguments adds to the sum: clipped and rounded values."""


class SummingSide(Protocol):
    """The server: it adds what it cannot read."""

    def add(self, data: bytes, weight: int) -> None:
        """Add one serialized upload, ``weight`` times."""

    def result(self) -> bytes:
        """The sum of the uploads since the last call, serialized."""


class Uploader(Protocol):
    """A client that has trained."""

    memory: ClientMemory

    @property
    def index(self) -> int:
        """Number of the client in the federation, from 0."""

    @property
    def updates(self) -> ClientSide:
        """Its side of the round's updates."""


class Participant(Uploader, Protocol):
    """A client: it trains, and it alone can open what it and others protected."""

    @property
    def samples(self) -> int:
        """Number of training samples."""

    @property
    def reports(self) -> ClientSide:
        """Its side of the exchange that precedes updates where bounds must be agreed on."""

    def train(self, state: GlobalState) -> Trained:
        """Train locally, starting from the global weights."""


class Coordinator(Protocol):
    """The server's two sums."""

    @property
    def updates(self) -> SummingSide:
        """Sum of the round's updates."""

    @property
    def reports(self) -> SummingSide:
        """Sum of the reports that precede updates."""


class Opening(Protocol):
    """What lies between a sum and clients that can read it."""

    @property
    def repeats(self) -> bool:
        """Whether a sum may be asked for again, so that updates and uploads have to be kept."""

    def opened(
        self,
        what: str,
        total: bytes,
        clients: Sequence[int],
        again: Again,
        meter: RoundMeter,
        t: int,
    ) -> bytes:
        """What clients get of a serialized sum.

        Parameters
        ----------
        what
            ``"updates"`` or ``"reports"``.
        total
            The sum.
        clients
            Indices of those whose uploads are in it.
        again
            Makes the sum anew.
        meter
            Collects times and bytes.
        t
            The round.

        Raises
        ------
        NotOpenedError
            If it cannot be opened: the round is over, and leaves the weights as they were.
        """


class EachByItself:
    """Every client has the key: the sum is all that it needs."""

    repeats = False

    def opened(
        self,
        what: str,
        total: bytes,
        clients: Sequence[int],
        again: Again,
        meter: RoundMeter,
        t: int,
    ) -> bytes:
        """The sum itself."""
        del what, clients, again, meter, t
        return total
