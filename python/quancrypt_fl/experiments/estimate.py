"""How long an experiment will take, before anything has run: from times measured on two cores.

Orders of magnitude only. While an experiment runs, what is left is estimated from its own rounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quancrypt_fl.config import QuanCryptConfig
from quancrypt_fl.data import load_dataset
from quancrypt_fl.errors import DataError
from quancrypt_fl.experiments.cells import Cell, TrainingCell

__all__ = ["Sizes", "cell_seconds", "data_sizes"]

_OFFICIAL: Mapping[str, tuple[int, int]] = {
    "digits": (1_438, 359),
    "mnist": (60_000, 10_000),
    "fashion-mnist": (60_000, 10_000),
    "cifar10": (50_000, 10_000),
    "cifar100": (50_000, 10_000),
    "ham10000": (8_012, 2_003),
}

# Milliseconds per image on two cores of a Zen 4 (measured), in training and in evaluation.
_MILLISECONDS: Mapping[str, tuple[float, float]] = {
    "mlp": (0.02, 0.003),
    "cnn": (0.29, 0.1),
    "alexnet": (0.9, 0.3),
    "resnet18": (24.0, 8.0),
}
_GPU_FACTOR = 25.0  # how much faster a data-centre GPU is; on small batches no more
_VALIDATION = 0.2  # of the training images, on which no client trains
_START_SECONDS = 3.0  # reading data, drawing the plot of a run


@dataclass(frozen=True, slots=True)
class Sizes:
    """Images of a data set; ``missing`` says why they are the official numbers, or is None."""

    train: int
    test: int
    missing: str | None = None


def data_sizes(names: Sequence[str], data_dir: Path | None) -> dict[str, Sizes]:
    """Sizes of the files that are there; of the official ones where there are none."""
    found = {}
    for name in names:
        try:
            dataset = load_dataset(name, data_dir, 1)
            found[name] = Sizes(len(dataset.train), len(dataset.test))
        except DataError as error:
            found[name] = Sizes(*_OFFICIAL[name], str(error))
    return found


def cell_seconds(cell: Cell, sizes: Mapping[str, Sizes]) -> float | None:
    """Estimated seconds of a cell; None for a measurement, which does not tell."""
    if not isinstance(cell, TrainingCell):
        return None
    config = cell.config.resolved()
    return _START_SECONDS + config.rounds * _round_seconds(config, sizes[config.dataset])


def _round_seconds(config: QuanCryptConfig, size: Sizes) -> float:
    train = min(size.train, config.max_train_samples or size.train) * (1 - _VALIDATION)
    test = min(size.test, config.max_test_samples or size.test)
    training, evaluation = _MILLISECONDS[config.model]
    epochs = config.local_epochs or 1
    seconds = (train * config.participation * epochs * training + test * evaluation) / 1000
    return seconds / (_GPU_FACTOR if config.device == "cuda" else 1.0)
