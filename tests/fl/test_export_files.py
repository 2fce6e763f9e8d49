"""Exports and files: which weights are read, what is never written over, what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from safetensors import safe_open
from safetensors.numpy import load_file, save, save_file
from tests.fl.test_export import store

from quancrypt_fl import QuanCryptConfig, Simulation
from quancrypt_fl.cli.errors import CommandError
from quancrypt_fl.cli.export import export
from quancrypt_fl.errors import CheckpointError, MethodError
from quancrypt_fl.export import ExportOptions, export_run, load_exported, loading
from quancrypt_fl.export.loading import read_header
from quancrypt_fl.export.trained import fill, read_run
from quancrypt_fl.models import build_model


def weights_of(model: str, seed: int = 1) -> dict[str, np.ndarray]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = build_model(model, (1, 8, 8), 10).state_dict()
    return {name: t.numpy() for name, t in state.items() if t.is_floating_point()}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run: its result is not the weights of its last checkpoint."""
    folder = store(tmp_path / "run", "mlp", weights_of("mlp", 1))
    (folder / "model.safetensors").write_bytes(save(weights_of("mlp", 2)))
    return folder


def command(*arguments: str | Path) -> None:
    app = typer.Typer()
    app.command()(export)
    app(args=[str(argument) for argument in arguments], standalone_mode=False)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize(
    "name",
    ["results.json", "model.safetensors", "checkpoints/last.safetensors", "checkpoints/state.json",
     "checkpoints/new.safetensors", "checkpoints/../results.json"],
)  # fmt: skip
@pytest.mark.parametrize("link", ["no", "file", "folder"])
def test_an_input_is_never_written_over(tmp_path: Path, run: Path, name: str, link: str) -> None:
    before = contents(run)
    out = run / name
    if link == "folder":
        (tmp_path / "alias").symlink_to(run)
        out = tmp_path / "alias" / name
    elif link == "file" and out.exists():
        os.link(out, tmp_path / "alias")
        out = tmp_path / "alias"
    with pytest.raises(CommandError, match="name another"):
        command(run, "--out", out, "--force")
    assert contents(run) == before


