"""A federation that learns to recognise images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from quancrypt_fl.atomic_files import write_atomically
from quancrypt_fl.config import QuanCryptConfig
from quancrypt_fl.data import ImageDataset, Samples, load_dataset, split_as
from quancrypt_fl.engines.federation import FederatedRun
from quancrypt_fl.engines.parties import Client
from quancrypt_fl.method.roles import Tensors
from quancrypt_fl.observer import Observer
from quancrypt_fl.training import Evaluation, trainer_of

__all__ = ["ImageTask", "Simulation"]


class ImageTask:
    """A data set divided over clients, and a model: a :class:`~quancrypt_fl.engines.task.Task`.

    Parameters
    ----------
    config
        What to run, its defaults filled in.
    """

    turns: tuple[frozenset[str], ...] = ()
    trained_by: Mapping[str, frozenset[int]] = {}  # a mapping that nobody changes
    judged_by = "accuracy"

    def __init__(self, config: QuanCryptConfig) -> None:
        self._config = config
        dataset = load_dataset(config.dataset, config.data_dir, config.seed)
        dataset = dataset.limited(config.max_train_samples, config.max_test_samples)
        self.trainer = trainer_of(config, dataset)
        weights = self.trainer.weights()
        local = self.trainer.buffer_names if config.batch_norm == "local" else frozenset()
        self.own_buffers: Tensors = {name: weights.pop(name) for name in sorted(local)}
        self.weights: Tensors = weights
        self.parts, validation = _divide(dataset, config)
        self.samples: Mapping[str, Samples] = {"test": dataset.test, "validation": validation}
        self.fingerprints = {"data": _fingerprint(dataset)}

    def round_begins(self, t: int, parts: Callable[[], Mapping[int, float]]) -> None:
        """Nothing is to be done."""

    def evaluate(self, part: str, weights: Tensors, clients: Sequence[Client]) -> Evaluation:
        """Evaluate global weights. Where clients keep their own batch-norm statistics, each of them
        evaluates every so manieth sample.
        """
        samples = self.samples[part]
        if not self.own_buffers:
            return self.trainer.evaluate(weights, samples)
        correct = loss = 0.0
        step = min(len(clients), len(samples))
        for client in clients[:step]:
            taken = samples.take(np.arange(client.index, len(samples), step))
            evaluation = self.trainer.evaluate(client.model(weights), taken)
            correct += evaluation.accuracy * len(taken)
            loss += evaluation.loss * len(taken)
        return Evaluation(correct / len(samples), loss / len(samples), len(samples))

    def record(self, test: Evaluation) -> dict[str, Any]:
        """Nothing beside what all rounds have."""
        del test
        return {}

    def about(self) -> dict[str, Any]:
        """Data set and model."""
        return {"dataset": self._config.dataset, "model": self._config.model}

    def sizes(self) -> tuple[int, int]:
        """Weights and batch-norm statistics: all, and those that are averaged."""
        averaged = sum(tensor.size for tensor in self.weights.values())
        return averaged + sum(tensor.size for tensor in self.own_buffers.values()), averaged

    def write(self, folder: Path, weights: Tensors) -> None:
        """Write ``model.safetensors``."""
        from safetensors.numpy import save

        write_atomically(folder / "model.safetensors", save(dict(weights)))


class Simulation(FederatedRun):
    """One federated run on images.

    Parameters
    ----------
    config
        What to run.
    resume, observer
        As of :class:`~quancrypt_fl.engines.federation.FederatedRun`, whose attributes it has too;
        ``config`` is then the configuration with its defaults filled in.

    Examples
    --------
    >>> from quancrypt_fl import QuanCryptConfig, Simulation
    >>> results = Simulation(QuanCryptConfig(dataset="digits", rounds=1)).run()
    >>> results["receipt"]["aggregator_held_secret_key"]
    False
    """

    config: QuanCryptConfig
    task: ImageTask

    def __init__(
        self, config: QuanCryptConfig, *, resume: bool = False, observer: Observer | None = None
    ) -> None:
        resolved = config.resolved()
        super().__init__(resolved, ImageTask(resolved), resume=resume, observer=observer)


def _divide(dataset: ImageDataset, config: QuanCryptConfig) -> tuple[list[Samples], Samples]:
    """The clients' samples, and the validation set."""
    parts = split_as(config, dataset.train.labels, dataset.train.groups)
    clients = [dataset.train.take(indices) for indices in parts.clients]
    return clients, dataset.train.take(parts.validation)


def _fingerprint(dataset: ImageDataset) -> str:
    """Of sizes and labels: other files under the same name would be split in another way."""
    digest = hashlib.sha256()
    for part in (dataset.train, dataset.test):
        digest.update(repr(part.images.shape).encode())
        digest.update(np.ascontiguousarray(part.labels).tobytes())
    return digest.hexdigest()
