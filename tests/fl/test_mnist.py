"""The main job on real images: MNIST, CNN, 10 clients, 8 rounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quancrypt_fl import QuanCryptConfig, Simulation

pytestmark = pytest.mark.slow


def run(mnist_dir: Path, **choices: Any) -> dict[str, Any]:
    config = QuanCryptConfig(
        dataset="mnist", model="cnn", clients=10, rounds=8, data_dir=mnist_dir, **choices
    )
    return Simulation(config).run()


def test_encrypted_training_is_as_good_as_plain(mnist_dir: Path) -> None:
    encrypted, vanilla = run(mnist_dir), run(mnist_dir, method="vanilla")
    assert encrypted["totals"]["test_accuracy"] > 0.95
    difference = encrypted["totals"]["test_accuracy"] - vanilla["totals"]["test_accuracy"]
    assert abs(difference) <= 0.005


def test_an_unpruned_upload_is_at_most_half_of_float32(mnist_dir: Path) -> None:
    """Round 1, which carries the exchange of statistics as well, is no exception."""
    results = run(mnist_dir, pruning=False, max_train_samples=500, max_test_samples=100)
    for record in results["rounds"]:
        assert record["bytes"]["upload"] <= 0.5 * results["totals"]["float32_update_bytes"]
