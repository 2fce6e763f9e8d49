"""``quancrypt export``: round trips, quantization, calibration, and what it measures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from safetensors import safe_open
from safetensors.numpy import load_file, save, save_file
from torch import nn
from torch.nn.utils import prune

from quancrypt_fl import QuanCryptConfig, Simulation
from quancrypt_fl.cli.export import export
from quancrypt_fl.cli.storage import write
from quancrypt_fl.data import ImageDataset, load_dataset
from quancrypt_fl.errors import CheckpointError, FederatedError, MethodError
from quancrypt_fl.export import ExportOptions, export_run, load_exported, measure
from quancrypt_fl.export.integers import dequantize_weights, quantize_weights
from quancrypt_fl.export.kernels import activation_ranges, int8_model
from quancrypt_fl.export.magnitude import prune_weights
from quancrypt_fl.export.measure import verdict, with_sparse_layers
from quancrypt_fl.export.trained import read_run
from quancrypt_fl.models import MODELS, build_model
from quancrypt_fl.training import Trainer, TrainingOptions, evaluate_model, torch_threads


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


@pytest.fixture(scope="module")
def digits() -> ImageDataset:
    return load_dataset("digits", None, 1)


def store(folder: Path, model: str, weights: dict[str, np.ndarray]) -> Path:
    """A run's folder, as far as an export reads it."""
    (folder / "checkpoints").mkdir(parents=True)
    data = save(weights)
    (folder / "checkpoints" / "last.safetensors").write_bytes(data)
    entry = {"file": "last.safetensors", "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "checkpoints" / "state.json").write_text(json.dumps({"weights": entry}))
    config = QuanCryptConfig(dataset="digits", model=model).model_dump(mode="json")
    (folder / "results.json").write_text(json.dumps({"config": config}))
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, digits: ImageDataset) -> dict[str, Path]:
    """A little training of every model."""
    folders = {}
    for model in MODELS:
        large = model in ("alexnet", "resnet18")
        options = TrainingOptions(2e-3, 0, 16, local_epochs=1 if large else 4)
        trainer = Trainer(model, digits, options, seed=1)
        samples = digits.train.head(96 if large else 1000)
        weights, _ = trainer.train(trainer.weights(), samples, 0, 0)
        folders[model] = store(tmp_path_factory.mktemp(model) / "run", model, weights)
    return folders


def exported(tmp_path: Path, run: Path, **options: object) -> tuple[Path, dict[str, object]]:
    result = export_run(run, ExportOptions(threads=1, **options))
    path = tmp_path / "model.safetensors"
    write(path, result.data, force=True)
    return path, result.document


@pytest.mark.parametrize("bits", [2, 5, 8])
@pytest.mark.parametrize("per_channel", [True, False])
def test_weights_are_within_half_a_step(bits: int, per_channel: bool) -> None:
    rng = np.random.default_rng(1)
    tensor = rng.standard_normal((6, 3, 2, 2), dtype=np.float32)
    tensor[2] = 0
    values, scales = quantize_weights(tensor, bits, per_channel=per_channel)
    assert values.dtype == np.int8
    assert np.abs(values).max() == 2 ** (bits - 1) - 1
    assert scales.shape == ((6,) if per_channel else (1,))
    step = scales.reshape(-1, 1, 1, 1)
    back = dequantize_weights(values, scales)
    assert back.dtype == np.float32
    assert np.all(np.abs(back - tensor) <= 0.5001 * step)
    assert np.all(back[2] == 0)
    # What has been rounded stays.
    again, _ = quantize_weights(back, bits, per_channel=per_channel)
    np.testing.assert_array_equal(again, values)


def test_what_cannot_be_quantized_is_named() -> None:
    with pytest.raises(MethodError, match="bits = 9; allowed for an export: 2 to 8"):
        quantize_weights(np.ones((1, 1), np.float32), 9)
    with pytest.raises(MethodError, match="NaN or infinity"):
        quantize_weights(np.array([[np.nan]], np.float32), 8)


def test_the_smallest_weights_become_zero() -> None:
    weights = {
        "a": np.array([[3, -1, 0.5], [-0.1, 2, -4]], np.float32),
        "b": np.ones(4, np.float32),
    }
    pruned = prune_weights(weights, 0.5)
    np.testing.assert_array_equal(pruned["a"], [[3, 0, 0], [0, 2, -4]])
    np.testing.assert_array_equal(pruned["b"], weights["b"])
    assert weights["a"][0, 1] == -1
    tied = prune_weights({"a": np.ones((2, 3), np.float32)}, 0.5)["a"]
    np.testing.assert_array_equal(tied, [[0, 0, 0], [1, 1, 1]])
    expected = prune.l1_unstructured(nn.Linear(20, 30), "weight", 0.3)
    ours = prune_weights({"w": expected.weight_orig.detach().numpy()}, 0.3)["w"]
    np.testing.assert_array_equal(ours, expected.weight.detach().numpy())


