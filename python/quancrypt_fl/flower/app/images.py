"""A client with images: trains on its part of the data, exactly as the simulation's clients do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from flwr.app import Context
from numpy.typing import NDArray

from quancrypt_fl.config import QuanCryptConfig
from quancrypt_fl.data import ImageDataset, Samples, load_dataset, split_as
from quancrypt_fl.errors import ConfigError, MethodError
from quancrypt_fl.flower.app.buffers import OwnBuffers
from quancrypt_fl.flower.app.learning import Weights
from quancrypt_fl.flower.app.node import Place
from quancrypt_fl.flower.app.settings import RunSettings
from quancrypt_fl.flower.app.trainer import first_model
from quancrypt_fl.flower.app.withheld import RunRefusedError
from quancrypt_fl.training import torch_threads, trainer_of

__all__ = ["ImageSite", "check_initial", "site"]

_DRAWN_ALIKE = 1e-5  # first weights differ in their last bits from one processor to the next


def site(context: Context, settings: RunSettings) -> ImageSite:
    """The client of a message."""
    return ImageSite(context, settings)


def check_initial(context: Context, settings: RunSettings, weights: Weights) -> None:
    """Raise :class:`.RunRefusedError` unless these are the weights that the run's seed gives."""
    config = settings.configuration()
    assert isinstance(config, QuanCryptConfig)
    with torch_threads(config.threads or 1):
        own, _ = first_model(settings, config)
    if own.keys() != weights.keys() or not all(
        weights[name].shape == tensor.shape
        and np.allclose(weights[name], tensor, rtol=_DRAWN_ALIKE, atol=_DRAWN_ALIKE)
        for name, tensor in own.items()
    ):
        raise RunRefusedError(
            f"the server's initial model is not the one that seed = {config.seed} gives here"
        )


@dataclass
class _Data:
    train: Samples
    test: Samples


class ImageSite:
    """One client with its data, for one message: a :class:`.learning.Site`.

    Node configuration
    ------------------
    ``partition-id``, ``quancrypt-data``
        See :class:`.Place`. A part: it trains on its part of the training set and evaluates on
        every so manieth sample of the test set.
    ``data-dir``
        Folder of the data set's files.
    """

    def __init__(self, context: Context, settings: RunSettings) -> None:
        node = context.node_config
        config = settings.configuration(data_dir=node.get("data-dir") or None)
        assert isinstance(config, QuanCryptConfig)
        self.config = config
        place = Place.of(node, config.clients)
        self.index = place.index
        dataset = load_dataset(config.dataset, config.data_dir, config.seed)
        if (dataset.image_shape, dataset.classes) != (settings.image_shape, settings.classes):
            raise ConfigError(
                f"the data's images are {dataset.image_shape} in {dataset.classes} classes; the "
                f"run's are {settings.image_shape} in {settings.classes}"
            )
        dataset = dataset.limited(config.max_train_samples, config.max_test_samples)
        self._trainer = trainer_of(config, dataset)
        self._data = _divided(dataset, config, place)
        initial = self._trainer.weights()
        local = self._trainer.buffer_names if config.batch_norm == "local" else frozenset()
        state = node.get("quancrypt-state")
        self._own = OwnBuffers(
            {name: initial[name] for name in sorted(local)},
            context.state,
            Path(str(state)) / "buffers.safetensors" if state else None,
        )

    @property
    def samples(self) -> int:
        """Number of training samples."""
        return len(self._data.train)

    def train(self, weights: Weights, t: int) -> tuple[dict[str, NDArray[np.float32]], float]:
        """Trained weights that travel, and the mean loss; ``t`` counts rounds from 0."""
        own = self._own.before(t)
        with torch_threads(self.config.threads or 1):
            trained, loss = self._trainer.train({**weights, **own}, self._data.train, t, self.index)
        if not math.isfinite(loss):
            raise MethodError(f"round {t + 1}: local training diverged (mean loss {loss})")
        self._own.keep({name: trained.pop(name) for name in own})
        return trained, loss

    def evaluate(self, weights: Weights) -> dict[str, int | float]:
        """Accuracy and mean loss, and over how many samples."""
        with torch_threads(self.config.threads or 1):
            found = self._trainer.evaluate({**weights, **self._own.latest()}, self._data.test)
        return {
            "num-examples": len(self._data.test),
            "accuracy": found.accuracy,
            "loss": found.loss,
        }

    def write(self, folder: Path, weights: Weights) -> None:
        """Nothing: ``model.safetensors`` is there, and it is all that there is."""


def _divided(dataset: ImageDataset, config: QuanCryptConfig, place: Place) -> _Data:
    if place.own_data:
        return _Data(dataset.train, dataset.test)
    parts = split_as(config, dataset.train.labels, dataset.train.groups)
    test = dataset.test
    # With more clients than samples, several evaluate the same one.
    share = np.arange(place.index % len(test), len(test), config.clients)
    return _Data(dataset.train.take(parts.clients[place.index]), test.take(share))
