"""Task clip: images and class prompts in one space."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from tests.fl import data_files
from tests.fl.lm import tiny
from transformers import CLIPImageProcessorPil, CLIPModel

from quancrypt_fl.cli.app import run as command
from quancrypt_fl.errors import CheckpointError, DataError, FederatedError
from quancrypt_fl.lm.config import FinetuneConfig
from quancrypt_fl.lm.deploying import deploy
from quancrypt_fl.lm.loading import ModelError
from quancrypt_fl.lm.opening import open_model
from quancrypt_fl.lm.pictures import in_words, read_labelled
from quancrypt_fl.lm.preprocessing import Preprocessing
from quancrypt_fl.lm.run import Finetuning, LanguageTask

Make = Callable[..., FinetuneConfig]

MODES = ("ffa", "sb", "alternate", "both")


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_trains_and_encryption_changes_nothing(clip: Make, mode: str) -> None:
    choices: dict[str, Any] = {"mode": mode, "partition": "dirichlet", "rounding": "stochastic"}
    encrypted, plain = (Finetuning(clip(**choices, encryption=e)) for e in (True, False))
    start = encrypted.task.evaluate("test", encrypted.task.weights, [])
    results, twin = encrypted.run(), plain.run()
    for name, tensor in encrypted.state.weights.items():
        np.testing.assert_array_equal(tensor, plain.state.weights[name])
    records = results["rounds"]
    assert [r["value"] for r in records] == [r["value"] for r in twin["rounds"]]
    assert [r["value"] for r in records] == [r["test_accuracy"] for r in records]
    assert records[-1]["test_loss"] < start.loss
    exact = [record["lora_error"] < 1e-12 for record in records]
    assert exact == [mode != "both"] * 2


def test_classes_are_learned(clip: Make) -> None:
    longer = clip(rounds=4, local_steps=8, target_modules="all-linear")
    results = Finetuning(longer).run()
    assert results["metric"] == "accuracy"
    assert results["totals"]["value"] > 0.8  # chance is 0.25


def test_both_towers_are_tuned_and_the_scale_is_not(clip: Make) -> None:
    run = Finetuning(clip(rounds=1))
    frozen = run.task.adapter.fingerprint()
    run.run()
    assert run.task.adapter.fingerprint() == frozen
    for tower in ("text_model", "vision_model"):
        assert any(tower in name for name in run.state.weights)
    assert not any("logit_scale" in name for name in run.state.weights)


def test_scores_are_those_of_the_model_on_its_own_inputs(clip: Make, things: Path) -> None:
    """Prompts by the tokenizer, pixels by transformers' own preprocessor, products by hand."""
    task = LanguageTask(
        clip(max_test_samples=6).resolved().model_copy(update={"sequence_length": 40})
    )
    model = CLIPModel.from_pretrained(things / "clip").eval()
    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship")
    texts = [f"a photo of a {name}" for name in (*names, "truck")]
    tokens = tiny.tokenizer(things / "clip")(texts, padding=True, return_tensors="pt")
    images = [pixels.transpose(1, 2, 0) for pixels in task.data.test.pixels]
    size = {"height": 16, "width": 16}
    pixels = CLIPImageProcessorPil(size=size, do_center_crop=False)(images, return_tensors="pt")
    with torch.inference_mode():
        image = model.get_image_features(**pixels).pooler_output
        prompt = model.get_text_features(**tokens).pooler_output
        image, prompt = (x / x.norm(dim=-1, keepdim=True) for x in (image, prompt))
        expected = model.logit_scale.exp() * image @ prompt.T
        found, labels = task.trainer.scores(task.adapter.model.eval(), task.data.test, np.arange(6))
    np.testing.assert_allclose(found, expected, atol=0.02)  # bytes are rounded in another order
    assert labels.tolist() == task.data.test.labels.tolist()


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs the [qlora] extra")
def test_the_frozen_model_may_have_4_bits(clip: Make, tmp_path: Path) -> None:
    wide = tiny.clip(tmp_path / "wide", width=64)
    run = Finetuning(clip(model=str(wide), base_precision="nf4"))
    before = run.task.evaluate("test", run.task.weights, [])
    assert run.run()["rounds"][-1]["test_loss"] < before.loss


