"""Local training and evaluation in torch. Weights come and go as named NumPy arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from quancrypt_fl.data import ImageDataset, Samples
from quancrypt_fl.models import build_model
from quancrypt_fl.seeds import derive_seed

__all__ = ["Evaluation", "Trainer", "TrainingOptions", "torch_threads"]

Weights = Mapping[str, NDArray[np.float32]]

_EVALUATION_BATCH = 1000


@dataclass(frozen=True)
class TrainingOptions:
    """Adam's learning rate and weight decay, samples per batch, epochs per round."""

    lr: float
    weight_decay: float
    batch_size: int
    local_epochs: int


@dataclass(frozen=True)
class Evaluation:
    """Share of right answers in [0, 1] and mean cross-entropy over a set of samples."""

    accuracy: float
    loss: float


class Trainer:
    """One model in torch, loaded with the weights of whoever trains or evaluates next.

    Parameters
    ----------
    model
        Name of the model.
    dataset
        Gives the image shape and the number of classes.
    options
        Local training.
    seed
        Decides the initial weights, the order of samples and dropout.
    """

    def __init__(
        self, model: str, dataset: ImageDataset, options: TrainingOptions, seed: int
    ) -> None:
        self._options = options
        self._seed = seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "initial-weights"))
            self._model = build_model(model, dataset.image_shape, dataset.classes)

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """A copy of the model's parameters by name."""
        return {
            name: parameter.detach().numpy().copy()
            for name, parameter in self._model.named_parameters()
        }

    def train(
        self, weights: Weights, samples: Samples, t: int, client: int
    ) -> tuple[dict[str, NDArray[np.float32]], float]:
        """Train from ``weights`` on a client's samples in round ``t``.

        Returns
        -------
        weights : dict
            Trained weights by name.
        loss : float
            Mean loss over all samples seen.
        """
        self._load(weights)
        self._model.train()
        optimizer = torch.optim.Adam(
            self._model.parameters(), lr=self._options.lr, weight_decay=self._options.weight_decay
        )
        images, labels = torch.from_numpy(samples.images), torch.from_numpy(samples.labels)
        loss_sum, seen = 0.0, 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self._seed, "training", t, client))
            for _ in range(self._options.local_epochs):
                order = torch.randperm(len(labels))
                for start in range(0, len(labels), self._options.batch_size):
                    batch = order[start : start + self._options.batch_size]
                    optimizer.zero_grad()
                    loss = nn.functional.cross_entropy(self._model(images[batch]), labels[batch])
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    loss_sum += loss.item() * len(batch)
                    seen += len(batch)
        return self.weights(), loss_sum / seen

    def evaluate(self, weights: Weights, samples: Samples) -> Evaluation:
        """Accuracy and loss of ``weights`` on all of ``samples``."""
        self._load(weights)
        self._model.eval()
        images, labels = torch.from_numpy(samples.images), torch.from_numpy(samples.labels)
        correct, loss_sum = 0, 0.0
        with torch.inference_mode():
            for start in range(0, len(labels), _EVALUATION_BATCH):
                x, y = (part[start : start + _EVALUATION_BATCH] for part in (images, labels))
                scores = self._model(x)
                correct += int((scores.argmax(dim=1) == y).sum().item())
                loss_sum += nn.functional.cross_entropy(scores, y, reduction="sum").item()
        return Evaluation(correct / len(labels), loss_sum / len(labels))

    def _load(self, weights: Weights) -> None:
        with torch.no_grad():
            for name, parameter in self._model.named_parameters():
                parameter.copy_(torch.from_numpy(weights[name]))


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Run a block with ``count`` threads in torch, and put the old number back."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
