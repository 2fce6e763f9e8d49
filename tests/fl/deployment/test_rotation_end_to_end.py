"""A deployment of real processes that changes its key between two rounds, and loses nothing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr", reason="needs the [flower] extra")
pytest.importorskip("torch", reason="needs the [fl] extra")

from tests.fl.deployment.deployment import Deployment, quancrypt

from quancrypt_fl import QuanCryptConfig, Simulation


def succeed(deployment: Deployment, *arguments: object) -> None:
    environment = {**deployment.environment, "QUANCRYPT_NEW_PASSPHRASE": "only for the way"}
    done = subprocess.run(
        quancrypt(*arguments), env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr + deployment.everything()


@pytest.mark.slow
def test_a_new_key_between_two_rounds(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path, 2, ["--rounds", "1", "--local-epochs", "1"])
    kits, new = deployment.kits, tmp_path / "new"
    try:
        deployment.start_all()
        with deployment.training():
            pass
        deployment.end()
        deployment.running.clear()
        model = tmp_path / "results" / "final-model.sealed"
        succeed(deployment, "rotate", kits / "client-1", "--out", new, "--model", model)
        for name in deployment.names:
            succeed(deployment, "rotate", kits / name, "--install", new / "clients")
        succeed(deployment, "rotate", kits / "server", "--install", new / "server")
        shutil.rmtree(kits / "client-2" / "state")  # it has to catch up from the carried model
        deployment.start_all()
        with deployment.training("--resume", "--rounds", 2):
            pass
        results = deployment.results()
    finally:
        deployment.end()
    assert [record["participants"] for record in results["rounds"]] == [2, 2]
    assert [key["from_round"] for key in results["receipt"]["keys"]] == [1, 2]
    simulation = Simulation(QuanCryptConfig(clients=2, rounds=2, local_epochs=1))
    simulation.run()
    models = deployment.models()
    assert len(models) == 2
    for found in models:
        assert sorted(found) == sorted(simulation.state.weights)
        for name, tensor in simulation.state.weights.items():
            np.testing.assert_array_equal(found[name], tensor)
