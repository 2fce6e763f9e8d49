"""Models of a pre-training on disk, the command, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tests.fl.lm import tiny
from transformers import AutoModelForCausalLM, AutoTokenizer

from quancrypt_fl.cli.app import run
from quancrypt_fl.errors import CheckpointError, FederatedError
from quancrypt_fl.lm.pretrain_config import (
    LEFT_OUT,
    PRETRAIN_CHOICES,
    PRETRAIN_GROUPS,
    PretrainConfig,
)
from quancrypt_fl.lm.pretrain_run import Pretraining, PretrainTask

SMALL: dict[str, Any] = {"layers": 1, "width": 16, "heads": 2}
SHORT: dict[str, Any] = {
    "sequence_length": 32, "clients": 2, "rounds": 1, "local_steps": 2, "threads": 1,
    "max_test_samples": 4,
}  # fmt: skip


def config(things: Path, **choices: Any) -> PretrainConfig:
    return PretrainConfig(data=things / "text.txt", **{**SHORT, **choices})


# --- files ---


@pytest.mark.parametrize("vocabulary", ["bytes", "characters"])
def test_transformers_loads_what_is_written(things: Path, vocabulary: str, tmp_path: Path) -> None:
    training = Pretraining(config(things, **SMALL, vocabulary=vocabulary, out=tmp_path))
    training.run()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert loaded.dtype == torch.float32
    for name, parameter in loaded.named_parameters():
        np.testing.assert_array_equal(parameter.detach().numpy(), training.model[name])
    text = (things / "text.txt").read_text()
    if vocabulary == "bytes":
        assert loaded.config.vocab_size == 256
        assert not list(tmp_path.glob("tokenizer*"))
        return
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.config.vocab_size == len(tokenizer) == len(set(text)) + 1
    tokens = tokenizer(text[:200])["input_ids"]
    assert tokenizer.decode(tokens) == text[:200]
    assert tokens[:32] == training.task._fresh.encoder.encode(text[:32])
    assert tokenizer("a~")["input_ids"][1] == 0


def test_a_model_comes_from_its_configuration_alone(things: Path, tmp_path: Path) -> None:
    """Architecture and tokenizer are the folder's, weights are random, the same for one seed."""
    trained = AutoModelForCausalLM.from_pretrained(things / "gpt2").state_dict()
    one, two = (PretrainTask(config(things, model=things / "gpt2").resolved()) for _ in range(2))
    for name, tensor in one.weights.items():
        np.testing.assert_array_equal(tensor, two.weights[name])
    wte = "transformer.wte.weight"
    assert one.weights[wte].shape == trained[wte].shape
    assert (one.weights[wte] != trained[wte].numpy()).any()
    results = Pretraining(config(things, model=things / "gpt2", out=tmp_path)).run()
    assert results["model"] == "gpt2"
    original = AutoTokenizer.from_pretrained(things / "gpt2")
    assert AutoTokenizer.from_pretrained(tmp_path).get_vocab() == original.get_vocab()
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_bytes((things / "gpt2" / "config.json").read_bytes())
    with pytest.raises(FederatedError, match="its 64 tokens are fewer than 256"):
        PretrainTask(config(things, model=bare).resolved())


def test_results_say_what_was_run(things: Path) -> None:
    results = Pretraining(config(things, **SMALL)).run()
    assert {name: results[name] for name in ("schema", "task", "metric", "dataset", "model")} == {
        "schema": 1, "task": "pretrain", "metric": "perplexity", "dataset": "text.txt",
        "model": "gpt2-1x16",
    }  # fmt: skip
    record = results["rounds"][0]
    assert record["value"] == pytest.approx(np.exp(record["test_loss"]))
    assert record["tokens"] == 2 * 2 * 8 * 32
    assert results["totals"]["value"] == record["value"]
    assert results["receipt"]["aggregator_held_secret_key"] is False
    assert "lora_error" not in record


def test_other_text_or_sizes_cannot_go_on(things: Path, tmp_path: Path) -> None:
    Pretraining(config(things, **SMALL, out=tmp_path / "out")).run()
    longer = tiny.text(tmp_path / "text.txt", words=950)
    for choices, said in (
        ({"width": 32}, "width: 16 then, 32 now"),
        ({"outer_momentum": 0.5}, "outer_momentum: 0.9 then, 0.5 now"),
        ({"data": longer}, "data: "),
    ):
        changed = {**SHORT, **SMALL, "data": things / "text.txt", "rounds": 2, **choices}
        again = Pretraining(PretrainConfig(**changed, out=tmp_path / "out"), resume=True)
        with pytest.raises(CheckpointError, match=said):
            again.run()


# --- configuration ---


def test_groups_cover_all_fields_in_order() -> None:
    names, covered = list(PretrainConfig.model_fields), []
    for first, last in PRETRAIN_GROUPS.values():
        covered += names[names.index(first) : names.index(last) + 1]
    assert covered == names
    assert set(PRETRAIN_CHOICES) | LEFT_OUT <= set(names)
    assert all(field.description for field in PretrainConfig.model_fields.values())


