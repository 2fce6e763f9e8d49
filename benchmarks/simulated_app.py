"""A Flower app for many simulated clients: a model of quancrypt_fl, and a few images per client.

The choices come in the environment, so that Ray's workers see them too.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

import quancrypt_native as qn
from quancrypt_fl.data import ImageDataset, Samples, load_dataset
from quancrypt_fl.flower import QuanCryptStrategy, open_model, quancrypt_mod
from quancrypt_fl.seeds import generator
from quancrypt_fl.training import Trainer, TrainingOptions

CHOICES = "SIMULATED_APP"  # environment variable: a JSON document, see flower_simulation.py


@lru_cache(maxsize=1)
def choices() -> dict[str, Any]:
    return json.loads(os.environ[CHOICES])


client_app = ClientApp(mods=[] if choices()["plain"] else [quancrypt_mod])
server_app = ServerApp()


@lru_cache(maxsize=1)
def dataset() -> ImageDataset:
    """The data set; MNIST without a folder is noise of MNIST's shape."""
    name, folder = choices()["dataset"], choices()["data_dir"]
    if name == "mnist" and folder is None:
        rng = np.random.default_rng(1)
        images = rng.normal(size=(2000, 1, 28, 28)).astype(np.float32)
        noise = Samples(images, rng.integers(0, 10, 2000))
        return ImageDataset(name, noise, noise.head(200), classes=10)
    return load_dataset(name, Path(folder) if folder else None, seed=1)


@lru_cache(maxsize=1)
def trainer() -> Trainer:
    torch.set_num_threads(1)
    options = TrainingOptions(lr=0.001, weight_decay=0.0, batch_size=32, local_epochs=1)
    return Trainer(choices()["model"], dataset(), options, seed=1)


def samples_of(client: int) -> Samples:
    """So many images for every client, drawn with replacement: clients outnumber images."""
    train = dataset().train
    drawn = generator(1, "simulated-client", client).integers(0, len(train), choices()["samples"])
    return train.take(drawn)


def arrays_of(weights: dict[str, np.ndarray]) -> ArrayRecord:
    return ArrayRecord({name: Array(tensor) for name, tensor in weights.items()})


@client_app.train()
def train(message: Message, context: Context) -> Message:
    weights = {name: array.numpy() for name, array in message.content["arrays"].items()}
    index = int(context.node_config["partition-id"])
    samples = samples_of(index)
    trained, loss = trainer().train(
        weights, samples, int(message.content["config"]["server-round"]), index
    )
    metrics = MetricRecord({"train_loss": loss, "num-examples": len(samples)})
    return Message(RecordDict({"arrays": arrays_of(trained), "metrics": metrics}), reply_to=message)


class TimedGrid:
    """The grid, with a clock on it."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self.spent: dict[str, float] = {}
        self.calls: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._grid, name)

    def push_messages(self, messages: Iterable[Message]) -> Any:
        return self._timed("push", lambda: self._grid.push_messages(messages))

    def pull_messages(self, message_ids: Iterable[str]) -> Any:
        return self._timed("pull", lambda: self._grid.pull_messages(message_ids))

    def _timed(self, name: str, call: Any) -> Any:
        start = time.perf_counter()
        found = call()
        self.spent[name] = self.spent.get(name, 0.0) + time.perf_counter() - start
        self.calls[name] = self.calls.get(name, 0) + 1
        return found


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Train, and write what happened to the file that the choices name."""
    del context
    wanted = choices()
    weights = trainer().weights()
    params = qn.Parameters.from_bytes(Path(wanted["params"]).read_bytes())
    everybody = {"min_train_nodes": wanted["clients"], "min_available_nodes": wanted["clients"]}
    strategy: Any = (
        FedAvg(fraction_evaluate=0.0, **everybody)
        if wanted["plain"]
        else QuanCryptStrategy(
            params, weighting=wanted["weighting"], fraction_evaluate=0.0, **everybody
        )
    )
    timed = TimedGrid(grid)
    started, used = time.perf_counter(), time.process_time()
    result = strategy.start(timed, arrays_of(weights), num_rounds=wanted["rounds"], timeout=3000)
    report = {
        "records": [] if wanted["plain"] else strategy.records,
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - used,
        "grid": {"seconds": timed.spent, "calls": timed.calls},
        "values": sum(tensor.size for tensor in weights.values()),
    }
    if wanted["plain"]:
        final = {name: array.numpy() for name, array in result.arrays.items()}
    else:
        key = Path(os.environ["QUANCRYPT_KEY"]).read_bytes()
        passphrase = os.environ["QUANCRYPT_PASSPHRASE"].encode()
        secret = qn.SecretKey.from_bytes(key, params, passphrase=passphrase)  # as a client would
        final = dict(open_model(result.arrays, secret).state.weights)
    report["test_accuracy"] = trainer().evaluate(final, dataset().test).accuracy
    Path(wanted["report"]).write_text(json.dumps(report))
