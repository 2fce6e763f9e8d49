"""What the paper publishes, as data: QuanCrypt-FL, arXiv 2411.05260 (v1).

Accuracies are best test accuracies over 300 rounds, in per cent. Times are those of a whole run of
AlexNet on CIFAR-10 (2 x RTX A6000, Core i9; TenSEAL, N = 16384, primes of 60-40-40-40-60 bits).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["BEST_ACCURACY", "CLIENTS", "PAPER", "RUN_TIMES", "RunTime", "best_accuracy"]

PAPER = "arXiv 2411.05260"

CLIENTS = (10, 20, 30, 40, 50)

BEST_ACCURACY: Mapping[tuple[str, str, str], tuple[float | None, ...]] = {
    ("mnist", "cnn", "quancrypt"): (99.44, 99.29, 99.22, 99.10, 98.98),
    ("mnist", "cnn", "vanilla"): (99.40, 99.33, 99.20, 99.06, 98.97),
    ("mnist", "cnn", "batchcrypt"): (99.14, None, None, None, None),
    ("cifar10", "alexnet", "batchcrypt"): (70.84, 69.54, 67.21, 70.15, 68.18),
    ("cifar10", "alexnet", "quancrypt"): (81.45, 79.62, 78.96, 77.10, 75.62),
    ("cifar10", "alexnet", "vanilla"): (81.64, 80.39, 80.29, 78.92, 78.05),
    ("cifar100", "alexnet", "batchcrypt"): (34.58, 33.14, 33.56, 32.87, 33.73),
    ("cifar100", "alexnet", "quancrypt"): (47.90, 43.70, 48.81, 48.62, 45.40),
    ("cifar100", "alexnet", "vanilla"): (48.59, 49.54, 49.14, 48.93, 49.68),
    ("cifar100", "resnet18", "batchcrypt"): (34.05, 33.14, 35.74, 36.56, 33.73),
    ("cifar100", "resnet18", "quancrypt"): (48.21, 48.89, 48.66, 49.26, 48.70),
    ("cifar100", "resnet18", "vanilla"): (52.62, 53.48, 54.08, 53.90, 54.20),
}
"""Per cent, by (dataset, model, method), in the order of :data:`CLIENTS`."""


@dataclass(frozen=True, slots=True)
class RunTime:
    """A time of a whole run with 10 and with 50 clients, as printed, and the paper's headline."""

    what: str
    batchcrypt: str
    quancrypt: str
    headline: float


RUN_TIMES: Mapping[str, RunTime] = {
    "protect": RunTime("encryption time", "8.97 h to 10.07 h", "0.97 h to 4.90 h", 9.0),
    "unprotect": RunTime("decryption time", "23.55 min to 10.66 min", "1.42 min to 1.45 min", 16.0),
    "evaluate": RunTime("inference (test-set pass)", "2.02 s", "1.30 s to 1.34 s", 1.5),
    "train": RunTime("training time", "16.60 h to 17.59 h", "1.83 h to 5.86 h", 3.0),
}
"""By the phase of a round that they correspond to."""


def best_accuracy(dataset: str, model: str, method: str, clients: int) -> float | None:
    """Published best accuracy in per cent; None where the paper gives none."""
    row = BEST_ACCURACY.get((dataset, model, method))
    return row[CLIENTS.index(clients)] if row is not None and clients in CLIENTS else None
