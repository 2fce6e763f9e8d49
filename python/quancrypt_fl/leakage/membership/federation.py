"""A small federated training whose every message is kept, for attacks on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from quancrypt_fl.data import ImageDataset, Samples
from quancrypt_fl.leakage.views import View, observe
from quancrypt_fl.seeds import derive_seed
from quancrypt_fl.training import Trainer, TrainingOptions

__all__ = ["Federation", "History", "Pool", "Weights", "clients_of"]

Weights = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Pool:
    """Samples about which the attacker asks.

    Attributes
    ----------
    samples
        All of them.
    member
        True for those that are trained on: half of the pool.
    client
        The client that has a member, shape (samples,). Of the others, whose updates they are held
        against: each client has as many of these as members.
    """

    samples: Samples
    member: NDArray[np.bool_]
    client: NDArray[np.int64]


def clients_of(member: NDArray[np.bool_], clients: int) -> NDArray[np.int64]:
    """The client of each sample of a pool, by turns: as many of its members as of the others."""
    found = np.empty(len(member), dtype=np.int64)
    for kind in (member, ~member):
        found[kind] = np.arange(int(kind.sum())) % clients
    return found


@dataclass(frozen=True)
class History:
    """What passes in a training, round by round.

    Attributes
    ----------
    weights
        Global weights before every round, and after the last.
    updates
        ``w_i - w_t`` as each client sends it: ``updates[t][client]``.
    sent
        Bytes of one client's upload in a round.
    """

    weights: list[Weights]
    updates: list[list[Weights]]
    sent: int

    def mean_update(self, t: int) -> Weights:
        """The aggregate of round ``t``."""
        return _mean(self.updates[t])


@dataclass(frozen=True, kw_only=True)
class Federation:
    """How the target and the shadow models are trained: FedAvg, clients of equal size."""

    model: str
    clients: int
    rounds: int
    local_epochs: int
    batch_size: int = 32
    lr: float = 1e-3

    def trainer(self, dataset: ImageDataset, seed: int, device: str = "cpu") -> Trainer:
        """Weight decay is off: the models are to overfit."""
        options = TrainingOptions(self.lr, 0.0, self.batch_size, self.local_epochs)
        return Trainer(self.model, dataset, options, seed, device)

    def train(
        self, trainer: Trainer, pool: Pool, view: View, seed: int, *, keep: bool = True
    ) -> History:
        """Train on the pool's members, each update protected as ``view`` says before it is added.

        Parameters
        ----------
        trainer
            See :meth:`trainer`.
        pool
            Whose members are trained on.
        view
            Layers of protection.
        seed
            Decides noise, where the view has any.
        keep
            False: only the last weights are kept.
        """
        weights = [trainer.weights()]
        updates: list[list[Weights]] = []
        parts = [
            pool.samples.take(np.flatnonzero(pool.member & (pool.client == c)))
            for c in range(self.clients)
        ]
        sent = 0
        for t in range(self.rounds):
            sums: list[Weights] = []
            for client, part in enumerate(parts):
                trained, _ = trainer.train(weights[-1], part, t, client)
                difference = {n: trained[n] - w for n, w in weights[-1].items()}
                shown, sent = _shown(
                    difference, weights[-1], view, t, derive_seed(seed, "noise", t, client)
                )
                sums.append(shown)
            mean = _mean(sums)
            after = {n: (w + mean[n]).astype(np.float32) for n, w in weights[-1].items()}
            weights = [*weights, after] if keep else [after]
            updates = [*updates, sums] if keep else []
        return History(weights, updates, sent)


def _mean(updates: Sequence[Weights]) -> Weights:
    return {name: np.mean([u[name] for u in updates], axis=0) for name in updates[0]}


def _shown(update: Weights, weights: Weights, view: View, t: int, seed: int) -> tuple[Weights, int]:
    """An update after the layers of ``view``, and the bytes that it takes.

    Masks take turns as in a training; what sits out gains nothing for it.
    """
    tensors = {name: torch.from_numpy(values) for name, values in update.items()}
    known = {name: torch.from_numpy(values) for name, values in weights.items()}
    seen = observe(view, [tensors], known, tensors, seed, t)
    return {name: tensor.numpy() for name, tensor in seen.tensors.items()}, seen.sent
