"""What a federation learns, as :class:`~quancrypt_fl.engines.federation.FederatedRun` sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, Protocol

from quancrypt_fl.engines.parties import Client, LocalTrainer
from quancrypt_fl.method.roles import Tensors
from quancrypt_fl.training import Evaluation

__all__ = ["Task"]


class Task(Protocol):
    """A model, the clients' data, and how a model is judged and written."""

    @property
    def trainer(self) -> LocalTrainer:
        """Trains for every client."""

    @property
    def weights(self) -> Tensors:
        """Initial weights of what the federation averages, by name."""

    @property
    def own_buffers(self) -> Tensors:
        """Tensors that stay with each client, as all begin with them; usually none."""

    @property
    def turns(self) -> tuple[frozenset[str], ...]:
        """See :attr:`quancrypt_fl.method.fedavg.FedAvg.turns`."""

    @property
    def trained_by(self) -> Mapping[str, frozenset[int]]:
        """Indices of the clients that can train a tensor, of tensors that not all of them can.

        The others send zeros in such a tensor, and do not count in its mean.
        """

    @property
    def parts(self) -> Sequence[Sized]:
        """The training samples of each client."""

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """Of data and all that is not configured, by what they are of.

        A run with others cannot go on from a checkpoint.
        """

    @property
    def judged_by(self) -> str:
        """``"accuracy"`` or ``"loss"``: what of an evaluation makes a model the best one."""

    def round_begins(self, t: int, parts: Callable[[], Mapping[int, float]]) -> None:
        """Told before round ``t`` which clients' updates will arrive, with their parts of the mean.

        Parts are positive and sum to 1. Only a simulation knows this beforehand.
        """

    def evaluate(self, part: str, weights: Tensors, clients: Sequence[Client]) -> Evaluation:
        """Judge global weights on the ``"test"`` or the ``"validation"`` set."""

    def record(self, test: Evaluation) -> dict[str, Any]:
        """What a round's entry in ``results.json`` has beside what all have."""

    def about(self) -> dict[str, Any]:
        """``dataset`` and ``model``, and whatever else ``results.json`` names at its top."""

    def sizes(self) -> tuple[int, int]:
        """Numbers of values: of the whole model, and of what a client sends in a round."""

    def write(self, folder: Path, weights: Tensors) -> None:
        """Write the resulting model into a folder that is there."""