@pytest.mark.parametrize("structured", [False, True])
@pytest.mark.parametrize("model", MODELS)
def test_round_trip(
    tmp_path: Path, runs: dict[str, Path], digits: ImageDataset, model: str, structured: bool
) -> None:
    """The file holds the run's weights, pruned, within half a step; metadata say what they are."""
    path, document = exported(tmp_path, runs[model], rate=0.3, structured=structured)
    with safe_open(path, "np") as file:
        metadata = file.metadata()
    assert metadata == {
        "format": "quancrypt-export",
        "version": "1",
        "model": model,
        "dataset": "digits",
        "classes": "10",
        "image_shape": "1,8,8",
        "bits": "8",
        "scales": "channel",
        "pruning": "structured" if structured else "unstructured",
        "rate": "0.3",
    }
    assert path.stat().st_size == document["bytes"]
    limit = 0.75 if structured else 0.29 if model != "mlp" else 0.33
    assert document["bytes"] < limit * document["float32_bytes"]
    loaded = load_exported(path)
    assert not loaded.training
    state = loaded.state_dict()
    tensors = load_file(path)
    kept = []
    pruned = prune_weights(read_run(runs[model]).weights, 0.3)
    for name, values in tensors.items():
        if values.dtype == np.int8:
            step = tensors[name + ".scale"].reshape(-1, *[1] * (values.ndim - 1))
            np.testing.assert_array_equal(state[name].numpy(), values * step)
            kept.append(np.count_nonzero(values) / values.size)
            if not structured:
                assert np.all(np.abs(state[name].numpy() - pruned[name]) <= 0.5001 * step)
    assert structured or max(kept) <= 0.71
    images = torch.from_numpy(digits.test.images[:9])
    assert loaded(images).shape == (9, 10)
    assert document["parameters"] == sum(p.numel() for p in loaded.parameters())


def test_float32_export_is_the_run(
    tmp_path: Path, runs: dict[str, Path], digits: ImageDataset
) -> None:
    path, document = exported(tmp_path, runs["resnet18"], rate=0.0, bits=32)
    model = read_run(runs["resnet18"]).model()
    images = torch.from_numpy(digits.test.images[:5])
    with torch.inference_mode():
        torch.testing.assert_close(load_exported(path)(images), model(images))
    assert document["pruning"] == "none"
    assert document["bytes"] == document["float32_bytes"]


@pytest.mark.parametrize("model", ["mlp", "cnn", "alexnet", "resnet18"])
def test_int8_kernels_agree_with_float32(
    tmp_path: Path, runs: dict[str, Path], digits: ImageDataset, model: str
) -> None:
    path, document = exported(tmp_path, runs[model], rate=0.0, calibrate=True)
    assert document["calibrated"]
    floats, integers = load_exported(path), load_exported(path, int8_kernels=True)
    images = torch.from_numpy(digits.train.images[:200])
    with torch.inference_mode():
        expected, got = floats(images), integers(images)
    # An activation has 7 bits, and errors of layers add up.
    assert (got - expected).abs().mean() < 0.05 * expected.abs().mean()
    agree = (got.argmax(1) == expected.argmax(1)).float().mean()
    assert agree > (0.9 if model == "resnet18" else 0.97)


def test_int8_kernels_use_the_integers_of_the_file(tmp_path: Path, runs: dict[str, Path]) -> None:
    path, _ = exported(tmp_path, runs["cnn"], rate=0.5, calibrate=True)
    model = load_exported(path, int8_kernels=True)
    tensors = load_file(path)
    for name in ("0", "3", "7", "10"):
        layer = model.inner.get_submodule(name)
        weight = layer.weight()
        np.testing.assert_array_equal(weight.int_repr().numpy(), tensors[f"{name}.weight"])
        np.testing.assert_allclose(
            weight.q_per_channel_scales().numpy(), tensors[f"{name}.weight.scale"], rtol=1e-6
        )


def test_calibration_takes_the_extremes(digits: ImageDataset) -> None:
    model = build_model("mlp", (1, 8, 8), 10).eval()
    ranges = activation_ranges(model, digits.train)
    images = torch.from_numpy(digits.train.images[:512])
    with torch.inference_mode():
        hidden, scores = model[:3](images), model(images)
    expected = [[x.min().item(), x.max().item()] for x in (images, hidden, scores)]
    for pair in expected:
        assert any(np.allclose(pair, row, rtol=1e-5) for row in ranges), pair
    with pytest.raises(MethodError, match=r"ranges of activations have shape \(1, 2\)"):
        int8_model(model, (1, 8, 8), ranges[:1])