def test_defaults_are_those_of_diloco(things: Path) -> None:
    resolved = PretrainConfig(data=things / "text.txt").resolved()
    assert (resolved.outer_lr, resolved.outer_momentum, resolved.weight_decay) == (0.7, 0.9, 0.1)
    assert (resolved.layers, resolved.width, resolved.vocabulary) == (4, 128, "bytes")
    assert resolved.model_name == "gpt2-4x128"
    folder = PretrainConfig(data=things / "text.txt", model=things / "gpt2").resolved()
    assert (folder.layers, folder.vocabulary, folder.model_name) == (None, None, "gpt2")


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"width": 30}, "width = 30 is no multiple of heads = 4"),
        ({"heads": 3}, "width = 128 is no multiple of heads = 3"),
        ({"model": "gpt2", "layers": 2}, "layers = 2: the sizes are those of model = 'gpt2'"),
        ({"smoothing": 0.5}, "smoothing = 0.5 has no meaning in a pre-training; allowed: 1.0"),
        ({"update": "weights"}, "update = 'weights' has no meaning"),
        ({"local_epochs": 2}, "local_epochs = 2 has no meaning"),
        ({"baseline": "ddp", "dropout": 0.1}, "allowed: participation = 1 and dropout = 0"),
        ({"baseline": "fsdp"}, "not available; available: none, ddp"),
        ({"partition": "shards"}, "not available; available: iid, contiguous"),
        ({"vocabulary": "words"}, "not available; available: bytes, characters"),
        ({"outer_momentum": 1.0}, "less than 1"),
        ({"outer_lr": 0.0}, "greater than 0"),
        ({"local_steps": 0}, "greater than or equal to 1"),
    ],
)
def test_configurations_that_are_refused(choices: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        PretrainConfig(data=Path("text.txt"), **choices)


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"model": "absent"}, "absent: has no config.json"),
        ({"model": "sentences"}, "sentences: has no config.json"),
        ({"model": "gpt2", "sequence_length": 65}, "the model has 64 positions"),
        ({"data": "absent.txt"}, "absent.txt: cannot be read as UTF-8 text: No such file"),
        ({"data": "sentences"}, "is a folder; task causal needs a text file"),
        ({"data": "absent.txt", "vocabulary": "characters"}, "absent.txt: cannot be read"),
        ({"clients": 1000}, "has no sample in the iid split"),
        ({"clients": 1000, "partition": "contiguous"}, "cannot be divided over 1000 clients"),
    ],
)
def test_models_and_data_that_do_not_fit(things: Path, choices: dict[str, Any], said: str) -> None:
    places = {name: things / choices[name] for name in ("data", "model") if name in choices}
    given = {"data": things / "text.txt", **SHORT, **choices, **places}
    with pytest.raises(FederatedError, match=said):
        Pretraining(PretrainConfig(**given))


def test_training_that_diverges_is_named(things: Path) -> None:
    diverging = config(things, **SMALL, lr=1e3, outer_lr=10.0, gradient_clip=1e6, local_steps=20)
    with pytest.raises(FederatedError, match="diverged"):
        Pretraining(diverging.model_copy(update={"rounds": 40, "outer_momentum": 0.99})).run()


# --- the command, and those that go on from its model ---


def command(things: Path, out: Path, *options: str) -> list[str]:
    return [
        "lm", "pretrain", "--data", str(things / "text.txt"), "--layers", "1", "--width", "16",
        "--heads", "2", "--clients", "2", "--rounds", "1", "--local-steps", "2",
        "--sequence-length", "32", "--max-test-samples", "4", "--out", str(out), *options,
    ]  # fmt: skip


def test_the_command_and_what_comes_after(
    things: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, text = tmp_path / "out", str(things / "text.txt")
    assert run(command(things, out, "--baseline", "ddp", "--error-feedback", "--bits", "4")) == 0
    shown = capsys.readouterr().out
    assert "Test perplexity" in shown
    assert "Data parallel" in shown
    names = ("results.json", "plot.png", "config.json", "model.safetensors")
    assert all((out / name).is_file() for name in names)
    again = command(things, out, "--bits", "4", "--error-feedback", "--resume", "--json")
    assert run([*again, "--rounds", "2"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert len(results["rounds"]) == 2
    assert results["config"]["outer_lr"] == 0.7
    assert run(["report", str(out), "--out", str(tmp_path / "report.html")]) == 0
    capsys.readouterr()
    generate = ["lm", "generate", "--model", str(out), "--prompt", "ab", "--max-new-tokens", "3"]
    assert run(generate) == 0
    evaluate = ["lm", "evaluate", f"pretrained={out}", "--data", text]
    assert run([*evaluate, "--sequence-length", "32"]) == 0
    assert "pretrained" in capsys.readouterr().out
    assert run(evaluate) == 0  # as many tokens as the model has positions
    capsys.readouterr()
    assert run([*evaluate, "--sequence-length", "33"]) == 2
    assert "the model has 32 positions; allowed: up to 32" in capsys.readouterr().err
    tune = ["lm", "finetune", "--model", str(out), "--data", text, "--clients", "2", "--rounds"]
    tune += ["1", "--local-steps", "1", "--sequence-length", "32", "--max-test-samples", "4"]
    assert run([*tune, "--rank", "2", "--out", str(tmp_path / "tuned")]) == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--width", "15"], "width = 15 is no multiple of heads = 2"),
        (["--data", "absent.txt"], "absent.txt: cannot be read as UTF-8 text"),
        (["--clients", "0"], "clients = 0"),
        (["--baseline", "ddp", "--participation", "0.5"], "allowed: participation = 1"),
    ],
)
def test_the_command_refuses_in_a_line(
    things: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    said: str,
) -> None:
    assert run(command(things, tmp_path, *options)) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert said in shown.err
    assert shown.err.count("\n") == 1


def test_help_shows_what_counts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert run(["lm", "pretrain", "--help"]) == 0
    shown = capsys.readouterr().out
    for option in ("--local-steps", "--outer-lr", "--outer-momentum", "--baseline", "--data"):
        assert option in shown
    for option in ("--smoothing", "--update", "--local-epochs", "--paillier-bits"):
        assert option not in shown
