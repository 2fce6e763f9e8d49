"""A whole deployment on loopback: server, clients and a training, each in processes of its own.

TLS, SuperNode authentication, separate folders: what an operator starts, and nothing of it mocked.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from tests.fl.conftest import SHARED_DATA

from quancrypt_fl import QuanCryptConfig, Simulation
from quancrypt_fl.deployment.sites import free_port

pytest.importorskip("flwr", reason="needs the [flower] extra")

PASSPHRASE = "correct horse battery"
START, TRAINING, END = 90.0, 900.0, 40.0  # seconds


def quancrypt(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "quancrypt_fl", *map(str, arguments)]


@dataclass
class Deployment:
    """The kits of a deployment, and its processes."""

    folder: Path
    clients: int
    options: list[str]
    data: Path | None = None
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.kits = self.folder / "kits"
        self.environment = {
            **os.environ,
            "QUANCRYPT_PASSPHRASE": PASSPHRASE,
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "PASSIVE",
        }
        self.port = free_port()
        place = ["--server-address", f"localhost:{self.port}", "--out", str(self.kits)]
        command = quancrypt("provision", "--clients", self.clients, *place, *self.options)
        done = subprocess.run(command, env=self.environment, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()

    def start(self, name: str, *arguments: object) -> None:
        log = (self.folder / f"{name}.log").open("ab")
        command = quancrypt("server" if name == "server" else "client", self.kits / name)
        self.running[name] = subprocess.Popen(
            [*command, *map(str, arguments)], env=self.environment, stdout=log, stderr=log,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        log.close()

    def start_all(self) -> None:
        self.start("server")
        self.wait_for_port()
        for number in range(1, self.clients + 1):
            data = ["--data-dir", self.data] if self.data else []
            self.start(f"client-{number}", *data)

    def wait_for_port(self) -> None:
        deadline = time.monotonic() + START
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.2)
        raise AssertionError(f"the server does not listen\n{self.everything()}")

    @contextmanager
    def training(self, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
        out = self.folder / "results"
        command = quancrypt("run", self.kits / "server", "--out", out, "--wait", 120, *arguments)
        with (self.folder / "run.log").open("ab") as log:
            run = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        self.running["run"] = run
        yield run
        status = run.wait(TRAINING)
        del self.running["run"]
        assert status == 0, self.everything()

    def everything(self) -> str:
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-6000:]}"
            for path in sorted(self.folder.glob("*.log"))
        )

    def results(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.folder / "results/results.json").read_bytes())
        return document

    def models(self) -> list[dict[str, np.ndarray]]:
        found = sorted(self.kits.glob("client-*/state/**/model.safetensors"))
        return [load_file(path) for path in found]

    def end(self) -> None:
        for process in self.running.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.running.values():
            try:
                process.wait(END)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def deploy(tmp_path: Path) -> Iterator[Callable[..., Deployment]]:
    with ExitStack() as stack:

        def make(clients: int, *options: object, data: Path | None = None) -> Deployment:
            deployment = Deployment(tmp_path, clients, [str(o) for o in options], data)
            stack.callback(deployment.end)
            deployment.start_all()
            return deployment

        yield make


def assert_same_model(found: dict[str, np.ndarray], expected: dict[str, Any]) -> None:
    assert sorted(found) == sorted(expected)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor)


def test_two_clients_end_with_the_model_of_the_simulation(
    deploy: Callable[..., Deployment],
) -> None:
    deployment = deploy(2, "--rounds", 2, "--local-epochs", 1)
    with deployment.training():
        pass
    results = deployment.results()
    assert [record["participants"] for record in results["rounds"]] == [2, 2]
    assert results["receipt"]["protected"]
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
