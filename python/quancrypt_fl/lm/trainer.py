"""Local training and evaluation of an adapted language model. Weights come and go as arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from quancrypt_fl.lm.adapters import Adapter
from quancrypt_fl.lm.evaluation import cross_entropy, evaluate_rows
from quancrypt_fl.lm.prepared import Scores
from quancrypt_fl.lm.probe import FactorProbe
from quancrypt_fl.lm.ranks import RankedClients
from quancrypt_fl.lm.rows import Rows
from quancrypt_fl.method.roles import Tensors
from quancrypt_fl.seeds import derive_seed
from quancrypt_fl.training import Evaluation, seeded, torch_device

__all__ = ["LanguageTrainer", "LocalTraining"]

_WINDOW = 16  # batches


@dataclass(frozen=True)
class LocalTraining:
    """AdamW's learning rate and weight decay, rows per batch, and how long a client trains.

    ``steps`` batches where it is given, otherwise ``epochs``.
    """

    lr: float
    weight_decay: float
    batch_size: int
    epochs: int
    steps: int | None = None


class LanguageTrainer:
    """An adapted model, loaded with the weights of whoever trains or evaluates next.

    Parameters
    ----------
    adapter
        Model and adapter.
    scores
        What the model says of rows.
    options
        Local training.
    seed
        Decides the order of rows, and dropout.
    example
        A row or more, for :meth:`warm_up`.
    device
        ``"cpu"`` or ``"cuda"``; see :class:`quancrypt_fl.training.Trainer`.
    ranks
        Ranks of clients; see :class:`.RankedClients`.

    Attributes
    ----------
    scores
        As given.
    probe
        Sees what each client has trained.
    """

    def __init__(
        self,
        adapter: Adapter,
        scores: Scores,
        options: LocalTraining,
        seed: int,
        example: Rows,
        device: str = "cpu",
        ranks: Sequence[int] = (),
    ) -> None:
        self._adapter = adapter
        self.scores = scores
        self._ranks = RankedClients(ranks)
        self._options = options
        self._seed = seed
        self._example = example
        self._device = torch_device(device)
        adapter.model.to(self._device)
        self.probe = FactorProbe(adapter, seed)

    def train(
        self, weights: Tensors, samples: Rows, t: int, client: int
    ) -> tuple[dict[str, NDArray[np.float32]], float]:
        """Train what travels in round ``t`` on a client's rows.

        Returns
        -------
        weights : dict
            All that ever travels, trained or not.
        loss : float
            Mean loss over the rows seen.
        """
        self._adapter.load(self._ranks.taken(weights, client))
        parameters = self._adapter.prepare(t)
        with (
            seeded(derive_seed(self._seed, "training", t, client), self._device),
            self._ranks.training(parameters, client),
        ):
            loss = self._fit(list(parameters.values()), samples)
        trained = self._ranks.given_back(self._adapter.weights(), weights, client)
        self.probe.add(client, trained)
        return trained, loss

    def evaluate(self, weights: Tensors, samples: Rows) -> Evaluation:
        """Accuracy and mean cross-entropy over classes, or over all tokens that are predicted."""
        self._adapter.load(weights)
        self._adapter.model.eval()
        return evaluate_rows(self._adapter.model, samples, self.scores)

    def warm_up(self) -> None:
        """One step on one row: what torch does but once is not part of a round's time."""
        self._adapter.prepare(0)
        with seeded(0, self._device):
            found, _ = self.scores(self._adapter.model, self._example, np.arange(1))
            found.sum().backward()  # type: ignore[no-untyped-call]
        self._adapter.model.zero_grad(set_to_none=True)

    def _fit(self, parameters: list[nn.Parameter], samples: Rows) -> float:
        options, model = self._options, self._adapter.model
        model.train()
        optimizer = torch.optim.AdamW(
            parameters, lr=options.lr, weight_decay=options.weight_decay, fused=True
        )
        loss_sum, seen = 0.0, 0
        for rows in self._batches(samples.lengths):
            found, labels = self.scores(model, samples, rows)
            optimizer.zero_grad(set_to_none=True)
            loss = cross_entropy(found, labels, "mean")
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            loss_sum += float(loss.detach()) * len(rows)
            seen += len(rows)
        return loss_sum / seen

    def _batches(self, lengths: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """Rows of each batch, for as long as a client trains."""
        steps = self._options.steps
        if steps is None:
            for _ in range(self._options.epochs):
                yield from _epoch(lengths, self._options.batch_size)
            return
        while steps > 0:
            for batch in islice(_epoch(lengths, self._options.batch_size), steps):
                yield batch
                steps -= 1


def _epoch(lengths: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    """Every row once, in an order drawn from torch's random state.

    Rows of a batch are of similar lengths, as filling them up costs time: of so many batches each,
    rows are sorted by length, and the batches are shuffled.
    """
    batches = []
    for window in torch.split(torch.randperm(len(lengths)), _WINDOW * size):
        by_length = window[torch.from_numpy(lengths)[window].argsort(stable=True)]
        batches += list(torch.split(by_length, size))
    for place in torch.randperm(len(batches)):
        yield batches[int(place)].numpy()
