"""Clients with smaller ranks: each trains a corner of the factors that all share.

A client of rank ``r_k`` has memory and time for an adapter of that rank only. It gets the leading
part of what travels, the first ``r_k`` columns of B (mode ``ffa``) or the leading square of R (mode
``sb``), trains that without the rest, and sends zeros for the rest. Updates are added as those of
all clients are, so the aggregate is exact: A (and, with ``sb``, B) is the same for all, and what a
client did not train it does not move.

With ``sb`` the leading singular vectors are the most important ones; with ``ffa`` the rows of A are
drawn alike, and none matters more than another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from quancrypt_fl.method.roles import Tensors

__all__ = ["RankedClients"]


class RankedClients:
    """Which part of an adapter each client trains.

    Parameters
    ----------
    ranks
        Of the clients in order, and again from the first; empty: all have the full rank.
    """

    def __init__(self, ranks: Sequence[int] = ()) -> None:
        self._ranks = tuple(ranks)

    def of(self, client: int) -> int | None:
        """A client's rank; None: the full one."""
        return self._ranks[client % len(self._ranks)] if self._ranks else None

    def taken(self, weights: Tensors, client: int) -> Tensors:
        """What a client works with: its part of the factors, zeros for the rest."""
        rank = self.of(client)
        if rank is None:
            return weights
        return {
            name: tensor * self._corner(name, tensor.shape, rank)
            for name, tensor in weights.items()
        }

    def given_back(
        self, trained: Mapping[str, NDArray[np.float32]], weights: Tensors, client: int
    ) -> dict[str, NDArray[np.float32]]:
        """The shared weights with a client's part as it trained it."""
        rank = self.of(client)
        if rank is None:
            return dict(trained)
        return {
            name: np.where(self._corner(name, tensor.shape, rank), tensor, weights[name])
            for name, tensor in trained.items()
        }

    @contextmanager
    def training(self, parameters: Mapping[str, nn.Parameter], client: int) -> Iterator[None]:
        """Let gradients reach a client's part only, so that zeros stay zeros."""
        rank = self.of(client)
        hooks = []
        for name, parameter in parameters.items() if rank is not None else ():
            assert rank is not None
            corner = torch.from_numpy(self._corner(name, tuple(parameter.shape), rank))
            mask = corner.to(parameter.device, parameter.dtype)
            hooks.append(parameter.register_hook(mask.mul))  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _corner(self, name: str, shape: Sequence[int], rank: int) -> NDArray[np.bool_]:
        """True for what a client of this rank trains; of a whole module that is all of it."""
        corner = np.ones(tuple(shape), dtype=np.bool_)
        if ".lora_R." in name:
            corner[rank:] = False
        if ".lora_R." in name or ".lora_B." in name:
            corner[:, rank:] = False
        return corner