def test_sparse_layers_compute_the_same(runs: dict[str, Path], digits: ImageDataset) -> None:
    model = read_run(runs["cnn"]).model()
    sparse = with_sparse_layers(model)
    assert not any(isinstance(layer, nn.Linear) for layer in sparse.modules())
    images = torch.from_numpy(digits.test.images[:20])
    with torch.inference_mode():
        torch.testing.assert_close(sparse(images), model(images), rtol=1e-4, atol=1e-5)


def test_measurement(tmp_path: Path, runs: dict[str, Path], digits: ImageDataset) -> None:
    """Every variant has an accuracy of its own, and the file's is that of the file."""
    path, document = exported(
        tmp_path, runs["cnn"], structured=True, finetune_epochs=1, measure=True, repeat=2
    )
    measured = document["measured"]
    assert measured["images"] == len(digits.test)
    rows = measured["rows"]
    assert set(measured["verdicts"]) == set(rows) - {"original"}
    assert "original" in rows
    for row in rows.values():
        assert row["seconds"] > 0
        assert row["speedup_min"] <= row["speedup"] <= row["speedup_max"]
    original = evaluate_model(read_run(runs["cnn"]).model(), digits.test)
    assert rows["original"]["accuracy"] == pytest.approx(original.accuracy)
    for name, int8 in (("float32", False), ("int8", True)):
        accuracy = evaluate_model(load_exported(path, int8_kernels=int8), digits.test).accuracy
        assert rows[f"exported, {name} kernels"]["accuracy"] == pytest.approx(accuracy, abs=0.01)
    assert rows["exported, float32 kernels"]["accuracy"] > 0.7
    json.dumps(document, allow_nan=False)


def test_fine_tuning_brings_accuracy_back(
    tmp_path: Path, runs: dict[str, Path], digits: ImageDataset
) -> None:
    accuracies = []
    for epochs in (0, 3):
        path, _ = exported(tmp_path, runs["cnn"], rate=0.7, structured=True, finetune_epochs=epochs)
        accuracies.append(evaluate_model(load_exported(path), digits.test).accuracy)
    assert accuracies[1] > accuracies[0] + 0.05


@pytest.mark.parametrize(
    ("pairs", "low", "speedup", "high", "words"),
    [(5, 1.4, 1.5, 1.7, "faster: 1.50 x"), (5, 0.98, 1.02, 1.06, "no gain"),
     (5, 1.01, 1.02, 1.03, "no gain"), (5, 0.45, 0.5, 0.6, "slower: 2.00 x the time"),
     (5, 0.66, 1.06, 1.16, "not reliable (spread 0.66 to 1.16)"),
     (5, 0.95, 1.2, 1.3, "not reliable (spread 0.95 to 1.30)"),
     (5, 0.8, 0.9, 1.1, "not reliable (spread 0.80 to 1.10)"),
     (5, 0.7, 1.0, 1.4, "not reliable (spread 0.70 to 1.40)"),
     (5, 2.0, 3.0, 4.0, "not reliable (spread 2.00 to 4.00)"),
     (2, 1.5, 1.5, 1.5, "not reliable (2 of at least 3 pairs)")],
)  # fmt: skip
def test_verdicts(pairs: int, low: float, speedup: float, high: float, words: str) -> None:
    row = {"pairs": pairs, "speedup_min": low, "speedup": speedup, "speedup_max": high}
    assert verdict(row) == words


