"""The experiments by name."""

from __future__ import annotations

from collections.abc import Mapping

from quancrypt_fl.errors import ConfigError
from quancrypt_fl.experiments.ablations import (
    ABLATION_BITS,
    ABLATION_CLIP,
    ABLATION_PRUNING,
    ABLATION_SMOOTHING,
)
from quancrypt_fl.experiments.accuracy import (
    CIFAR10_CLIENTS,
    CIFAR100,
    MNIST_CLIENTS,
    NONIID,
    WEIGHTS_VS_DIFFERENCES,
)
from quancrypt_fl.experiments.communication import COMMUNICATION
from quancrypt_fl.experiments.experiment import Experiment
from quancrypt_fl.experiments.timing import TIMING

__all__ = ["EXPERIMENTS", "find_experiment"]

_ALL: tuple[Experiment, ...] = (
    MNIST_CLIENTS,
    CIFAR10_CLIENTS,
    CIFAR100,
    TIMING,
    COMMUNICATION,
    ABLATION_BITS,
    ABLATION_CLIP,
    ABLATION_PRUNING,
    ABLATION_SMOOTHING,
    NONIID,
    WEIGHTS_VS_DIFFERENCES,
)

EXPERIMENTS: Mapping[str, Experiment] = {experiment.name: experiment for experiment in _ALL}


def find_experiment(name: str) -> Experiment:
    """The experiment called ``name``.

    Raises
    ------
    ConfigError
        If there is none: names all.
    """
    if name not in EXPERIMENTS:
        raise ConfigError(f"no experiment {name!r}; there are: {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]
