"""The parts of experiments: published figures, statistics, presets, estimates, tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from quancrypt_fl.errors import ConfigError
from quancrypt_fl.experiments import docs, run_experiment
from quancrypt_fl.experiments.accuracy import CIFAR100, MNIST_CLIENTS
from quancrypt_fl.experiments.catalogue import EXPERIMENTS, find_experiment
from quancrypt_fl.experiments.cells import TrainingCell
from quancrypt_fl.experiments.estimate import cell_seconds, data_sizes
from quancrypt_fl.experiments.experiment import SCALES, AccuracyExperiment, Plan, make_plan
from quancrypt_fl.experiments.published import BEST_ACCURACY, CLIENTS, RUN_TIMES, best_accuracy
from quancrypt_fl.experiments.statistics import interval, paired_difference
from quancrypt_fl.experiments.summary import summarize_accuracy
from quancrypt_fl.experiments.tables import markdown_table, spread
from quancrypt_fl.experiments.units import duration, factor, size

NAMES = [
    "mnist-clients", "cifar10-clients", "cifar100", "timing", "communication", "ablation-bits",
    "ablation-clip", "ablation-pruning", "ablation-smoothing", "noniid", "weights-vs-differences",
]  # fmt: skip
ROOT = Path(__file__).resolve().parents[2]


def configs(name: str, scale: str, **choices: Any) -> dict[str, Any]:
    """Configurations of the training cells by id."""
    cells = EXPERIMENTS[name].cells(Plan(scale=scale, **choices))
    return {cell.id: cell.config for cell in cells if isinstance(cell, TrainingCell)}


# --- published figures ---


def test_published_accuracies_are_those_of_the_paper() -> None:
    assert CLIENTS == (10, 20, 30, 40, 50)
    assert best_accuracy("mnist", "cnn", "quancrypt", 10) == 99.44
    assert best_accuracy("mnist", "cnn", "vanilla", 50) == 98.97
    assert best_accuracy("mnist", "cnn", "batchcrypt", 10) == 99.14
    assert best_accuracy("mnist", "cnn", "batchcrypt", 20) is None
    assert best_accuracy("cifar10", "alexnet", "quancrypt", 50) == 75.62
    assert best_accuracy("cifar100", "resnet18", "vanilla", 50) == 54.20
    assert best_accuracy("cifar10", "alexnet", "quancrypt", 15) is None
    assert best_accuracy("digits", "mlp", "quancrypt", 10) is None
    sums = {key: round(sum(v for v in row if v), 2) for key, row in BEST_ACCURACY.items()}
    assert sums == {
        ("mnist", "cnn", "quancrypt"): 496.03,
        ("mnist", "cnn", "vanilla"): 495.96,
        ("mnist", "cnn", "batchcrypt"): 99.14,
        ("cifar10", "alexnet", "batchcrypt"): 345.92,
        ("cifar10", "alexnet", "quancrypt"): 392.75,
        ("cifar10", "alexnet", "vanilla"): 399.29,
        ("cifar100", "alexnet", "batchcrypt"): 167.88,
        ("cifar100", "alexnet", "quancrypt"): 234.43,
        ("cifar100", "alexnet", "vanilla"): 245.88,
        ("cifar100", "resnet18", "batchcrypt"): 173.22,
        ("cifar100", "resnet18", "quancrypt"): 243.72,
        ("cifar100", "resnet18", "vanilla"): 268.28,
    }
    assert {key: time.headline for key, time in RUN_TIMES.items()} == {
        "protect": 9.0, "unprotect": 16.0, "evaluate": 1.5, "train": 3.0,
    }  # fmt: skip


# --- statistics ---


def test_intervals_are_scipys() -> None:
    rng = np.random.default_rng(1)
    for count in (2, 3, 7):
        values = rng.normal(5, 2, count).tolist()
        ours = interval(values)
        low, high = stats.t.interval(0.95, count - 1, loc=np.mean(values), scale=stats.sem(values))
        assert ours.count == count
        assert ours.as_dict()["low"] == pytest.approx(low)
        assert ours.as_dict()["high"] == pytest.approx(high)
    assert interval([3.0]).as_dict() == {"mean": 3.0, "low": None, "high": None, "count": 1}


def test_paired_differences_are_scipys_and_need_common_seeds() -> None:
    one, two = {1: 0.91, 2: 0.95, 3: 0.93, 9: 0.1}, {3: 0.90, 1: 0.90, 2: 0.92, 8: 0.9}
    ours = paired_difference(one, two)
    assert ours is not None
    assert ours.half_width is not None
    theirs = stats.ttest_rel([0.91, 0.95, 0.93], [0.90, 0.92, 0.90]).confidence_interval(0.95)
    assert ours.count == 3
    assert ours.mean - ours.half_width == pytest.approx(theirs.low)
    assert ours.mean + ours.half_width == pytest.approx(theirs.high)
    unpaired = interval([0.91, 0.95, 0.93]).half_width
    assert unpaired is not None
    assert ours.half_width < unpaired
    assert paired_difference(one, {7: 1.0}) is None
    assert paired_difference({}, {}) is None


# --- presets ---


def test_all_experiments_are_there() -> None:
    assert list(EXPERIMENTS) == NAMES
    assert all(EXPERIMENTS[name].name == name for name in NAMES)
    assert all(EXPERIMENTS[name].question.endswith("?") for name in NAMES)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", NAMES)
def test_presets_are_consistent(name: str, scale: str) -> None:
    experiment = EXPERIMENTS[name]
    cells = experiment.cells(Plan(scale=scale))
    ids = [cell.id for cell in cells]
    assert ids
    assert len(set(ids)) == len(ids)
    assert all(set(id_) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-") for id_ in ids)
    json.dumps([cell.describe() for cell in cells])
    if not isinstance(experiment, AccuracyExperiment):
        return
    arms = {arm.key: arm for arm in experiment.arms(scale)}
    assert len(cells) == 3 * len(arms)
    assert {cell.seed for cell in cells} == {1, 2, 3}
    for arm in arms.values():
        assert arm.against is None or arms[arm.against].fields["method"] == "vanilla"
    for requirement in experiment.requirements(scale):
        assert {requirement.arm, requirement.against} <= set(arms)
    # Only what is compared differs: data, model and number of rounds are the same in a group.
    groups: dict[str, set[tuple[Any, ...]]] = {}
    for arm in arms.values():
        same = tuple(arm.fields.get(f) for f in ("dataset", "model", "clients", "rounds"))
        groups.setdefault(arm.group, set()).add(same)
    assert all(len(values) == 1 for values in groups.values())


def test_what_the_issue_asks_for_is_in_the_presets() -> None:
    for scale in ("quick", "standard"):
        mnist = configs("mnist-clients", scale).values()
        assert {10, 50} <= {c.clients for c in mnist if c.method == "quancrypt"}
        assert {10, 50} <= {c.clients for c in mnist if c.method == "batchcrypt"}
        assert {(c.dataset, c.model) for c in mnist} == {("mnist", "cnn")}
        cifar = configs("cifar10-clients", scale).values()
        assert {(c.dataset, c.model, c.clients) for c in cifar} == {("cifar10", "alexnet", 10)}
    for name in ("mnist-clients", "cifar10-clients", "cifar100"):
        paper = configs(name, "paper", device="cuda").values()
        assert {c.rounds for c in paper} == {300}
        assert {c.clients for c in paper} == set(CLIENTS)
        assert {c.device for c in paper} == {"cuda"}
        assert all(c.max_train_samples is None for c in paper)
    models = {c.model for c in configs("cifar100", "paper").values()}
    assert models == {"alexnet", "resnet18"}
    over_bits = list(configs("ablation-bits", "quick", seeds=(1,)).values())
    by_method = {
        m: [c.bits for c in over_bits if c.method == m] for m in ("quancrypt", "batchcrypt")
    }
    assert by_method == {"quancrypt": [2, 3, 4, 6, 8, 12, 16], "batchcrypt": [4, 6, 8, 16]}
    alphas = {c.clip_factor for c in configs("ablation-clip", "quick").values()}
    assert alphas == {1, 2, 3, 4, 5, 100}
    assert {c.smoothing for c in configs("ablation-smoothing", "quick").values()} >= {0.25, 1.0}
    pruning = configs("ablation-pruning", "standard").values()
    assert {c.schedule().rate(7) for c in pruning if c.pruning} == {0.2, 0.5, 0.7, 0.9}
    assert {(c.mask, c.error_feedback, c.prune_global) for c in pruning} == {
        ("shared", False, False), ("client", False, False),
        ("shared", True, False), ("shared", False, True),
    }  # fmt: skip
    parts = configs("noniid", "standard").values()
    assert {(c.partition, c.shards_per_client) for c in parts} >= {("shards", 1), ("shards", 2)}
    assert {c.dirichlet_alpha for c in parts if c.partition == "dirichlet"} == {0.1, 0.5, 1}
    assert {c.weighting for c in parts} == {"integer", "prescaled", "uniform"}
    updates = configs("weights-vs-differences", "quick").values()
    assert {(c.update, c.bits) for c in updates} == {
        ("delta", 4), ("delta", 8), ("weights", 4), ("weights", 8)
    }  # fmt: skip


def test_batchcrypt_is_not_encrypted_where_only_accuracy_counts() -> None:
    for name in ("mnist-clients", "cifar10-clients", "cifar100", "ablation-bits"):
        for config in configs(name, "quick").values():
            assert config.encryption == (config.method != "batchcrypt")
        experiment = EXPERIMENTS[name]
        assert isinstance(experiment, AccuracyExperiment)
        assert any("encryption = False" in note for note in experiment.notes)


def test_the_published_batchcrypt_stands_beside_16_bits() -> None:
    published = {
        scale: {
            (arm.fields["clients"], arm.fields.get("bits", 8)): arm.published
            for arm in MNIST_CLIENTS.arms(scale)
            if arm.fields["method"] == "batchcrypt"
        }
        for scale in ("quick", "standard")
    }
    expected = {(10, 8): None, (10, 16): 99.14, (50, 8): None, (50, 16): None}
    assert published == {"quick": expected, "standard": expected}
    for name in ("mnist-clients", "cifar10-clients", "cifar100"):
        experiment = EXPERIMENTS[name]
        assert isinstance(experiment, AccuracyExperiment)
        arms = {arm.key: arm for arm in experiment.arms("paper")}
        assert sum(key.endswith("-batchcrypt-16-bits") for key in arms) >= 2
        required = {requirement.against for requirement in experiment.requirements("paper")}
        assert not any(key.endswith("16-bits") for key in required)
        assert any("a tie is what is to be expected" in note for note in experiment.notes)


def test_unknown_names_and_scales_say_what_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no experiment 'x'; there are: mnist-clients, cifar10"):
        find_experiment("x")
    with pytest.raises(ConfigError, match="scale = 'huge'; allowed: quick, standard, paper"):
        run_experiment("timing", out=tmp_path / "a", scale="huge")
    with pytest.raises(ConfigError, match="device = 'tpu'; allowed: cpu, cuda"):
        make_plan("quick", 3, "tpu", None)
    for seeds in (0, 1001):
        with pytest.raises(ConfigError, match=f"seeds = {seeds}; allowed: 1 to 1,000"):
            make_plan("quick", seeds, "cpu", None)
    assert len(make_plan("quick", 1000, "cpu", None).seeds) == 1000
    assert list(tmp_path.iterdir()) == []


def test_a_device_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="device = 'cuda' is not available here; available: cpu"):
        make_plan("paper", 3, "cuda", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert make_plan("paper", 3, "cuda", None).device == "cuda"


# --- estimates ---


def test_estimates_grow_with_images_and_rounds(mnist_dir: Path) -> None:
    short = data_sizes(("mnist",), mnist_dir.parent)
    official = data_sizes(("mnist",), None)
    assert short["mnist"].missing is None
    assert official["mnist"].missing is not None
    assert (official["mnist"].train, official["mnist"].test) == (60_000, 10_000)
    cells = {cell.id: cell for cell in MNIST_CLIENTS.cells(Plan(scale="standard"))}
    ten, fifty = cells["cnn-10-clients-vanilla-seed-1"], cells["cnn-50-clients-vanilla-seed-1"]
    times = [cell_seconds(ten, short), cell_seconds(fifty, short), cell_seconds(fifty, official)]
    assert None not in times
    assert times == sorted(times, key=lambda t: t or 0)
    quick = MNIST_CLIENTS.cells(Plan())
    assert sum(cell_seconds(cell, official) or 0 for cell in quick) < 30 * 60
    assert cell_seconds(EXPERIMENTS["communication"].cells(Plan())[0], {}) is None


# --- summaries, tables, documents ---


def run_of(*accuracies: float) -> dict[str, Any]:
    return {
        "rounds": [{"test_accuracy": a} for a in accuracies],
        "totals": {
            "rounds": len(accuracies),
            "test_accuracy": accuracies[-1],
            "best_test_accuracy": max(accuracies),
            "bytes": {"upload": 100 * len(accuracies), "download": 1},
            "float32_update_bytes": 400,
        },
    }


def test_requirements_are_judged_by_paired_best_accuracies() -> None:
    arms = MNIST_CLIENTS.arms("quick")
    requirements = MNIST_CLIENTS.requirements("quick")
    stem = "cnn-10-clients-"
    runs: Mapping[str, Mapping[int, Mapping[str, Any]]] = {
        f"{stem}quancrypt": {1: run_of(0.5, 0.902, 0.8), 2: run_of(0.9)},
        f"{stem}vanilla": {1: run_of(0.905), 2: run_of(0.902)},
        f"{stem}batchcrypt": {1: run_of(0.902), 2: run_of(0.9)},
    }
    summary = summarize_accuracy(arms, requirements, runs)
    assert [row["label"] for row in summary["rows"]] == [
        "QuanCrypt-FL", "Vanilla-FL", "BatchCrypt, 8 bits"
    ]  # fmt: skip
    row = summary["rows"][0]
    assert row["best_accuracy"]["mean"] == pytest.approx(90.1)
    assert row["final_accuracy"]["mean"] == pytest.approx(85.0)
    assert row["best_difference"]["mean"] == pytest.approx(-0.25)
    assert row["published_best_accuracy"] == 99.44
    assert row["upload_bytes_per_round"] == 100
    assert row["curve"]["mean"] == pytest.approx([70.0, 90.2, 80.0])
    assert row["curve"]["low"][0] == pytest.approx(50.0)
    judged = {check["text"]: check for check in summary["checks"]}
    close = judged["10 clients: QuanCrypt-FL within 0.3 points of Vanilla-FL"]
    assert close["passed"] is True
    assert close["measured"].startswith("-0.25 ± ")
    # Equal is not above, and what has not run is not judged.
    above = judged["10 clients: QuanCrypt-FL above BatchCrypt at equal bits (8) and rounds"]
    assert above["passed"] is False
    left = judged["50 clients: QuanCrypt-FL within 0.3 points of Vanilla-FL"]
    assert left["passed"] is None
    assert left["measured"] == "not measured"


def test_figures_are_written_for_people() -> None:
    assert spread({"mean": 98.4, "low": 98.3, "high": 98.5}) == "98.40 ± 0.10"
    assert spread({"mean": 0.5, "low": None, "high": None}, sign="+") == "+0.50"
    assert [duration(s) for s in (7200, 90, 2.5, 0.9996, 0.00123, 2e-6)] == [
        "2 h", "1.5 min", "2.5 s", "1,000 ms", "1.23 ms", "2 µs"
    ]  # fmt: skip
    assert [size(b) for b in (12, 1500, 2.5e6, 3e9)] == ["12 bytes", "1.5 kB", "2.5 MB", "3 GB"]
    assert [factor(r) for r in (1234.5, 12.34, 1.954)] == ["1,234 x", "12.3 x", "1.95 x"]
    assert markdown_table(["a", "b"], [["x|y", "1"]], left=1) == (
        "| a | b |\n| --- | ---: |\n| x\\|y | 1 |\n"
    )


def test_results_find_their_place_in_a_document() -> None:
    text = "a\n<!-- experiments:x -->\nold\n<!-- /experiments -->\nb\n"
    filled = docs.fill(text, "x", "| new |\n")
    assert filled == "a\n<!-- experiments:x -->\n| new |\n<!-- /experiments -->\nb\n"
    assert docs.fill(filled, "x", "| new |\n") == filled
    with pytest.raises(SystemExit, match="no place for 'y'; there are: x"):
        docs.fill(text, "y", "")
    with pytest.raises(SystemExit, match="usage"):
        docs.main(["only-one"])


def test_the_document_has_a_place_for_every_experiment() -> None:
    text = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    for name in NAMES:
        assert "| filled |" in docs.fill(text, name, "| filled |")
        assert f"quancrypt experiment {name}" in text


def test_cifar100_is_limited_on_a_cpu_and_says_so() -> None:
    assert {c.model for c in configs("cifar100", "standard").values()} == {"alexnet"}
    assert any("ResNet18 runs at paper scale only" in note for note in CIFAR100.notes)
