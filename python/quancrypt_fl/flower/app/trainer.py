"""The simulation's trainer and first model, for one side of a deployment."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.config import QuanCryptConfig
from quancrypt_fl.data import ImageDataset, Samples
from quancrypt_fl.flower.app.settings import RunSettings
from quancrypt_fl.training import Trainer, TrainingOptions

__all__ = ["first_model", "make_trainer"]


def make_trainer(config: QuanCryptConfig, dataset: ImageDataset) -> Trainer:
    """The trainer of a resolved configuration; of the data set only shape and classes count."""
    assert config.batch_size is not None
    assert config.local_epochs is not None
    options = TrainingOptions(
        config.lr, config.weight_decay, config.batch_size, config.local_epochs
    )
    return Trainer(config.model, dataset, options, config.seed, config.device)


def first_model(
    settings: RunSettings, config: QuanCryptConfig
) -> tuple[dict[str, NDArray[np.float32]], int]:
    """The weights with which a training begins, of tensors that travel, and the size of the model.

    The server has no data: shape and number of classes are told.
    """
    blank = Samples(np.zeros((1, *settings.image_shape), np.float32), np.zeros(1, np.int64))
    dataset = ImageDataset(config.dataset, blank, blank, settings.classes)
    trainer = make_trainer(config, dataset)
    weights = trainer.weights()
    size = sum(tensor.size for tensor in weights.values())
    local = trainer.buffer_names if config.batch_norm == "local" else frozenset()
    return {name: tensor for name, tensor in weights.items() if name not in local}, size
