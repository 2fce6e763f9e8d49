"""One test for each error of the published code, so that none of them is here."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.fl.data_files import (
    cifar10_files,
    cifar100_files,
    write_files,
    write_ham10000,
    write_mnist,
)
from tests.fl.fakes import federation
from tests.fl.reference import Recorder
from tests.fl.spies import watch

from quancrypt_fl import QuanCryptConfig, Simulation
from quancrypt_fl.cli.app import run
from quancrypt_fl.config import CHOICES

TinyConfig = Callable[..., QuanCryptConfig]


# --- one scale for all clients (published: the sum is read with the scale of client 0) ---


@pytest.mark.parametrize("bits", [4, 8, 12, 16])
def test_a_sum_of_clients_of_very_different_size_is_right(bits: int) -> None:
    rng = np.random.default_rng(bits)
    sizes = [1e-3, 1.0, 30.0]
    changes = [{"w": (s * rng.uniform(-1, 1, (20, 30))).astype(np.float32)} for s in sizes]
    start = {"w": rng.standard_normal((20, 30)).astype(np.float32)}
    made = federation(start, changes, bits=bits, pruning=False, clip_factor=20.0)
    made.round()
    bound = 20.0 * np.mean([np.abs(c["w"]).mean(dtype=np.float64) for c in changes])
    assert bound > max(np.abs(c["w"]).max() for c in changes)  # nothing is clipped
    exact = np.mean([c["w"].astype(np.float64) for c in changes], axis=0)
    half_step = bound / (2 ** (bits - 1) - 1) / 2
    got = made.state.weights["w"].astype(np.float64) - start["w"]
    np.testing.assert_allclose(got, exact, rtol=0, atol=1.0001 * half_step + 1e-5)


def test_the_reading_with_one_clients_scale_would_be_wrong() -> None:
    """The published decoder on the same numbers is off by the ratio of the scales."""
    rng = np.random.default_rng(1)
    changes = [s * rng.uniform(-1, 1, 1000) for s in (1e-3, 1.0)]
    scales = [np.abs(c).max() / 127 for c in changes]
    total = sum(np.rint(c / s) for c, s in zip(changes, scales, strict=True)) * scales[0]
    assert np.abs(total).max() < 0.01 * np.abs(sum(changes)).max()


# --- splits (published: subset indices taken for indices of the whole set) ---


def keys_of(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


@pytest.fixture(scope="module")
def mnist_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mnist")
    write_mnist(folder, train=300, test=20)
    return folder


@pytest.mark.parametrize("partition", ["iid", "shards", "dirichlet"])
@pytest.mark.parametrize("limit", [None, 120])
def test_validation_and_test_images_are_never_trained_on(
    mnist_files: Path, partition: str, limit: int | None
) -> None:
    """No two images of the generated set are alike, so pixels tell."""
    simulation = Simulation(
        QuanCryptConfig(
            dataset="mnist",
            data_dir=mnist_files,
            clients=5,
            partition=partition,
            max_train_samples=limit,
        )
    )
    parts = [keys_of(client.data.images) for client in simulation._clients]
    held_out = simulation.task.samples
    validation, test = keys_of(held_out["validation"].images), keys_of(held_out["test"].images)
    assert len(validation) == len(held_out["validation"]) == (limit or 300) // 5
    trained = set().union(*parts)
    assert len(trained) == sum(len(part) for part in parts) == (limit or 300) * 4 // 5
    assert not trained & (validation | test)
    assert not validation & test


def test_shards_give_few_classes(mnist_files: Path) -> None:
    """Two runs of labels are at most four classes here; an IID part of this size has all ten."""
    common = {"dataset": "mnist", "data_dir": mnist_files, "clients": 5}
    shards = Simulation(QuanCryptConfig(partition="shards", shards_per_client=2, **common))
    iid = Simulation(QuanCryptConfig(partition="iid", **common))
    counts = [
        [len(np.unique(client.data.labels)) for client in simulation._clients]
        for simulation in (shards, iid)
    ]
    assert max(counts[0]) <= 4
    assert min(counts[1]) == 10


# --- pruning rate (published: it goes on rising after t_target) ---


def test_the_pruning_rate_stops_at_its_target(
    tiny: TinyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(
        rounds=6, p_0=0.2, p_target=0.4, t_eff=1, t_target=3,
        max_train_samples=60, max_test_samples=20,
    )  # fmt: skip
    simulation = Simulation(config)
    uploads = watch(simulation, monkeypatch)
    results = simulation.run()
    rates = [record["pruning_rate"] for record in results["rounds"]]
    assert rates == pytest.approx([0.2, 0.2, 0.3, 0.4, 0.4, 0.4])
    size = simulation.state.weights["1.weight"].size
    for t, rate in enumerate(rates):
        sent = uploads.protected[0, t]["1.weight"].size
        assert sent == size - int(rate * size + 1e-9)


# --- smoothing (published: one line too many, and the old weights count twice) ---


@pytest.mark.parametrize("update", ["delta", "weights"])
@pytest.mark.parametrize("method", ["quancrypt", "vanilla"])
@pytest.mark.parametrize("smoothing", [0.3, 0.9, 1.0])
def test_smoothing_is_the_formula(update: str, method: str, smoothing: float) -> None:
    rng = np.random.default_rng(3)
    start = {"w": rng.standard_normal((8, 9)).astype(np.float32)}
    changes = [{"w": rng.uniform(-1, 1, (8, 9)).astype(np.float32)} for _ in range(3)]
    made = federation(
        start, changes, method=method, update=update, smoothing=smoothing, bits=16, pruning=False,
        clip_factor=20.0,
    )  # fmt: skip
    expected = start["w"].astype(np.float64)
    mean = np.mean([c["w"].astype(np.float64) for c in changes], axis=0)
    for _ in range(3):
        made.round()
        expected = (1 - smoothing) * expected + smoothing * (expected + mean)
    np.testing.assert_allclose(made.state.weights["w"], expected, rtol=0, atol=5e-3)


# --- early stopping (published: it stops, and keeps the last model) ---


def test_early_stopping_keeps_the_best_model(tiny: TinyConfig) -> None:
    recorder = Recorder()
    config = tiny(rounds=12, patience=1, lr=0.05, max_train_samples=200, max_test_samples=50)
    simulation = recorder.simulation = Simulation(config, observer=recorder)
    results = simulation.run()
    accuracies = [record["validation_accuracy"] for record in results["rounds"]]
    best = int(np.argmax(accuracies))
    assert best < len(accuracies) - 1 < 11  # it did stop, and not at the best
    assert results["totals"]["final_round"] == best + 1
    for name, tensor in recorder.states[best].weights.items():
        np.testing.assert_array_equal(simulation.model[name], tensor)


# --- resuming (published: the option exists and does nothing) ---


def test_the_option_resume_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [
        "simulate", "--quiet", "--clients", "2", "--local-epochs", "1",
        "--max-train-samples", "100", "--max-test-samples", "20",
    ]  # fmt: skip
    parts, whole = tmp_path / "parts", tmp_path / "whole"
    assert run([*options, "--rounds", "1", "--out", str(parts)]) == 0
    first = (parts / "model.safetensors").read_bytes()
    assert run([*options, "--rounds", "3", "--out", str(parts), "--resume"]) == 0
    assert run([*options, "--rounds", "3", "--out", str(whole)]) == 0
    resumed = (parts / "model.safetensors").read_bytes()
    assert resumed == (whole / "model.safetensors").read_bytes() != first
    assert capsys.readouterr() == ("", "")


# --- every data set with every model (published: some pairs crash) ---

DATASETS = CHOICES["dataset"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path | None]:
    """A few images in each data set's own form."""
    root = tmp_path_factory.mktemp("data")
    write_mnist(root / "mnist", train=20, test=5)
    write_mnist(root / "fashion-mnist", train=20, test=5)
    write_files(root / "cifar10", cifar10_files(train=20, test=10))
    write_files(root / "cifar100", cifar100_files(train=100, test=100))
    write_ham10000(root / "ham10000")
    return {name: None if name == "digits" else root / name for name in DATASETS}