@pytest.mark.parametrize("mode", MODES)
def test_peft_loads_what_is_written(clip: Make, things: Path, mode: str, tmp_path: Path) -> None:
    run = Finetuning(clip(mode=mode, out=tmp_path / "out"))
    run.run()
    base = CLIPModel.from_pretrained(things / "clip")
    loaded = PeftModel.from_pretrained(base, str(tmp_path / "out")).eval()
    config = loaded.peft_config["default"]
    assert config.auto_mapping["base_model_class"] == "CLIPModel"
    run.task.adapter.load(run.model)
    rows = np.arange(5)
    with torch.inference_mode():
        scores, test = run.task.trainer.scores, run.task.samples["test"]
        expected, _ = scores(run.task.adapter.model.eval(), test, rows)
        np.testing.assert_allclose(scores(loaded, test, rows)[0], expected, atol=1e-5)
        deploy(things / "clip", tmp_path / "out", tmp_path / "merged", int8=False)
        merged = CLIPModel.from_pretrained(tmp_path / "merged").eval()
        np.testing.assert_allclose(scores(merged, test, rows)[0], expected, atol=1e-4)
    assert (tmp_path / "merged" / "tokenizer.json").is_file()


def test_a_run_goes_on_with_the_same_pixels_only(clip: Make, tmp_path: Path) -> None:
    folder, out = tiny.clip(tmp_path / "clip"), tmp_path / "out"
    whole = Finetuning(clip(model=str(folder)))
    whole.run()
    Finetuning(clip(model=str(folder), rounds=1, out=out)).run()
    resumed = Finetuning(clip(model=str(folder), out=out), resume=True)
    resumed.run()
    for name, tensor in whole.state.weights.items():
        np.testing.assert_array_equal(resumed.state.weights[name], tensor)
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5]}')
    with pytest.raises(CheckpointError, match="data: "):
        Finetuning(clip(model=str(folder), rounds=3, out=out), resume=True).run()


def test_the_command_runs(clip: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = clip()
    options = ["lm", "finetune", "--task", "clip", "--model", config.model, "--clients", "2"]
    options += ["--data", str(config.data), "--rounds", "1", "--local-steps", "1"]
    options += ["--max-test-samples", "9", "--prompt", "this is a {name}", "--out", str(tmp_path)]
    assert command(options) == 0
    assert "Test accuracy" in capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text())
    assert (results["task"], results["metric"]) == ("clip", "accuracy")


# --- data ---


def test_vision_data_sets_are_told_by_their_files(tmp_path: Path) -> None:
    data_files.write_mnist(tmp_path / "mnist", train=12)
    data_files.write_mnist(tmp_path / "fashion-mnist", train=12)
    data_files.write_files(tmp_path / "cifar-100-binary", data_files.cifar100_files())
    data_files.write_ham10000(tmp_path / "ham")
    names = {
        folder: read_labelled(tmp_path / folder, 1).classes[:2]
        for folder in ("mnist", "fashion-mnist", "cifar-100-binary", "ham")
    }
    assert names == {
        "mnist": ("zero", "one"),
        "fashion-mnist": ("T-shirt", "trouser"),
        "cifar-100-binary": ("apple", "aquarium_fish"),
        "ham": ("akiec", "bcc"),
    }
    assert in_words("a {name}", names["cifar-100-binary"]) == ["a apple", "a aquarium fish"]
    assert read_labelled(tmp_path / "ham", 1).train.groups is not None
    assert len(read_labelled(Path("digits"), 1, 50, 20).train) == 50


def test_pixels_are_those_of_the_files(things: Path) -> None:
    data = read_labelled(things / "pictures", 1)
    records = np.fromfile(things / "pictures" / "data_batch_1.bin", np.uint8).reshape(-1, 3073)
    np.testing.assert_array_equal(data.train.labels, records[:, 0])
    np.testing.assert_array_equal(data.train.pixels.reshape(len(records), -1), records[:, 1:])


def test_names_that_lie_beside_the_files(tmp_path: Path) -> None:
    folder = tiny.pictures(tmp_path)
    listed = folder / "batches.meta.txt"
    listed.write_text("\n".join(f"thing {n}" for n in range(10)) + "\n\n")
    assert read_labelled(folder, 1).classes[9] == "thing 9"
    listed.write_text("cat\ndog\n")
    with pytest.raises(DataError, match=r"batches.meta.txt: has 2 names; needed: 10"):
        read_labelled(folder, 1)


