"""A client that tunes a language model's adapter, exactly as the simulation's clients do."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np
from flwr.app import Context
from numpy.typing import NDArray

from quancrypt_fl.errors import MethodError
from quancrypt_fl.flower.app.learning import Weights
from quancrypt_fl.flower.app.node import Place, path_of
from quancrypt_fl.flower.app.settings import RunSettings
from quancrypt_fl.flower.app.withheld import RunRefusedError
from quancrypt_fl.lm.beginning import known_initial, take_frozen, weights_digest
from quancrypt_fl.lm.config import FinetuneConfig
from quancrypt_fl.lm.run import LanguageTask
from quancrypt_fl.training import torch_threads

__all__ = ["ADAPTER", "AdapterSite", "check_initial", "site"]

ADAPTER = "adapter"
"""Folder of the final adapter, beside ``model.safetensors``."""

_LOG = logging.getLogger(__name__)


def site(context: Context, settings: RunSettings) -> AdapterSite:
    """The client of a message."""
    return AdapterSite(context, settings)


def check_initial(context: Context, settings: RunSettings, weights: Weights) -> None:
    """Raise :class:`.RunRefusedError` unless the adapter begins as the kit's maker made it."""
    if weights_digest(weights) != known_initial(_frozen(context)):
        raise RunRefusedError(
            "the server's initial adapter is not the one for which this client's kit was made"
        )


def _frozen(context: Context) -> Path:
    return path_of(context.node_config, "quancrypt-frozen", "it is in kits of quancrypt provision")


class AdapterSite:
    """One client with its base model and its data, for one message: a :class:`.learning.Site`.

    Node configuration
    ------------------
    ``partition-id``, ``quancrypt-data``
        See :class:`.Place`. A part: it trains on its part of the rows and evaluates on every so
        manieth row of the test set.
    ``model``, ``data``
        Folder of the base model; a text file, or the folder that the task takes, or ``digits``.
    ``quancrypt-frozen``
        File of the factors that never travel (:mod:`quancrypt_fl.lm.beginning`).
    """

    def __init__(self, context: Context, settings: RunSettings) -> None:
        node, advice = context.node_config, "give quancrypt client --model and --data"
        model, data = path_of(node, "model", advice), path_of(node, "data", advice)
        config = settings.configuration(model=str(model), data=data)
        assert isinstance(config, FinetuneConfig)
        place = Place.of(node, config.clients)
        if place.own_data:  # which nobody divides
            config = config.model_copy(update={"clients": 1, "partition": "iid"})
        self._threads = config.threads or 1
        self._index = place.index
        with torch_threads(self._threads):
            self._task = task = LanguageTask(config)
            take_frozen(task, _frozen(context))
        test = task.data.test
        if place.own_data:
            self._train, self._test = task.data.train, test
        else:
            share = np.arange(place.index % len(test), len(test), config.clients)
            self._train, self._test = task.parts[place.index], test.take(share)

    @property
    def samples(self) -> int:
        """Number of training rows."""
        return len(self._train)

    def train(self, weights: Weights, t: int) -> tuple[dict[str, NDArray[np.float32]], float]:
        """All that ever travels, as trained in round ``t``, from 0, and the mean loss."""
        with torch_threads(self._threads):
            trained, loss = self._task.trainer.train(weights, self._train, t, self._index)
        if not math.isfinite(loss):
            raise MethodError(f"round {t + 1}: local training diverged (mean loss {loss})")
        return trained, loss

    def evaluate(self, weights: Weights) -> dict[str, int | float]:
        """Accuracy and mean loss, and over how many labels: of tokens, in a text."""
        with torch_threads(self._threads):
            found = self._task.trainer.evaluate(weights, self._test)
        return {
            "num-examples": found.answers,
            "accuracy": found.accuracy,
            "loss": found.loss,
        }

    def write(self, folder: Path, weights: Weights) -> None:
        """Write the adapter as peft loads it: ``adapter_model.safetensors`` and its settings."""
        place = folder / ADAPTER
        place.mkdir(mode=0o700, exist_ok=True)
        self._task.write(place, weights)
        _LOG.info("%s: the adapter", place)
