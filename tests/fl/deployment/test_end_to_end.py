"""A deployment from its start to its end: the model is the simulation's, at every client."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.fl.conftest import SHARED_DATA
from tests.fl.deployment.deployment import Deployment, assert_same_model

from quancrypt_fl import QuanCryptConfig, Simulation
from quancrypt_fl.envelopes import Members

pytest.importorskip("flwr", reason="needs the [flower] extra")


def test_two_clients_end_with_the_model_of_the_simulation(
    deploy: Callable[..., Deployment],
) -> None:
    deployment = deploy(2, "--rounds", 2, "--local-epochs", 1)
    with deployment.training():
        pass
    results = deployment.results()
    assert [record["participants"] for record in results["rounds"]] == [2, 2]
    assert results["receipt"]["protected"]
    # Every reply was signed, and checked against the members of the server's kit.
    members = Members.load(deployment.kits / "server" / "members.toml").fingerprint
    signed = {"members": members, "refused": {}}
    assert [record["envelopes"] for record in results["rounds"]] == [signed, signed]
    config = QuanCryptConfig(clients=2, rounds=2, local_epochs=1)
    simulation = Simulation(config)
    expected = simulation.run()
    models = deployment.models()
    assert len(models) == 2
    for model in models:
        assert_same_model(model, dict(simulation.state.weights))
    accuracies = [record["test_accuracy"] for record in results["rounds"]]
    assert accuracies == pytest.approx([r["test_accuracy"] for r in expected["rounds"]], abs=1e-9)
    deployment.end()
    assert all(process.returncode == 0 for process in deployment.running.values())


@pytest.mark.slow
def test_five_clients_on_mnist_over_tls(deploy: Callable[..., Deployment]) -> None:
    data = SHARED_DATA / "mnist"
    if not data.is_dir():
        pytest.skip("needs ../shared/data/mnist")
    options = ["--dataset", "mnist", "--model", "cnn", "--rounds", 5]
    deployment = deploy(5, *options, data=SHARED_DATA)
    with deployment.training():
        pass
    simulation = Simulation(
        QuanCryptConfig(dataset="mnist", model="cnn", clients=5, rounds=5, data_dir=SHARED_DATA)
    )
    simulation.run()
    models = deployment.models()
    assert len(models) == 5
    for model in models:
        assert_same_model(model, dict(simulation.state.weights))
