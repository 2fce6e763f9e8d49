"""What the tests of the federated side share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the [fl] extra")

from quancrypt_fl import QuanCryptConfig, Simulation

SHARED_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes more than about a minute")


@pytest.fixture(scope="session")
def tiny() -> Callable[..., QuanCryptConfig]:
    """Digits over four clients for three rounds, under a second; arguments change fields."""

    def make(**choices: Any) -> QuanCryptConfig:
        options: dict[str, Any] = {"clients": 4, "rounds": 3, "local_epochs": 1, **choices}
        return QuanCryptConfig(**options)

    return make


@pytest.fixture(scope="session")
def tiny_run(tiny: Callable[..., QuanCryptConfig]) -> tuple[Simulation, dict[str, Any]]:
    """One finished encrypted run, for tests that only look at it."""
    simulation = Simulation(tiny())
    return simulation, simulation.run()


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    folder = SHARED_DATA / "mnist"
    if not folder.is_dir():
        pytest.skip(f"MNIST is not in {folder}")
    return folder