def test_seconds_of_the_original_come_from_the_pairs(
    digits: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine gets slower from one variant to the next; ratios and medians stay paired."""
    original, first, second = (build_model("mlp", (1, 8, 8), 10).eval() for _ in range(3))
    passes = iter([4.0, 2.0, 4.4, 2.2, 8.0, 8.0, 8.8, 8.8])
    monkeypatch.setattr(measure, "_seconds", lambda model, test: next(passes))
    rows = measure.compare(original, {"first": first, "second": second}, digits.test, 2)
    assert rows["first"]["original_seconds"] == pytest.approx(4.2)
    assert rows["second"]["original_seconds"] == pytest.approx(8.4)
    assert rows["original"]["seconds"] == pytest.approx(6.2)
    assert rows["original"]["pairs"] == 4
    assert rows["first"]["speedup"] == pytest.approx(2)
    assert rows["second"]["speedup"] == pytest.approx(1)


def test_a_run_of_the_engine_is_exported(tmp_path: Path) -> None:
    config = QuanCryptConfig(clients=2, rounds=1, local_epochs=1, out=tmp_path / "run")
    simulation = Simulation(config)
    simulation.run()
    run = read_run(tmp_path / "run")
    assert run.classes == 10
    for name, tensor in simulation.state.weights.items():
        np.testing.assert_array_equal(run.weights[name], tensor)
    path, _ = exported(tmp_path, tmp_path / "run")
    assert load_exported(path)(torch.zeros(1, 1, 8, 8)).shape == (1, 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 1.0}, r"rate = 1.0: a pruning rate is in \[0, 1\)"),
        ({"bits": 16}, r"bits = 16; allowed: 2 to 8, and 32"),
        ({"finetune_epochs": 1}, "goes with structured"),
        ({"repeat": 0}, "repeat at least 1"),
    ],
)
def test_options_are_checked(options: dict[str, object], message: str) -> None:
    with pytest.raises(MethodError, match=message):
        ExportOptions(**options)


def test_damaged_runs_are_named(tmp_path: Path, runs: dict[str, Path]) -> None:
    weights = read_run(runs["mlp"]).weights
    with pytest.raises(CheckpointError, match=r"results.json: no such file; RUN is the folder"):
        read_run(tmp_path / "nothing")
    run = store(tmp_path / "run", "mlp", weights)
    (run / "checkpoints" / "last.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="damaged"):
        read_run(run)
    (run / "checkpoints" / "state.json").write_text("[]")
    with pytest.raises(CheckpointError, match="not a JSON object"):
        read_run(run)
    (run / "checkpoints" / "state.json").write_text("{}")
    with pytest.raises(CheckpointError, match="no 'weights'"):
        read_run(run)
    (run / "results.json").write_text('{"config": {"model": "vgg"}}')
    with pytest.raises(CheckpointError, match="not of a run of this version"):
        read_run(run)
    other = store(tmp_path / "other", "cnn", weights)
    with pytest.raises(CheckpointError, match=r"tensor '0.weight' is absent"):
        export_run(other, ExportOptions())


def test_damaged_files_are_named(tmp_path: Path, runs: dict[str, Path]) -> None:
    path = tmp_path / "file.safetensors"
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_exported(path)
    path.write_bytes(b"no safetensors")
    with pytest.raises(CheckpointError, match="not an exported model"):
        load_exported(path)
    save_file({"a": np.zeros(3, np.float32)}, path)
    with pytest.raises(
        CheckpointError, match=r"not an exported model .format None, version None; wanted"
    ):
        load_exported(path)
    whole, _ = exported(tmp_path, runs["mlp"])
    with pytest.raises(CheckpointError, match="without images to calibrate with"):
        load_exported(whole, int8_kernels=True)
    tensors = load_file(whole)
    with safe_open(whole, "np") as file:
        metadata = file.metadata()
    for change in ({"3.bias": np.zeros(7, np.float32)}, {"new": np.zeros(1, np.float32)}):
        save_file({**tensors, **change}, path, metadata)
        with pytest.raises(CheckpointError, match="not an exported model"):
            load_exported(path)
    save_file({k: v for k, v in tensors.items() if k != "1.weight.scale"}, path, metadata)
    with pytest.raises(CheckpointError, match=r"not an exported model \('1.weight.scale'\)"):
        load_exported(path)
    save_file(tensors, path, {**metadata, "image_shape": "1,8"})
    with pytest.raises(CheckpointError, match="not an exported model"):
        load_exported(path)


def command(arguments: list[str]) -> None:
    app = typer.Typer()
    app.command()(export)
    app(args=arguments, standalone_mode=False)


def test_command(tmp_path: Path, runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "model.safetensors"
    arguments = [str(runs["mlp"]), "--out", str(out)]
    command([*arguments, "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["rate"] == 0.5
    assert document["bytes"] == out.stat().st_size
    assert not document["calibrated"]
    with pytest.raises(FederatedError, match="exists already; --force replaces it"):
        command(arguments)
    command([*arguments, "--force", "--measure", "--repeat", "1", "--rate", "0.9", "--per-tensor"])
    text = capsys.readouterr().out
    assert "unstructured, rate 0.9" in text
    assert "int8 kernels" in text
    assert "A pass over 359 test images" in text
    assert "medians of 1 pair" in text
    assert "medians of 1 pairs" not in text
    assert "not reliable" in text
    assert "faster" not in text
    assert load_exported(out, int8_kernels=True)(torch.zeros(1, 1, 8, 8)).shape == (1, 10)
