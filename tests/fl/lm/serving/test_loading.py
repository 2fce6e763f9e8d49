"""Folders and names of models: what is read, and what is refused in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from quancrypt_fl.cli.app import run
from quancrypt_fl.lm.loading import (
    ModelError,
    load_config,
    load_model,
    load_tokenizer,
    model_folder,
)


def test_a_hub_name_without_network_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    command = ["lm", "generate", "--model", "nobody/such-a-model", "--prompt", "a"]
    assert run(command) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "nobody/such-a-model: is no local folder, and the hub did not give" in said
    assert "without network give a local folder, one that save_pretrained wrote" in said


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "a/b/c", "a b", ""])
def test_a_path_is_no_hub_name(name: str) -> None:
    with pytest.raises(ModelError, match="there is no such folder"):
        model_folder(name or "''")


def test_files_are_no_models(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    with pytest.raises(ModelError, match="is a file; allowed: a folder"):
        model_folder(file)
    with pytest.raises(ModelError, match=r"has no config\.json"):
        load_config(tmp_path)


def test_pickles_are_refused(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    """Unread: it would run what it holds."""
    (tmp_path / "config.json").write_bytes((tiny_model("gpt2") / "config.json").read_bytes())
    with pytest.raises(ModelError, match=r"has no model\.safetensors"):
        load_model(tmp_path)
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin, a pickle, which runs what is in it"):
        load_model(tmp_path)


def test_code_that_comes_with_a_model_is_not_run(
    tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    config = json.loads((tiny_model("gpt2") / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.MineConfig"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(ModelError):
        load_config(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_damaged_folders_are_named(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match=str(tmp_path)):
        load_config(tmp_path)
    (tmp_path / "config.json").write_bytes((tiny_model("gpt2") / "config.json").read_bytes())
    whole = (tiny_model("gpt2") / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(ModelError, match=str(tmp_path)):
        load_model(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="its tokenizer: "):
        load_tokenizer(tmp_path)