def test_other_files_in_the_folder_may_be_written(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = run / "small[bold]\x1b.safetensors"
    command(run, "--out", out)
    assert load_exported(out)(torch.zeros(1, 1, 8, 8)).shape == (1, 10)
    assert "small[bold]\\x1b.safetensors" in capsys.readouterr().out.replace("\n", "")


def test_the_result_is_exported_and_not_the_last_checkpoint(run: Path) -> None:
    weights = read_run(run).weights
    np.testing.assert_array_equal(weights["1.weight"], weights_of("mlp", 2)["1.weight"])
    (run / "model.safetensors").unlink()
    weights = read_run(run).weights
    np.testing.assert_array_equal(weights["1.weight"], weights_of("mlp", 1)["1.weight"])


def test_a_run_without_checkpoints_is_exported(tmp_path: Path) -> None:
    simulation = Simulation(
        QuanCryptConfig(clients=2, rounds=1, local_epochs=1, max_train_samples=64, out=tmp_path)
    )
    simulation.run()
    for path in (tmp_path / "checkpoints").iterdir():
        path.unlink()
    weights = read_run(tmp_path).weights
    assert set(weights) == set(simulation.model)
    for name, tensor in simulation.model.items():
        np.testing.assert_array_equal(weights[name], tensor)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"x", "model.safetensors: damaged"),
        (save(weights_of("cnn")), "not weights of mlp for digits, the run's model .tensor"),
        (save({"a": np.zeros(2)}), "tensor 'a' is float64, not float32"),
    ],
)
def test_a_wrong_result_is_named(run: Path, data: bytes, message: str) -> None:
    (run / "model.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match=message):
        read_run(run)
    (run / "model.safetensors").unlink()
    (run / "model.safetensors").symlink_to(run / "nowhere")
    with pytest.raises(CheckpointError, match=r"model.safetensors: cannot be read"):
        read_run(run)


def test_negative_variances_give_numbers(tmp_path: Path) -> None:
    weights = weights_of("resnet18")
    weights["bn1.running_var"] = weights["bn1.running_var"] - 2
    model = build_model("resnet18", (1, 8, 8), 10).eval()
    fill(model, weights)
    assert model.bn1.running_var.min() == 0
    with torch.inference_mode():
        assert torch.isfinite(model(torch.ones(2, 1, 8, 8))).all()
    path = tmp_path / "file.safetensors"
    path.write_bytes(
        export_run(store(tmp_path / "run", "resnet18", weights), ExportOptions(rate=0)).data
    )
    with torch.inference_mode():
        assert torch.isfinite(load_exported(path)(torch.ones(2, 1, 8, 8))).all()


@pytest.fixture
def whole(tmp_path: Path, run: Path) -> tuple[Path, dict[str, np.ndarray], dict[str, str]]:
    """An exported file, its tensors and its metadata."""
    path = tmp_path / "file.safetensors"
    path.write_bytes(export_run(run, ExportOptions()).data)
    with safe_open(path, "np") as file:
        return path, load_file(path), file.metadata()


Whole = tuple[Path, dict[str, np.ndarray], dict[str, str]]


def test_a_path_is_a_str_or_a_path(tmp_path: Path, whole: Whole) -> None:
    for path in (whole[0], str(whole[0])):
        assert load_exported(path)(torch.zeros(1, 1, 8, 8)).shape == (1, 10)
        assert read_header(path).classes == 10
    for wrong in (None, 5, ["a"]):
        with pytest.raises(MethodError, match="a path is a str or a Path"):
            load_exported(wrong)
    for wrong in (tmp_path, tmp_path / "a\0b", str(tmp_path / "nothing"), ""):
        with pytest.raises(CheckpointError, match="cannot be read"):
            load_exported(wrong)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="not a regular file"):
        load_exported(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": "0"}, "classes = 0; allowed: 1 to 100000"),
        ({"classes": "100001"}, "classes = 100001; allowed: 1 to 100000"),
        ({"classes": "-5"}, "classes = -5; allowed"),
        ({"classes": "9" * 5000}, "Exceeds the limit"),
        ({"classes": "ten"}, "ten"),
        ({"classes": "99999"}, "tensor '3.weight' is .10, 128., the model's is .99999, 128."),
        ({"image_shape": "1,8"}, "image_shape is not channels,height,width"),
        ({"image_shape": "1,8,0"}, "image_shape = 0; allowed: 1 to 10000"),
        ({"image_shape": "1,1000000,1000000"}, "image_shape = 1000000; allowed"),
        ({"image_shape": "10000,10000,10000"}, "tensor '1.weight' is"),
        ({"bits": "9"}, "bits = 9; allowed: 2 to 8, and 32"),
        ({"bits": "1"}, "bits = 1; allowed"),
        ({"bits": "32"}, "scales = 'channel' with 32 bits"),
        ({"bits": "32", "scales": "none"}, "is I8 in a file of 32 bits"),
        ({"scales": "row"}, "scales = 'row'; allowed: channel, tensor, none"),
        ({"scales": "tensor"}, r"wanted: F32 of shape \(1,\)"),
        ({"pruning": "all"}, "pruning = 'all'; allowed"),
        ({"rate": "nan"}, "rate = nan"),
        ({"rate": "inf"}, "rate = inf"),
        ({"model": "vgg"}, "model = 'vgg'; allowed: mlp"),
        ({"model": "resnet18", "pruning": "structured"}, "tensor 'conv1.weight' is absent"),
        ({"format": "x" * 9999}, "wanted: 'quancrypt-export', '1'"),
    ],
)
def test_what_metadata_say_is_bounded(
    whole: Whole, change: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And refused before a tensor is filled or memory taken."""
    path, tensors, metadata = whole
    save_file(tensors, path, metadata | change)
    monkeypatch.setattr(loading, "fill", None)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_exported(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 300


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"1.weight": np.zeros((128, 64), np.float64)}, "tensor '1.weight' is F64; allowed"),
        ({"1.bias": np.zeros(128, np.int8)}, r"'1.bias' of shape \(128,\) is I8"),
        ({"1.weight.scale": np.full(128, np.nan, np.float32)}, "holds NaN or infinity"),
        ({"3.bias": np.full(10, np.inf, np.float32)}, "holds NaN or infinity"),
        ({"3.weight.scale": np.ones(7, np.float32)}, r"wanted: F32 of shape \(10,\)"),
        ({"3.weight": np.zeros((0, 128), np.int8)}, "wanted: F32 of shape"),
        ({"quancrypt.activation_ranges": np.zeros(4, np.float32)}, "activation_ranges is F32"),
        ({"other.scale": np.zeros(1, np.float32)}, "tensor 'other.scale' is"),
    ],
)
def test_tensors_are_checked(whole: Whole, change: dict[str, Any], message: str) -> None:
    path, tensors, metadata = whole
    save_file({**tensors, **change}, path, metadata)
    with pytest.raises(CheckpointError, match=message):
        load_exported(path)


def test_layers_that_do_not_fit_together_are_refused(whole: Whole) -> None:
    path, tensors, metadata = whole
    cut = {"1.weight": tensors["1.weight"][:5], "1.bias": tensors["1.bias"][:5]}
    cut["1.weight.scale"] = tensors["1.weight.scale"][:5]
    save_file({**tensors, **cut}, path, metadata | {"pruning": "structured"})
    with pytest.raises(CheckpointError, match="not an exported model"):
        load_exported(path)


@pytest.mark.parametrize("pair", [[1, 0], [np.inf, np.inf]])
def test_wrong_ranges_are_named(whole: Whole, pair: list[float]) -> None:
    path, tensors, metadata = whole
    ranges = np.array([pair] * 3, np.float32)
    save_file({**tensors, "quancrypt.activation_ranges": ranges}, path, metadata)
    with pytest.raises((MethodError, CheckpointError), match=str(path)):
        load_exported(path, int8_kernels=True)
    save_file({**tensors, "quancrypt.activation_ranges": ranges[:1]}, path, metadata)
    with pytest.raises((MethodError, CheckpointError), match=str(path)):
        load_exported(path, int8_kernels=True)


def test_cut_files_are_named(whole: Whole) -> None:
    path, _, _ = whole
    data = path.read_bytes()
    for end in (0, 1, 8, 100, len(data) - 1):
        path.write_bytes(data[:end])
        with pytest.raises(CheckpointError, match="not an exported model"):
            load_exported(path)
    path.write_bytes((2**62).to_bytes(8, "little") + data[8:])
    with pytest.raises(CheckpointError, match="not an exported model"):
        load_exported(path)
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 4]}})
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(4))
    with pytest.raises(CheckpointError, match="not an exported model"):
        load_exported(path)
