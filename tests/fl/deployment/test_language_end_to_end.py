"""A fine-tuning deployed from kits: processes, TLS, and at the end the simulation's adapter."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read once, when its library is imported
pytest.importorskip("flwr", reason="needs the [flower] extra")
pytest.importorskip("transformers", reason="needs the [lm] extra")
pytest.importorskip("peft", reason="needs the [lm] extra")

from tests.fl.deployment.deployment import Deployment
from tests.fl.deployment.language import settings_for, tuning_file, write_things

from quancrypt_fl.lm.config import FinetuneConfig
from quancrypt_fl.lm.run import Finetuning

FILES = ("adapter_model.safetensors", "adapter_config.json")


class LanguageDeployment(Deployment):
    """Clients with a base model and data each."""

    task: str
    model: Path
    data: Path

    def start(self, name: str) -> None:
        if name == "server":
            super().start(name)
        else:
            files = ["--model", self.model, "--data", self.data]
            self._start(name, "client", self.kits / name, *files)


@pytest.fixture(params=["causal", "clip", "multimodal"])
def deployment(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[LanguageDeployment]:
    task, things = request.param, tmp_path / "things"
    model, data = write_things(things, task)
    file = tuning_file(things, tmp_path, task, mode="alternate")
    made = LanguageDeployment(tmp_path, 2, ["--finetune", str(file)])
    made.task, made.model, made.data = task, model, data
    try:
        made.start_all()
        yield made
    finally:
        made.end()


@pytest.mark.slow
def test_clients_end_with_the_adapter_of_the_simulation(
    deployment: LanguageDeployment, tmp_path: Path
) -> None:
    with deployment.training():
        pass
    simulation = Finetuning(
        FinetuneConfig(
            **settings_for(deployment.task),
            model=str(deployment.model),
            data=deployment.data,
            mode="alternate",
            out=tmp_path / "simulated",
        )
    )
    expected = simulation.run()
    folders = [
        next((deployment.kits / name / "state").glob("*/adapter")) for name in deployment.names
    ]
    for folder in folders:
        for name in FILES:
            assert (folder / name).read_bytes() == (tmp_path / "simulated" / name).read_bytes()
    results = deployment.results()
    assert (results["engine"], results["metric"]) == ("flower", expected["metric"])
    assert results["receipt"]["protected"]
    values = [record["value"] for record in results["rounds"]]
    assert values == pytest.approx([r["value"] for r in expected["rounds"]], rel=1e-5)
    assert expected["metric"] in deployment.log("run").lower()
    deployment.end()
    assert all(process.returncode == 0 for process in deployment.running.values())
