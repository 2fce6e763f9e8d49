"""One table of models and adapters."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.fl.lm import tiny
from tests.fl.lm.serving.test_merging import adapter
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from quancrypt_fl.cli.app import run
from quancrypt_fl.errors import ConfigError
from quancrypt_fl.lm.evaluating import Comparison, Entry


def evaluate(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert run(["lm", "evaluate", *arguments, "--json"]) == 0, capsys.readouterr().err
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_perplexities_in_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, text = tiny.gpt2(tmp_path / "base"), tiny.text(tmp_path / "text.txt")
    tuned = adapter(base, tmp_path / "tuned", "gpt2")
    entries = [f"base={base}", f"alone={base}", f"alone={tuned}", f"federated={tuned}"]
    options = ["--data", str(text), "--model", str(base), "--sequence-length", "32"]
    document = evaluate(capsys, *entries, *options, "--speed")
    assert [row["name"] for row in document["rows"]] == ["base", "alone", "federated"]
    plain, alone, federated = document["rows"]
    assert alone["values"] == [plain["value"], federated["value"]]
    assert alone["value"] == pytest.approx((plain["value"] + federated["value"]) / 2)
    assert (plain["kind"], federated["kind"]) == ("model", "adapter")
    assert federated["weight_bytes"] < plain["weight_bytes"]
    assert min(row["tokens_per_second"] for row in document["rows"]) > 0

    # By hand: every token of the last tenth but its first, from those before it in its block.
    whole = text.read_text()
    cut = round(len(whole) * 0.9)
    cut = whole.find("\n", cut) + 1 or cut
    ids = AutoTokenizer.from_pretrained(base)(whole[cut:])["input_ids"]
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    loss, count = 0.0, len(ids) - 1
    with torch.no_grad():
        for start in range(0, count, 32):
            block = torch.tensor(ids[start : start + 33])
            logits = model(block[None, :-1]).logits[0]
            loss += float(nn.functional.cross_entropy(logits, block[1:], reduction="sum"))
    assert plain["predictions"] == count
    assert plain["value"] == pytest.approx(math.exp(loss / count), rel=1e-4)

    assert run(["lm", "evaluate", *entries, *options]) == 0
    shown = capsys.readouterr().out
    assert f"{alone['value']:.4g}" in shown
    assert " to " in shown


def test_accuracies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, data = tiny.bert(tmp_path / "base"), tiny.sentences(tmp_path / "sentences")
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        nn.init.normal_(model.classifier.weight)
    model.save_pretrained(tmp_path / "whole")
    tokenizer.save_pretrained(tmp_path / "whole")
    document = evaluate(
        capsys, f"one={tmp_path / 'whole'}", "--task", "classify", "--data", str(data)
    )
    right = 0
    lines = (data / "dev.tsv").read_text().splitlines()[1:]
    with torch.no_grad():
        for line in lines:
            sentence, _, label = line.rpartition("\t")
            logits = model.eval()(**tokenizer(sentence, return_tensors="pt")).logits
            right += int(logits.argmax()) == int(label)
    assert 0 < right < len(lines)
    assert document["rows"][0]["value"] == pytest.approx(right / len(lines))
    assert document["metric"] == "accuracy"
    three = adapter(base, tmp_path / "three", "bert")
    command = ["lm", "evaluate", f"a={three}", "--model", str(base), "--data", str(data)]
    assert run([*command, "--task", "classify"]) == 2
    assert "has 2 classes; the model in" in capsys.readouterr().err
    assert run(command) == 2
    assert "is an adapter for the task classify, not causal" in capsys.readouterr().err


def test_adapters_need_their_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, text = tiny.gpt2(tmp_path / "base"), tiny.text(tmp_path / "text.txt")
    tuned = adapter(base, tmp_path / "tuned", "gpt2")
    assert run(["lm", "evaluate", f"a={tuned}", "--data", str(text)]) == 2
    assert "is an adapter; name the model that it is for by --model" in capsys.readouterr().err


def test_impossible_comparisons_are_refused() -> None:
    for text in ("", "name", "=folder", "name="):
        with pytest.raises(ConfigError, match="allowed: NAME=FOLDER"):
            Entry.parse(text)
    assert Entry.parse("a=b=c") == Entry("a", "b=c")
    with pytest.raises(ConfigError, match="task = 'clip'; allowed: causal, classify"):
        Comparison("clip", Path("data"))
    with pytest.raises(ConfigError, match="speed is that of generation"):
        Comparison("classify", Path("data"), speed=True)