@pytest.mark.parametrize(
    ("dataset", "model"),
    [
        pytest.param(
            dataset, model,
            marks=[pytest.mark.slow] if model == "resnet18" and dataset != "cifar10" else [],
        )
        for dataset in DATASETS
        for model in CHOICES["model"]
    ],
)  # fmt: skip
def test_every_data_set_trains_every_model(
    folders: dict[str, Path | None], dataset: str, model: str
) -> None:
    config = QuanCryptConfig(
        dataset=dataset, data_dir=folders[dataset], model=model, clients=1, rounds=1,
        local_epochs=1, batch_size=8, max_train_samples=20, max_test_samples=4, threads=1,
    )  # fmt: skip
    results = Simulation(config).run()
    (record,) = results["rounds"]
    assert np.isfinite([record["test_loss"], record["train_loss"]]).all()
    # A first round is no more than an untrained network's guess by far.
    assert record["train_loss"] < 50
    assert record["bytes"]["upload"] < 0.5 * results["totals"]["float32_update_bytes"]


# --- a machine without CUDA (published: .cuda() everywhere) ---


def test_without_cuda_a_run_on_the_cpu_needs_nothing_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise AssertionError("Torch not compiled with CUDA enabled")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "_lazy_init", missing)
    common = ["simulate", "--rounds", "1", "--clients", "2", "--max-train-samples", "50"]
    assert run([*common, "--quiet", "--out", str(tmp_path / "cpu")]) == 0
    assert run([*common, "--device", "cuda", "--out", str(tmp_path / "cuda")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(
        r"quancrypt: device 'cuda' is not available here; available: cpu\n", captured.err
    )
    assert not (tmp_path / "cuda").exists()
