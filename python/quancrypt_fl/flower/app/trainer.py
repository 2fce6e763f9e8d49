"""The simulation's first model of images, where there is no data."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.config import QuanCryptConfig
from quancrypt_fl.data import ImageDataset, Samples
from quancrypt_fl.errors import ConfigError
from quancrypt_fl.flower.app.learning import Start
from quancrypt_fl.flower.app.settings import RunSettings
from quancrypt_fl.training import trainer_of

__all__ = ["first_model", "start"]


def start(settings: RunSettings) -> Start:
    """What a training begins with."""
    config = settings.configuration()
    assert isinstance(config, QuanCryptConfig)
    if config.patience is not None:
        raise ConfigError(
            "patience: early stopping needs a validation set, and the server of a deployment has "
            "no data; allowed: none"
        )
    weights, size = first_model(settings, config)
    exchanged = sum(tensor.size for tensor in weights.values())
    return Start(weights, size, exchanged, {"dataset": config.dataset, "model": config.model})


def first_model(
    settings: RunSettings, config: QuanCryptConfig
) -> tuple[dict[str, NDArray[np.float32]], int]:
    """The weights with which a training begins, of tensors that travel, and the size of the model.

    The server has no data: shape and number of classes are told.
    """
    assert settings.image_shape is not None
    assert settings.classes is not None
    blank = Samples(np.zeros((1, *settings.image_shape), np.float32), np.zeros(1, np.int64))
    dataset = ImageDataset(config.dataset, blank, blank, settings.classes)
    trainer = trainer_of(config, dataset)
    weights = trainer.weights()
    size = sum(tensor.size for tensor in weights.values())
    local = trainer.buffer_names if config.batch_norm == "local" else frozenset()
    return {name: tensor for name, tensor in weights.items() if name not in local}, size
