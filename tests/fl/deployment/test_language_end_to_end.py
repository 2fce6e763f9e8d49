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
from tests.fl.deployment.language import SETTINGS, tuning_file
from tests.fl.lm import tiny

from quancrypt_fl.lm.config import FinetuneConfig
from quancrypt_fl.lm.run import Finetuning

FILES = ("adapter_model.safetensors", "adapter_config.json")


class LanguageDeployment(Deployment):
    """Clients with a base model and a text each."""

    model: Path
    text: Path

    def start(self, name: str) -> None:
        if name == "server":
            super().start(name)
        else:
            files = ["--model", self.model, "--data", self.text]
            self._start(name, "client", self.kits / name, *files)


@pytest.fixture
def things(tmp_path: Path) -> Path:
    folder = tmp_path / "things"
    folder.mkdir()
    tiny.gpt2(folder / "gpt2")
    tiny.text(folder / "text.txt")
    return folder


@pytest.fixture
def deployment(tmp_path: Path, things: Path) -> Iterator[LanguageDeployment]:
    options = ["--finetune", str(tuning_file(things, tmp_path, mode="alternate"))]
    made = LanguageDeployment(tmp_path, 2, options)
    made.model, made.text = things / "gpt2", things / "text.txt"
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
            **SETTINGS,
            model=str(deployment.model),
            data=deployment.text,
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
    assert (results["engine"], results["metric"]) == ("flower", "perplexity")
    assert results["receipt"]["protected"]
    values = [record["value"] for record in results["rounds"]]
    assert values == pytest.approx([r["value"] for r in expected["rounds"]], rel=1e-5)
    assert "Perplexity" in deployment.log("run")
    deployment.end()
    assert all(process.returncode == 0 for process in deployment.running.values())
