"""A site of a fine-tuning trains as the simulation's client does, for each task."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read once, when its library is imported
pytest.importorskip("flwr", reason="needs the [flower] extra")
pytest.importorskip("transformers", reason="needs the [lm] extra")
pytest.importorskip("peft", reason="needs the [lm] extra")

import numpy as np
from tests.fl.deployment.language import DATA, MODELS, settings_for, tuning_file, write_things
from tests.fl.lm import tiny

from quancrypt_fl.deployment.kits import ClientKit, ServerKit
from quancrypt_fl.deployment.runs import builtin_settings
from quancrypt_fl.errors import ConfigError
from quancrypt_fl.flower.app import SETTINGS_KEY
from quancrypt_fl.flower.app.adapters import AdapterSite, site
from quancrypt_fl.flower.app.settings import RunSettings
from quancrypt_fl.lm.beginning import read_initial
from quancrypt_fl.lm.config import FinetuneConfig
from quancrypt_fl.lm.run import Finetuning

Run = Callable[..., str]

pytestmark = pytest.mark.usefixtures("provision_command")


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("things")
    for task in MODELS:
        write_things(folder, task)
    tiny.clip(folder / "other-clip", width=64)
    return folder


def _named(things: Path, task: str) -> tuple[Path, Path]:
    return things / MODELS[task][0], things / DATA[task][0]


def _site(kits: Path, name: str, model: Path, data: Path | str, **node: Any) -> AdapterSite:
    kit, server = ClientKit.load(kits / name), ServerKit.load(kits / "server")
    values = builtin_settings(server, "run-1", rounds=2, timeout=5.0, wait=1.0, snapshot_every=1)
    config = {**kit.node_config(), "model": str(model), "data": str(data), **node}
    context = SimpleNamespace(node_config=config)
    return site(cast("Any", context), RunSettings.of({SETTINGS_KEY: json.dumps(values)}))


@pytest.mark.parametrize("task", MODELS)
def test_a_site_trains_as_the_simulated_client(
    run: Run, things: Path, tmp_path: Path, task: str
) -> None:
    model, data = _named(things, task)
    file = tuning_file(things, tmp_path, task)
    run("--finetune", file, "--out", tmp_path / "kits")
    first = read_initial(tmp_path / "kits/server/initial.safetensors").weights
    simulated = Finetuning(FinetuneConfig(**settings_for(task), model=str(model), data=data))
    samples, answers = [], []
    for client, name in enumerate(("client-1", "client-2")):
        here = _site(tmp_path / "kits", name, model, data)
        found, loss = here.train(first, 1)
        part = simulated.task.parts[client]
        expected, expected_loss = simulated.task.trainer.train(first, part, 1, client)
        assert loss == expected_loss
        assert found.keys() == expected.keys()
        for tensor, values in expected.items():
            np.testing.assert_array_equal(found[tensor], values)
        samples.append((here.samples, len(part)))
        answers.append(here.evaluate(first))
    assert all(one == other > 0 for one, other in samples)
    # Both together say of the test set what the simulation says.
    whole = simulated.task.trainer.evaluate(first, simulated.task.data.test)
    counts = [int(found["num-examples"]) for found in answers]
    assert sum(counts) == whole.answers
    for key, value in (("loss", whole.loss), ("accuracy", whole.accuracy)):
        mean = sum(n * found[key] for n, found in zip(counts, answers, strict=True)) / sum(counts)
        assert mean == pytest.approx(value, rel=1e-5)


def test_a_site_writes_an_adapter_that_peft_loads(run: Run, things: Path, tmp_path: Path) -> None:
    model, data = _named(things, "multimodal")
    file = tuning_file(things, tmp_path, "multimodal", mode="sb")
    run("--finetune", file, "--out", tmp_path / "kits")
    here = _site(tmp_path / "kits", "client-1", model, data, **{"quancrypt-data": "all"})
    weights, _ = here.train(read_initial(tmp_path / "kits/server/initial.safetensors").weights, 0)
    here.write(tmp_path, weights)
    from peft import PeftModel
    from transformers import LlavaForConditionalGeneration

    base = LlavaForConditionalGeneration.from_pretrained(model)
    tuned = dict(PeftModel.from_pretrained(base, tmp_path / "adapter").named_parameters())
    connector = [name for name in weights if ".lora_" not in name]
    assert connector
    for name in connector:
        inner = name.replace(
            "multi_modal_projector", "multi_modal_projector.modules_to_save.default"
        )
        (found,) = (tensor for known, tensor in tuned.items() if known.endswith(inner))
        np.testing.assert_array_equal(found.detach().numpy(), weights[name])


@pytest.mark.parametrize("task", ["clip", "multimodal"])
def test_the_data_set_that_needs_no_files(
    run: Run, things: Path, tmp_path: Path, task: str
) -> None:
    model, _ = _named(things, task)
    file = tuning_file(
        things, tmp_path, task, data="digits", max_train_samples=40,
        max_test_samples=20, local_steps=1,
    )  # fmt: skip
    run("--finetune", file, "--out", tmp_path / "kits")
    here = _site(tmp_path / "kits", "client-2", model, "digits")
    assert 0 < here.samples <= 20


def test_pictures_of_other_classes_are_refused(run: Run, things: Path, tmp_path: Path) -> None:
    model, _ = _named(things, "clip")
    run("--finetune", tuning_file(things, tmp_path, "clip"), "--out", tmp_path / "kits")
    with pytest.raises(ConfigError, match=r"the classes of the data here are 'zero', 'one'.*'cat'"):
        _site(tmp_path / "kits", "client-1", model, "digits")


def test_another_base_model_is_refused(run: Run, things: Path, tmp_path: Path) -> None:
    _, data = _named(things, "clip")
    run("--finetune", tuning_file(things, tmp_path, "clip"), "--out", tmp_path / "kits")
    with pytest.raises(ConfigError, match="the base model here is not the one"):
        _site(tmp_path / "kits", "client-1", things / "other-clip", data)
