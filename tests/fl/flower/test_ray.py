"""Hundreds of clients on this machine, by Flower's own simulation (``benchmarks/``)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="needs the [scale] extra")

SIMULATION = Path(__file__).resolve().parents[3] / "benchmarks" / "flower_simulation.py"
GIB = 1 << 30
HANDFUL = ("--clients", "4", "--dataset", "digits", "--model", "mlp", "--samples", "300")


def simulate(*arguments: str) -> dict[str, Any]:
    """Two rounds, by two workers, in a process of their own."""
    command = [sys.executable, str(SIMULATION), "--rounds", "2", "--workers", "2", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    assert run.returncode == 0, run.stderr[-4000:]
    found: dict[str, Any] = json.loads(run.stdout)
    return found


def assert_complete(found: dict[str, Any], clients: int) -> None:
    """Every client is in both sums, with the same weight: all have as many samples."""
    assert [record["failed"] for record in found["records"]] == [None, None]
    assert [record["participants"] for record in found["records"]] == [clients, clients]
    assert [record["weight"] for record in found["records"]] == [clients, clients]


def test_a_handful_learns() -> None:
    found = simulate(*HANDFUL)
    assert_complete(found, 4)
    assert found["test_accuracy"] > 0.5


@pytest.mark.slow
def test_a_handful_is_as_good_as_plain_averaging() -> None:
    """Within what quantization and pruning change."""
    encrypted, plain = simulate(*HANDFUL), simulate(*HANDFUL, "--plain")
    assert abs(encrypted["test_accuracy"] - plain["test_accuracy"]) < 0.05


@pytest.mark.slow
def test_200_clients_with_the_cnn() -> None:
    """Memory beside the clients' own state: 200 times a model and a trained model (0.7 GB)."""
    found = simulate("--clients", "200")
    assert found["values"] == 421_642
    assert_complete(found, 200)
    assert found["memory"]["server"] < 2.5 * GIB
    assert found["memory"]["all"] < 6 * GIB


@pytest.mark.slow
def test_200_clients_with_state_folders_take_less_memory() -> None:
    found = simulate("--clients", "200", "--state")
    assert_complete(found, 200)
    assert found["memory"]["server"] < 1 * GIB


@pytest.mark.slow
def test_1000_clients_with_a_small_model() -> None:
    found = simulate("--clients", "1000", "--dataset", "digits", "--model", "mlp")
    assert_complete(found, 1000)
    assert found["memory"]["server"] < 1.5 * GIB
    assert found["memory"]["all"] < 5 * GIB
    assert found["grid"]["calls"]["pull"] < 400_000  # 42,000 on a quiet machine
