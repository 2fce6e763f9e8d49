"""Wrong input: one sentence that says what was given and what is allowed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fl.lm import tiny

from quancrypt_fl.cli.app import run
from quancrypt_fl.errors import CheckpointError, DataError, FederatedError
from quancrypt_fl.lm.config import FinetuneConfig
from quancrypt_fl.lm.loading import ModelError
from quancrypt_fl.lm.run import Finetuning, LanguageTask

Make = Callable[..., FinetuneConfig]


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"text_only_clients": 1}, "allowed with task = 'multimodal'"),
        ({"task": "sing"}, "not available; available: causal, classify, clip, multimodal"),
        ({"partition": "dirichlet"}, "allowed with task = 'causal': iid, contiguous"),
        ({"target_modules": " , "}, "allowed: names separated by commas, or all-linear"),
        ({"method": "batchcrypt"}, "not available; available: quancrypt, vanilla, tenseal"),
        ({"mode": "all"}, "not available; available: ffa, sb, alternate, both"),
        ({"rank": 0}, "greater than or equal to 1"),
        ({"local_steps": 2, "local_epochs": 1}, "both say how long a client trains"),
        ({"mode": "ffa", "sb_init": "random"}, "allowed with mode = 'sb'"),
        ({"model": " "}, "allowed: a folder, or a name on a hub"),
    ],
)
def test_configurations(causal: Make, choices: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        causal(**choices)


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"target_modules": "q_proj"}, "no adapter for this model: .*q_proj"),
        ({"target_modules": "wte"}, "Embedding, whose adapter is no product"),
        ({"mode": "sb", "rank": 33}, "rank = 33 is above the 32 that"),
        ({"sequence_length": 65}, "the model has 64 positions; allowed: up to 64"),
        ({"clients": 1000}, "cannot be divided over 1000 clients"),
        ({"partition": "iid", "clients": 1000}, "has no sample in the iid split"),
        ({"model": "some/where"}, "give a local folder"),
        ({"model": "no/such/folder"}, "there is no such folder"),
    ],
)
def test_models_and_data_that_do_not_fit(causal: Make, choices: dict[str, Any], said: str) -> None:
    with pytest.raises(FederatedError, match=said):
        Finetuning(causal(**choices))


def test_a_model_for_another_task(causal: Make, classify: Make, things: Path) -> None:
    with pytest.raises(DataError, match="is a folder; task causal needs a text file"):
        LanguageTask(causal(data=things / "sentences").resolved())
    with pytest.raises(DataError, match="needs one with train"):
        LanguageTask(classify(data=things / "text.txt").resolved())


def test_texts_that_are_too_short_or_no_text(causal: Make, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("abc")
    with pytest.raises(DataError, match="needed: 2 of each"):
        LanguageTask(causal(data=path).resolved())
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read as UTF-8 text"):
        LanguageTask(causal(data=path).resolved())
    with pytest.raises(DataError, match=r"absent.txt: cannot be read as UTF-8 text: No such file"):
        LanguageTask(causal(data=tmp_path / "absent.txt").resolved())


@pytest.mark.parametrize(
    ("train", "dev", "said"),
    [
        ("a\t1\nb\t0\n", "c\t2\n", "label '2' is not among those of train.tsv"),
        ("a\t1\nb\t1\n", "c\t1\n", "all labels are '1'"),
        ("a\t1\nb\n", "c\t1\n", "line 2: is not a sentence, a tab and a label"),
        ("sentence\tlabel\n", "c\t1\n", "has no sentence"),
        ("a\t1\nb\t0\n", None, "dev.tsv: cannot be read"),
    ],
)
def test_sentences_that_are_wrong(
    classify: Make, tmp_path: Path, train: str, dev: str | None, said: str
) -> None:
    (tmp_path / "train.tsv").write_text(train)
    if dev is not None:
        (tmp_path / "dev.tsv").write_text(dev)
    with pytest.raises(DataError, match=said):
        LanguageTask(classify(data=tmp_path).resolved())


def test_a_text_is_read_in_bytes_without_a_tokenizer(causal: Make, tmp_path: Path) -> None:
    small = tiny.gpt2(tmp_path / "small", tokenizer=False)
    with pytest.raises(ModelError, match="its 64 tokens are fewer than 256"):
        LanguageTask(causal(model=str(small)).resolved())
    bytes_model = tiny.gpt2(tmp_path / "bytes", tokenizer=False, vocabulary=256)
    config = causal(model=str(bytes_model)).resolved()
    text = config.data.read_bytes()
    task = LanguageTask(config)
    assert bytes(task.data.train.inputs[0].tolist()) == text[:32]
    assert bytes(task.data.train.labels[0].tolist()) == text[1:33]


def test_what_a_checkpoint_was_made_with(causal: Make, tmp_path: Path) -> None:
    choices = {"out": tmp_path / "run", "rounds": 1}
    Finetuning(causal(**choices)).run()
    other = tiny.gpt2(tmp_path / "other", seed=9)
    with pytest.raises(CheckpointError, match=r"configuration [(]base model: '[^;]*[)]$"):
        Finetuning(causal(model=str(other), **choices), resume=True).run()
    text = tmp_path / "other.txt"
    text.write_bytes(causal().data.read_bytes() + b"and more of it, a sentence or two of it.\n" * 9)
    with pytest.raises(CheckpointError, match=r"configuration [(]data: '[^;]*[)]$"):
        Finetuning(causal(data=text, **choices), resume=True).run()


# --- the command ---


def test_the_command_runs(causal: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = causal()
    command = ["lm", "finetune", "--task", "causal", "--model", config.model, "--mode", "sb"]
    command += ["--clients", "2", "--rounds", "1", "--data", str(config.data)]
    command += ["--rank", "2", "--local-steps", "1", "--sequence-length", "32"]
    command += ["--partition", "contiguous", "--out", str(tmp_path)]
    assert run(command) == 0
    shown = capsys.readouterr().out
    assert "Test perplexity" in shown
    assert "LoRA error" in shown
    for name in ("results.json", "plot.png", "adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / name).is_file()
    assert run([*command, "--rounds", "2", "--resume", "--json"]) == 0
    assert '"metric": "perplexity"' in capsys.readouterr().out
    assert run(["report", str(tmp_path), "--out", str(tmp_path / "report.html")]) == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--task", "multimodal"], "is a model of type gpt2; task multimodal needs llava"),
        (["--model", "org/name"], "give a local folder"),
        (["--clients", "0"], "clients = 0"),
    ],
)
def test_the_command_refuses_in_a_line(
    causal: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    config = causal()
    command = ["lm", "finetune", "--model", config.model, "--data", str(config.data)]
    assert run([*command, "--out", str(tmp_path), *options]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert said in shown.err
    assert shown.err.count("\n") == 1


def test_the_command_needs_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["lm", "finetune", "--data", "text.txt"]) == 2
    assert "--model" in capsys.readouterr().err
