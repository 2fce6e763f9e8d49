"""One fine-tuning in five ways: each way is what it says, and gains have the right sign."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from quancrypt_fl.cli.app import app
from quancrypt_fl.errors import ConfigError
from quancrypt_fl.experiments.lm_comparison import FILE, compare, gain
from quancrypt_fl.lm.config import FinetuneConfig
from quancrypt_fl.lm.run import Finetuning, value_of

Make = Callable[..., FinetuneConfig]


def values(document: dict[str, Any]) -> dict[str, list[float]]:
    return {row["name"]: row["values"] for row in document["rows"]}


def final(config: FinetuneConfig) -> float:
    value: float = Finetuning(config).run()["totals"]["value"]
    return value


def test_every_way_is_what_it_says(causal: Make, tmp_path: Path) -> None:
    found = compare(causal(out=tmp_path, threshold=2), seeds=2)
    assert found["seeds"] == [1, 2]
    rows = values(found)
    assert list(rows) == [
        "base", "alone, mean", "alone, best", "central", "plaintext", "encrypted",
    ]  # fmt: skip
    for number, seed in enumerate(found["seeds"]):
        assert rows["encrypted"][number] == final(causal(seed=seed))
        assert rows["plaintext"][number] == final(causal(seed=seed, method="vanilla"))
        central = causal(seed=seed, method="vanilla", clients=1, local_steps=9)
        assert rows["central"][number] == final(central)
        alone = found["alone"][number]
        assert len(set(alone)) == 3
        assert rows["alone, mean"][number] == pytest.approx(sum(alone) / 3)
        assert rows["alone, best"][number] == min(alone)
    task = Finetuning(causal()).task
    base = value_of("perplexity", task.evaluate("test", task.weights, []))
    assert rows["base"] == [base, base]
    assert 0 < found["lora_error"] < 1e-12
    assert found["upload_bytes"] > 0
    assert json.loads((tmp_path / FILE).read_text()) == found
    for name in ("encrypted-1", "plaintext-2", "central-2"):
        assert (tmp_path / name / "adapter_model.safetensors").is_file()


def test_a_single_client_alone_is_the_federation(classify: Make) -> None:
    """Of one client the mean is its own model, up to how a difference is rounded."""
    rows = values(compare(classify(clients=1)))
    assert rows["alone, mean"] == rows["alone, best"]
    assert rows["central"] == rows["plaintext"]
    assert rows["alone, mean"] == pytest.approx(rows["plaintext"], abs=1 / 30)


def test_gains_are_positive_where_encryption_is_better(causal: Make) -> None:
    assert gain("accuracy", 0.83, 0.80) == pytest.approx(3)
    assert gain("perplexity", 9.0, 10.0) == pytest.approx(10)
    assert gain("perplexity", 10.1, 10.0) == pytest.approx(-1)
    found = compare(causal(rounds=1), seeds=2)
    rows = values(found)
    assert "encrypted" not in found["gains"]
    for name, gains in found["gains"].items():
        each = [100 * (1 - a / b) for a, b in zip(rows["encrypted"], rows[name], strict=True)]
        assert gains["mean"] == pytest.approx(sum(each) / 2)
        assert gains["low"] <= min(each) <= max(each) <= gains["high"]


@pytest.mark.parametrize(
    ("field", "given", "said"),
    [
        ("method", "vanilla", "method = 'vanilla'; allowed in a comparison: 'quancrypt'"),
        ("encryption", False, "encryption = False; allowed in a comparison: True"),
        ("patience", 3, "patience = 3; allowed in a comparison: None"),
    ],
)
def test_what_a_comparison_decides_cannot_be_chosen(
    causal: Make, field: str, given: Any, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        compare(causal(**{field: given}))


def test_no_seeds_are_no_comparison(causal: Make) -> None:
    with pytest.raises(ConfigError, match="seeds = 0; allowed: 1 or more"):
        compare(causal(), seeds=0)


def test_the_command_prints_one_table(things: Path, tmp_path: Path) -> None:
    options = [
        "lm", "compare", "--task", "classify", "--model", str(things / "bert"), "--data",
        str(things / "sentences"), "--sequence-length", "32", "--rank", "4", "--clients", "2",
        "--rounds", "1", "--local-steps", "1", "--threads", "1", "--out", str(tmp_path),
    ]  # fmt: skip
    done = CliRunner().invoke(app, options)
    assert done.exit_code == 0, done.output
    for line in ("base", "alone, mean", "alone, best", "central", "plaintext", "encrypted"):
        assert f"\n{line} " in done.stdout
    assert "encrypted is better by (points)" in done.stdout
    assert (tmp_path / FILE).is_file()
    asked = CliRunner().invoke(app, [*options, "--json"])
    assert json.loads(asked.stdout)["metric"] == "accuracy"
