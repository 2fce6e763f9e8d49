"""``quancrypt provision --finetune``: kits that tune a language model's adapter."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read once, when its library is imported
pytest.importorskip("flwr", reason="needs the [flower] extra")
pytest.importorskip("transformers", reason="needs the [lm] extra")
pytest.importorskip("peft", reason="needs the [lm] extra")

import typer
from tests.fl.deployment.language import SETTINGS, tuning_file
from tests.fl.lm import tiny

import quancrypt_native as qn
from quancrypt_fl.cli import app as commands
from quancrypt_fl.cli.client import client as client_command
from quancrypt_fl.deployment.admission import Admission, admit
from quancrypt_fl.deployment.kits import ClientKit, KitError, ServerKit
from quancrypt_fl.deployment.runs import builtin_settings
from quancrypt_fl.flower.app import SETTINGS_KEY
from quancrypt_fl.flower.app.settings import RunSettings
from quancrypt_fl.lm.beginning import read_initial
from quancrypt_fl.lm.config import FinetuneConfig

Run = Callable[..., str]
Below = Callable[[Path], dict[str, bytes]]

pytestmark = pytest.mark.usefixtures("provision_command")


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kits")
    tiny.gpt2(folder / "gpt2")
    tiny.text(folder / "text.txt")
    return folder


def test_kits_hold_the_adapter_and_no_model(
    run: Run, things: Path, tmp_path: Path, files_below: Below
) -> None:
    file = tuning_file(things, tmp_path, mode="alternate")
    run("--finetune", file, "--clients", 2, "--out", tmp_path / "kits")
    server = ServerKit.load(tmp_path / "kits" / "server")
    client = ClientKit.load(tmp_path / "kits" / "client-2")
    assert isinstance(server.config, FinetuneConfig)
    assert server.config == client.config
    assert (server.app, server.config.mode, server.config.clients) == ("finetune", "alternate", 2)
    # Names alone: a folder of this machine is nobody else's business.
    assert (server.config.model, server.config.data) == ("gpt2", Path("text.txt"))
    below = {
        kit: files_below(tmp_path / "kits" / kit) for kit in ("server", "client-1", "client-2")
    }
    assert not any(str(tmp_path).encode() in d for kit in below.values() for d in kit.values())
    assert not any(str(things).encode() in d for kit in below.values() for d in kit.values())
    assert "frozen.safetensors" not in below["server"]
    assert "initial.safetensors" not in below["client-1"]
    assert below["client-1"]["frozen.safetensors"] == below["client-2"]["frozen.safetensors"]
    assert "--model BASE --data DATA" in below["client-1"]["README.txt"].decode()
    initial = read_initial(tmp_path / "kits/server/initial.safetensors")
    assert initial.about["mode"] == "alternate"
    params = qn.Parameters.from_bytes(below["server"]["params.qcp"])
    assert params.max_weight == 2
    assert client.node_config()["quancrypt-frozen"] == str(client.frozen)


def test_kits_under_a_threshold_key(run: Run, things: Path, tmp_path: Path) -> None:
    file = tuning_file(things, tmp_path, clients=3, threshold=2, mode="both")
    run("--finetune", file, "--out", tmp_path / "kits")
    kit = ClientKit.load(tmp_path / "kits" / "client-3")
    assert kit.joint is not None
    assert kit.frozen is not None
    params = qn.Parameters.from_bytes(kit.params.read_bytes())
    assert (params.key_mode, params.parties) == ("threshold", 3)


def test_settings_from_such_a_kit(run: Run, things: Path, tmp_path: Path) -> None:
    run("--finetune", tuning_file(things, tmp_path), "--out", tmp_path / "kits")
    kit = ServerKit.load(tmp_path / "kits" / "server")

    values = builtin_settings(kit, "run-1", rounds=7, timeout=5.0, wait=1.0, snapshot_every=2)
    settings = RunSettings.of({SETTINGS_KEY: json.dumps(values)})
    assert settings.app == "finetune"
    assert settings.configuration() == kit.config.model_copy(update={"rounds": 7})
    with pytest.raises(Exception, match="image_shape and classes go with images"):
        RunSettings.of({SETTINGS_KEY: json.dumps({**values, "image_shape": [1, 8, 8]})})


def test_a_newcomers_kit_has_the_same_adapter(run: Run, things: Path, tmp_path: Path) -> None:
    file = tuning_file(things, tmp_path, max_weight=4)
    run("--finetune", file, "--out", tmp_path / "kits")
    more = tmp_path / "more"
    printed = run("--add", 1, "--like", tmp_path / "kits/client-1", "--out", more)
    assert "quancrypt client client-3 --model BASE --data DATA" in printed
    late, first = ClientKit.load(more / "client-3"), ClientKit.load(tmp_path / "kits/client-1")
    assert late.frozen is not None
    assert first.frozen is not None
    assert late.frozen.read_bytes() == first.frozen.read_bytes()
    server = admit(tmp_path / "kits/server", Admission.read(more / "admission.toml"))
    assert server.config.clients == 3
    assert isinstance(server.config, FinetuneConfig)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"method": "vanilla"}, (), "method: not allowed here; it belongs to simulations"),
        ({"encryption": False}, (), "encryption: not allowed here; it belongs to simulations"),
        ({"dropout": 0.5}, (), "dropout: not allowed here"),
        ({"device": "cuda"}, (), "device: not allowed here; each site decides it"),
        ({"patience": 2}, (), "patience = 2: for simulations; the server of a deployment has no"),
        ({"task": "multimodal", "text_only_clients": 1, "clients": 3}, (), "all clients have"),
        ({"mode": "lora"}, (), "available: ffa, sb, alternate, both"),
        ({"colour": 1}, (), "colour = 1"),
        ({"model": "nowhere/at/all/x"}, (), "there is no such folder"),
        ({}, ("--rounds", 3), "--rounds: not with --finetune; "),
        ({}, ("--no-model",), "--no-model: not with --finetune; "),
        ({}, ("--clients", 3), "clients = 2, and the command line says 3"),
        ({}, ("--name", "a"), "clients = 2, and the command line says 1"),
    ],
    ids=str,
)
def test_what_is_refused(
    run: Run, things: Path, tmp_path: Path, changes: dict[str, Any], options: Any, message: str
) -> None:
    file = tuning_file(things, tmp_path, **changes)
    said = run("--finetune", file, "--out", tmp_path / "kits", *options, fails=True)
    assert message in said
    assert not (tmp_path / "kits").exists()


def test_a_file_that_is_none(run: Run, tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("rounds = ")
    said = run("--finetune", tmp_path / "x.toml", "--out", tmp_path / "kits", fails=True)
    assert "x.toml: cannot be read as TOML" in said


def test_a_kit_that_lacks_its_file(run: Run, things: Path, tmp_path: Path) -> None:
    run("--finetune", tuning_file(things, tmp_path), "--out", tmp_path / "kits")
    (tmp_path / "kits/server/initial.safetensors").unlink()
    with pytest.raises(KitError, match=r"initial\.safetensors: the file is missing"):
        ServerKit.load(tmp_path / "kits/server")
    (tmp_path / "kits/client-1/frozen.safetensors").unlink()
    with pytest.raises(KitError, match=r"frozen\.safetensors: the file is missing"):
        ClientKit.load(tmp_path / "kits/client-1")


@pytest.mark.parametrize(
    ("finetune", "options", "message"),
    [
        (True, (), "this run tunes a language model; name the base model's folder with --model"),
        (True, ("--model", "gpt2"), "with --model and the data with --data"),
        (True, ("--data-dir", "gpt2"), "and no --data-dir"),
        (True, ("--model", "gpt2", "--data", "none"), "none: there is no such file or folder"),
        (True, ("--model", "text.txt", "--data", "text.txt"), "--model names one"),
        (False, ("--model", "gpt2"), "--model and --data go with a run that tunes a language"),
    ],
    ids=str,
)
def test_what_a_client_is_to_be_given(
    run: Run,
    things: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    finetune: bool,
    options: tuple[str, ...],
    message: str,
) -> None:
    named = ("--finetune", tuning_file(things, tmp_path)) if finetune else ("--clients", 2)
    run(*named, "--out", tmp_path / "kits")
    program = typer.Typer()
    program.command()(client_command)
    program.callback()(lambda: None)
    monkeypatch.setattr(commands, "app", program)
    monkeypatch.chdir(things)
    assert commands.run(["client", str(tmp_path / "kits/client-1"), *options]) == 2
    assert message in capsys.readouterr().err


def test_settings_are_those_of_the_simulation(things: Path, tmp_path: Path) -> None:
    """Every key of such a file is an option of ``quancrypt lm finetune``."""
    assert SETTINGS.keys() <= FinetuneConfig.model_fields.keys()