def test_normalising(tmp_path: Path) -> None:
    """As transformers does it: by the model's own preprocessor, by CLIP's constants without one."""
    pixels = np.random.default_rng(1).integers(0, 256, (3, 3, 32, 32)).astype(np.uint8)
    images = [picture.transpose(1, 2, 0) for picture in pixels]
    vision = type("Vision", (), {"image_size": [24, 24]})
    for options in ({}, {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}):
        own = CLIPImageProcessorPil(
            size={"height": 24, "width": 24}, do_center_crop=False, **options
        )
        if options:
            own.save_pretrained(tmp_path)
        found = Preprocessing.of(tmp_path, vision)(pixels, torch.device("cpu"))
        expected = own(images, return_tensors="pt")["pixel_values"]
        steps = (found - expected).abs() * torch.tensor(own.image_std).reshape(3, 1, 1) * 255
        assert steps.max() < 1.01
        assert steps.mean() < 0.01
    grey = Preprocessing.of(tmp_path, vision)(pixels[:, :1], torch.device("cpu"))
    assert grey.shape == (3, 3, 24, 24)


# --- errors ---


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"model": "gpt2"}, "gpt2: is a model of type gpt2; task clip needs clip"),
        ({"model": "llava"}, "is a model of type llava; task clip needs clip"),
        ({"data": "text.txt"}, "text.txt: no such folder; allowed: a folder with the files of"),
        ({"data": "sentences"}, "sentences: has no pictures with classes; allowed"),
        ({"data": "captions"}, "captions: has no pictures with classes; allowed"),
        ({"sequence_length": 41}, "the model has 40 positions; allowed: up to 40"),
        ({"sequence_length": 9}, "are the same 9 tokens: the model cannot tell"),
        ({"target_modules": "c_attn"}, "no adapter for this model: .*c_attn"),
        ({"mode": "sb", "rank": 33}, "rank = 33 is above the 32"),
    ],
)
def test_what_does_not_fit(clip: Make, things: Path, choices: dict[str, Any], said: str) -> None:
    places = {n: str(things / c) for n, c in choices.items() if n in ("model", "data")}
    with pytest.raises(FederatedError, match=said):
        Finetuning(clip(**{**choices, **places}))


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"prompt": "a photo"}, r"prompt = 'a photo'; allowed: a sentence with \{name\}"),
        ({"text_only_clients": 1}, "text_only_clients with task = 'clip'"),
        ({"partition": "by-hand"}, "not available; available: iid, contiguous"),
    ],
)
def test_configurations(clip: Make, choices: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        clip(**choices)


def test_a_tokenizer_without_the_end_that_the_model_reads(clip: Make, tmp_path: Path) -> None:
    other = tiny.clip(tmp_path / "other", eos_token_id=40)
    with pytest.raises(ModelError, match="ends no prompt with the token 40"):
        Finetuning(clip(model=str(other)))


def test_pictures_of_one_class(clip: Make, tmp_path: Path) -> None:
    record = np.zeros(3073, np.uint8)
    for name in ("data_batch_1.bin", "test_batch.bin"):
        (tmp_path / name).write_bytes(record.tobytes() * 5)
    with pytest.raises(DataError, match="all pictures are of class 0; needed: 2 classes"):
        Finetuning(clip(data=tmp_path))


def test_a_broken_preprocessor(clip: Make, tmp_path: Path) -> None:
    folder = tiny.clip(tmp_path / "clip")
    for found, said in (
        ('{"image_mean": [0, 0, 0], "image_std": [1, 0, 1]}', "allowed: 3 numbers above 0"),
        ('{"image_mean": [0.5], "image_std": [1, 1, 1]}', r"image_mean = \[0.5\]; allowed: 3"),
        ("[]", "is no JSON object"),
        ('{"resample": []}', r"resample = \[\]; allowed: a number"),
    ):
        (folder / "preprocessor_config.json").write_text(found)
        with pytest.raises(ModelError, match=said):
            Finetuning(clip(model=str(folder)))


def test_what_serves_texts_refuses_pictures(clip: Make, things: Path, tmp_path: Path) -> None:
    Finetuning(clip(rounds=1, out=tmp_path / "out")).run()
    with pytest.raises(ModelError, match="is a model of type clip, for task clip, not causal"):
        open_model(things / "clip", "causal")
    with pytest.raises(ModelError, match="is an adapter for the task clip, not causal"):
        open_model(tmp_path / "out", "causal", things / "clip")
    with pytest.raises(ModelError, match="is for task clip; int8 is for models of text"):
        deploy(things / "clip", None, tmp_path / "small", int8=True)
