"""The client: trains on its part of the data, exactly as the simulation's clients do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from quancrypt_fl.config import QuanCryptConfig
from quancrypt_fl.data import ImageDataset, Samples, load_dataset, split
from quancrypt_fl.errors import ConfigError, MethodError
from quancrypt_fl.flower import quancrypt_mod
from quancrypt_fl.flower.app.buffers import OwnBuffers
from quancrypt_fl.flower.app.settings import RunSettings
from quancrypt_fl.training import torch_threads, trainer_of

__all__ = ["Site", "app"]

Weights = dict[str, NDArray[np.float32]]

app = ClientApp(mods=[quancrypt_mod])


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the global model for a round."""
    site = Site(context)
    t = _round(message)
    weights, loss = site.train(_weights(message), t)
    content = RecordDict(
        {
            "arrays": ArrayRecord({name: Array(tensor) for name, tensor in weights.items()}),
            "metrics": MetricRecord({"num-examples": site.samples, "train_loss": loss}),
        }
    )
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the global model on this client's share of the test set."""
    site = Site(context)
    metrics = MetricRecord(dict(site.evaluate(_weights(message))))
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


@dataclass
class _Data:
    train: Samples
    test: Samples


class Site:
    """One client with its data, for one message.

    Node configuration
    ------------------
    ``partition-id``
        Its number among the clients. Which part of a divided data set is its own; into how many,
        the run says, for clients may have come since this one's kit was made.
    ``data-dir``
        Folder of the data set's files.
    ``quancrypt-data``
        ``"part"`` (the default): it trains on its part of the training set and evaluates on every
        so manieth sample of the test set. ``"all"``: the files are the site's own data, and it
        trains and evaluates on all of them.
    """

    def __init__(self, context: Context) -> None:
        settings = RunSettings.of(context.run_config)
        node = context.node_config
        self.config = settings.configuration(data_dir=node.get("data-dir") or None)
        self.index = _number(node, "partition-id")
        mode, clients = str(node.get("quancrypt-data", "")), self.config.clients
        if self.index < 0 or (self.index >= clients and mode != "all"):
            raise ConfigError(
                f"this client is partition {self.index}, and the run divides its data among "
                f"{clients} clients, 0 to {clients - 1}; a client that came later takes part with "
                "data of its own (quancrypt client --own-data), or from the next quancrypt run on"
            )
        dataset = load_dataset(self.config.dataset, self.config.data_dir, self.config.seed)
        if (dataset.image_shape, dataset.classes) != (settings.image_shape, settings.classes):
            raise ConfigError(
                f"the data's images are {dataset.image_shape} in {dataset.classes} classes; the "
                f"run's are {settings.image_shape} in {settings.classes}"
            )
        dataset = dataset.limited(self.config.max_train_samples, self.config.max_test_samples)
        self._trainer = trainer_of(self.config, dataset)
        self._data = _divided(dataset, self.config, self.index, mode)
        initial = self._trainer.weights()
        local = self._trainer.buffer_names if self.config.batch_norm == "local" else frozenset()
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

    def train(self, weights: Weights, t: int) -> tuple[Weights, float]:
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


def _divided(dataset: ImageDataset, config: QuanCryptConfig, index: int, mode: str) -> _Data:
    if mode == "all":
        return _Data(dataset.train, dataset.test)
    if mode not in ("", "part"):
        raise ConfigError(
            f"quancrypt-data = {mode!r} in the node configuration; allowed: part, all"
        )
    parts = split(
        dataset.train.labels,
        config.clients,
        config.partition,
        config.seed,
        shards_per_client=config.shards_per_client,
        dirichlet_alpha=config.dirichlet_alpha,
        groups=dataset.train.groups,
    )
    test = dataset.test
    # With more clients than samples, several evaluate the same one.
    share = np.arange(index % len(test), len(test), config.clients)
    return _Data(dataset.train.take(parts.clients[index]), test.take(share))


def _round(message: Message) -> int:
    """Rounds finished before this one, from the configuration that every strategy of Flower
    sends.
    """
    number = next(
        (
            record["server-round"]
            for record in message.content.config_records.values()
            if "server-round" in record
        ),
        None,
    )
    if not isinstance(number, int) or number < 1:
        raise ConfigError(f"server-round is {number!r}; allowed: 1 or more")
    return number - 1


def _weights(message: Message) -> Weights:
    (arrays,) = message.content.array_records.values()
    return {name: array.numpy() for name, array in arrays.items()}


def _number(node: Any, name: str) -> int:
    value = node.get(name)
    if not isinstance(value, int):
        raise ConfigError(f"{name} = {value!r} in the node configuration; allowed: a number")
    return value
