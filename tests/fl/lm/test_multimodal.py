"""Task multimodal: captions of pictures, also with clients that have none."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from PIL import Image
from tests.fl.lm import tiny
from transformers import LlavaForConditionalGeneration

from quancrypt_fl.cli.app import run as command
from quancrypt_fl.data.jpeg import read_images
from quancrypt_fl.errors import DataError, FederatedError
from quancrypt_fl.lm.captions import Captions
from quancrypt_fl.lm.config import FinetuneConfig
from quancrypt_fl.lm.deploying import deploy
from quancrypt_fl.lm.loading import ModelError
from quancrypt_fl.lm.multimodal import CaptionScores
from quancrypt_fl.lm.opening import open_model
from quancrypt_fl.lm.preprocessing import Preprocessing
from quancrypt_fl.lm.run import Finetuning, LanguageTask

Make = Callable[..., FinetuneConfig]

MODES = ("ffa", "sb", "alternate", "both")
CONNECTOR = "multi_modal_projector"


def assert_encryption_changes_nothing(make: Make, **choices: Any) -> Finetuning:
    encrypted, plain = (Finetuning(make(**choices, encryption=e)) for e in (True, False))
    results, twin = encrypted.run(), plain.run()
    for name, tensor in encrypted.state.weights.items():
        np.testing.assert_array_equal(tensor, plain.state.weights[name])
    assert encrypted.state.bounds == plain.state.bounds
    assert [r["value"] for r in results["rounds"]] == [r["value"] for r in twin["rounds"]]
    return encrypted


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_trains_and_encryption_changes_nothing(multimodal: Make, mode: str) -> None:
    run = assert_encryption_changes_nothing(multimodal, mode=mode, partition="dirichlet")
    start = run.task.weights
    moved = {name for name in start if (start[name] != run.state.weights[name]).any()}
    assert moved == set(start)
    assert sum(CONNECTOR in name for name in start) == 4
    assert all("language_model" in name or CONNECTOR in name for name in start)


def test_captions_are_learned_from_pictures(multimodal: Make) -> None:
    choices = {"rounds": 6, "local_steps": 10, "lr": 3e-2, "target_modules": "all-linear"}
    run = Finetuning(multimodal(**choices))
    before = run.task.evaluate("test", run.task.weights, [])
    results = run.run()
    assert results["metric"] == "perplexity"
    assert results["totals"]["value"] < 2 < np.exp(before.loss)
    test = run.task.samples["test"]
    others = replace(test, shown=np.random.default_rng(1).permutation(test.shown))
    mixed_up = run.task.trainer.evaluate(run.model, others)
    assert mixed_up.loss > 1.3 * run.task.trainer.evaluate(run.model, test).loss


def test_the_loss_is_the_model_s_own_over_captions(multimodal: Make, things: Path) -> None:
    """Against rows put together here, one by one, and the loss that transformers computes."""
    task = LanguageTask(
        multimodal(max_test_samples=5).resolved().model_copy(update={"sequence_length": 40})
    )
    model = LlavaForConditionalGeneration.from_pretrained(things / "llava").eval()
    tokenizer = tiny.tokenizer(things / "llava")
    names = {0: "airplane", 1: "automobile", 2: "bird", 3: "cat"}
    test, total, count = task.data.test, 0.0, 0
    for row in range(5):
        caption = f"a photo of a {names[int(test.by_label[row])]}"
        tokens = [*tokenizer(caption, add_special_tokens=False)["input_ids"], 3]
        ids = torch.tensor([[63] * 4 + tokens])
        labels = torch.tensor([[-100] * 4 + tokens])
        pixels = task.trainer.scores._preprocessing(test.pixels[[row]], torch.device("cpu"))
        with torch.inference_mode():
            loss = model(input_ids=ids, pixel_values=pixels, labels=labels).loss
        total, count = total + float(loss) * len(tokens), count + len(tokens)
    found = task.evaluate("test", task.weights, [])
    assert found.loss == pytest.approx(total / count, rel=1e-5)


class Recorder(torch.nn.Linear):
    """A model that says nothing, and keeps what it was given."""

    def forward(self, **given: Any) -> Any:
        self.given = given
        shape = (len(given["input_ids"]), given["logits_to_keep"], 9)
        return type("Output", (), {"logits": torch.zeros(shape)})


@pytest.mark.parametrize("start", [[], [1]])
@pytest.mark.parametrize("pictures", [True, False])
def test_rows_as_the_model_gets_them(start: list[int], pictures: bool) -> None:
    """Two captions of 3 and 2 tokens after a first token, or none, and a picture's, or none."""
    pixels = np.zeros((2, 3, 4, 4), np.uint8) if pictures else None
    rows = Captions(np.array([[5, 6, 7], [8, 3, 0]]), np.array([3, 2]), pixels, np.array([1, 0]))
    model = Recorder(1, 1)
    scores = CaptionScores(start, [63, 63], Preprocessing(4, [0] * 3, [1] * 3, "bicubic"))
    found, labels = scores(model, rows, np.array([0, 1]))
    head = start + [63, 63] * pictures
    assert model.given["input_ids"].tolist() == [[*head, 5, 6], [*head, 8, 3]]
    attended = [1] * len(head)
    assert model.given["attention_mask"].tolist() == [[*attended, 1, 1], [*attended, 1, 1]]
    assert (model.given["pixel_values"] is not None) == pictures
    expected = [[5, 6, 7], [8, 3, -100]] if head else [[6, 7], [3, -100]]
    assert labels.tolist() == expected
    assert found.shape[:2] == labels.shape


def test_a_tokenizer_s_first_token_begins_every_row(multimodal: Make, tmp_path: Path) -> None:
    folder = tiny.llava(tmp_path / "llava")
    tiny.write_tokenizer(folder, first=True)
    task = LanguageTask(multimodal(model=str(folder), sequence_length=40).resolved())
    assert task.trainer.scores._start == [2]
    assert task.trainer.scores._pictures == [63] * 4
    last = task.data.train.tokens[0, task.data.train.lengths[0] - 1]
    assert (task.data.train.tokens[0, 0], last) == (4, 3)  # the letter a, and the end


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs the [qlora] extra")
def test_the_frozen_model_may_have_4_bits(multimodal: Make, tmp_path: Path) -> None:
    wide = tiny.llava(tmp_path / "wide", width=64)
    run = Finetuning(multimodal(model=str(wide), base_precision="nf4"))
    before = run.task.evaluate("test", run.task.weights, [])
    assert run.run()["rounds"][-1]["test_loss"] < before.loss


@pytest.mark.parametrize("mode", MODES)
def test_peft_loads_what_is_written(
    multimodal: Make, things: Path, mode: str, tmp_path: Path
) -> None:
    run = Finetuning(multimodal(mode=mode, out=tmp_path / "out"))
    run.run()
    base = LlavaForConditionalGeneration.from_pretrained(things / "llava")
    loaded = PeftModel.from_pretrained(base, str(tmp_path / "out")).eval()
    run.task.adapter.load(run.model)
    rows, scores, test = np.arange(5), run.task.trainer.scores, run.task.samples["test"]
    with torch.inference_mode():
        expected, _ = scores(run.task.adapter.model.eval(), test, rows)
        np.testing.assert_allclose(scores(loaded, test, rows)[0], expected, atol=1e-4)
        deploy(things / "llava", tmp_path / "out", tmp_path / "merged", int8=False)
        merged = LlavaForConditionalGeneration.from_pretrained(tmp_path / "merged").eval()
        np.testing.assert_allclose(scores(merged, test, rows)[0], expected, atol=1e-3)


# --- clients without pictures ---


@pytest.mark.parametrize(
    ("mode", "weighting"),
    [("ffa", "integer"), ("sb", "uniform"), ("alternate", "integer"), ("both", "uniform")],
)
def test_clients_without_pictures_take_part(multimodal: Make, mode: str, weighting: str) -> None:
    run = assert_encryption_changes_nothing(
        multimodal, mode=mode, text_only_clients=1, weighting=weighting, partition="dirichlet"
    )
    task = run.task
    alone, _ = task.trainer.train(task.weights, task.parts[2], 0, 2)
    for name, start in task.weights.items():
        if CONNECTOR in name:
            np.testing.assert_array_equal(alone[name], start)
        elif "lora_A" not in name:
            assert (alone[name] != start).any()


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_the_connector_is_the_mean_of_those_who_train_it(
    multimodal: Make, dropout: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the clear, against means written here of the clients that were not lost."""
    choices: dict[str, Any] = {"clients": 5, "text_only_clients": 2, "rounds": 4}
    choices |= {"partition": "dirichlet", "dropout": dropout, "method": "vanilla"}
    run = Finetuning(multimodal(**choices))
    arrived: list[dict[int, float]] = []
    begins = run.task.round_begins

    def note(t: int, parts: Callable[[], Any]) -> None:
        arrived.append(parts())
        begins(t, parts)

    monkeypatch.setattr(run.task, "round_begins", note)
    run.run()
    task = LanguageTask(run.config)
    weights = dict(task.weights)
    assert dropout == 0.0 or any(len(parts) < 5 for parts in arrived)
    for t, parts in enumerate(arrived):
        trained = {k: task.trainer.train(weights, task.parts[k], t, k)[0] for k in parts}
        for name in weights:
            counted = [k for k in parts if k < 3 or CONNECTOR not in name]
            if len(counted) >= (2 if CONNECTOR in name else 1):  # of one it would be that one's
                mean = sum(len(task.parts[k]) * trained[k][name].astype(float) for k in counted)
                weights[name] = np.float32(mean / sum(len(task.parts[k]) for k in counted))
    for name, tensor in weights.items():
        np.testing.assert_allclose(run.state.weights[name], tensor, rtol=1e-3, atol=1e-5)


def test_bounds_are_those_of_the_clients_who_train(multimodal: Make) -> None:
    """Three mean magnitudes, of the connector those of the clients with pictures."""
    run = Finetuning(multimodal(text_only_clients=1, rounds=1, partition="dirichlet"))
    task = run.task
    trained = [task.trainer.train(task.weights, part, 0, k)[0] for k, part in enumerate(task.parts)]
    shares = [s.weight for s in run._parties.method.shares([len(part) for part in task.parts])]
    run.run()
    for name, start in task.weights.items():
        means = [float(np.abs(w[name] - start).mean(dtype=np.float64)) for w in trained]
        able = 2 if CONNECTOR in name else 3
        expected = 3 * np.average(means[:able], weights=shares[:able])
        assert run.state.bounds[name] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("arrived", [{2}, {0, 2}], ids=["none", "one"])
def test_a_round_without_pictures_leaves_the_connector(multimodal: Make, arrived: set[int]) -> None:
    """Also one with the pictures of a single client: the mean would be its update."""
    choices: dict[str, Any] = {"clients": 3, "text_only_clients": 1, "dropout": 0.5, "rounds": 1}
    seed = next(s for s in range(1, 90) if _arrivals(multimodal(**choices, seed=s)) == arrived)
    run = assert_encryption_changes_nothing(multimodal, **choices, seed=seed)
    for name, start in run.task.weights.items():
        assert (run.state.weights[name] == start).all() == (CONNECTOR in name)
        assert run.state.bounds[name] > 1e-5


def test_the_connector_gets_its_bounds_when_somebody_has_pictures(multimodal: Make) -> None:
    """The first round has but clients without, and the clip bound of zeros would be for good."""
    choices: dict[str, Any] = {"clients": 4, "text_only_clients": 2, "participation": 0.5}
    seed = next(
        s for s in range(1, 400) if _chosen(multimodal(**choices, seed=s)) == [{2, 3}, {0, 1}]
    )
    first = Finetuning(multimodal(**choices, seed=seed, rounds=1))
    first.run()
    known = {name for name in first.task.weights if CONNECTOR not in name}
    assert set(first.state.bounds or {}) == known
    run = assert_encryption_changes_nothing(multimodal, **choices, seed=seed, rounds=2)
    for name, start in run.task.weights.items():
        assert (run.state.weights[name] != start).any()
        assert run.state.bounds[name] > 1e-5


def _chosen(config: FinetuneConfig) -> list[set[int]]:
    from quancrypt_fl.method.participation import choose
    from quancrypt_fl.seeds import generator

    return [
        set(choose(config.clients, config.participants, generator(config.seed, "participation", t)))
        for t in range(2)
    ]


def test_values_in_place_of_zeros_do_not_move_the_connector_beyond_its_bound(
    multimodal: Make,
) -> None:
    run = Finetuning(multimodal(text_only_clients=1))
    name = next(name for name in run.task.weights if CONNECTOR in name)
    method = replace(run._parties.method, factors={name: 10.0})
    state = replace(run.state, bounds={name: 0.01})
    mean = np.array([0.009, -0.0005, -0.01], np.float32)
    moved = method.of_able({name: mean}, state)[name]
    np.testing.assert_allclose(moved, [0.01, -0.005, -0.01], rtol=1e-6)


def _arrivals(config: FinetuneConfig) -> set[int]:
    from quancrypt_fl.method.participation import lose
    from quancrypt_fl.seeds import generator

    clients = list(range(config.clients))
    return set(clients) - set(lose(clients, config.dropout, generator(config.seed, "dropout", 0)))


def test_the_influence_of_a_client_counts_the_factor(multimodal: Make) -> None:
    whole, half = (
        Finetuning(multimodal(text_only_clients=n, rounds=1, clients=4)).run() for n in (0, 2)
    )
    coordinate = [results["rounds"][0]["influence"]["coordinate"] for results in (whole, half)]
    assert coordinate[1] > 1.5 * coordinate[0]


# --- captions from a file ---


def test_captions_from_a_file(multimodal: Make, things: Path) -> None:
    run = assert_encryption_changes_nothing(multimodal, data=things / "captions")
    data = run.task.data
    assert data.train.pixels.shape == (27, 3, 16, 16)
    assert (len(data.train), len(data.test)) == (40, 5)  # every second file has two captions
    red = data.train.pixels[data.train.shown[0]].mean(axis=(1, 2))
    assert sorted(red.round().tolist()) == [0, 0, 255]
    validation, parts = run.task.samples["validation"], run.task.parts
    assert not set(validation.shown) & {shown for part in parts for shown in part.shown}


def test_a_picture_that_contradicts_itself_is_named(tmp_path: Path) -> None:
    """A palette's transparency without a palette, which Pillow asserts cannot be."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 4, 4, 8, 3, 0, 0, 0)
    rows = zlib.compress(bytes(4 * 5))
    chunks = [(b"IHDR", header), (b"tRNS", b"\0"), (b"IDAT", rows), (b"IEND", b"")]
    file = tmp_path / "odd.png"
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks))
    with pytest.raises(DataError, match=r"odd\.png: "):
        read_images([file], 8, formats=("PNG",), crop=True)


def test_pictures_keep_their_aspect_and_their_middle(tmp_path: Path) -> None:
    wide = np.zeros((30, 90, 3), np.uint8)
    wide[:, 30:60, 1] = 200
    Image.fromarray(wide).save(tmp_path / "wide.png")
    Image.fromarray(wide.transpose(1, 0, 2)).save(tmp_path / "tall.png")
    paths = [tmp_path / "wide.png", tmp_path / "tall.png"]
    for pixels in read_images(paths, 30, formats=("JPEG", "PNG"), crop=True):
        assert pixels.shape == (3, 30, 30)
        assert (pixels == np.array([0, 200, 0], np.uint8).reshape(3, 1, 1)).all()


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["some/0.png"], "line 1: is not a file, a tab and a caption"),
        (["/etc/passwd\tall"], "line 1: '/etc/passwd' is not in the folder"),
        (["some/../../0.png\tall"], "is not in the folder"),
        (["some/0.png\ta", "some/1.jpg\tb"], "names 2 files; needed: 3"),
        (["some/0.png\tab", "some/1.jpg\tb", "some/none.png\tab"], "none.png: No such file"),
        (["some/0.png\tab", "some/1.jpg\tb", "captions.tsv\tab"], "not a JPEG or PNG file"),
    ],
)
def test_broken_captions(multimodal: Make, tmp_path: Path, lines: list[str], said: str) -> None:
    folder = tiny.captions(tmp_path, 4)
    (folder / "captions.tsv").write_text("\n".join(lines))
    with pytest.raises(DataError, match=said):
        Finetuning(multimodal(data=folder, clients=1))


def test_a_partition_by_label_needs_labels(multimodal: Make, things: Path) -> None:
    with pytest.raises(DataError, match="rows have no labels, and partition shards goes by them"):
        Finetuning(multimodal(data=things / "captions", partition="shards"))


# --- errors ---


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"model": "gpt2"}, "is a model of type gpt2; task multimodal needs llava"),
        ({"model": "clip"}, "is a model of type clip; task multimodal needs llava"),
        ({"data": "text.txt"}, "text.txt: no such folder"),
        ({"prompt": "many words before the {name}" * 3}, "the longest caption .* 64 positions"),
        ({"target_modules": "c_attn"}, "no adapter for this model"),
    ],
)
def test_what_does_not_fit(
    multimodal: Make, things: Path, choices: dict[str, Any], said: str
) -> None:
    places = {n: str(things / c) for n, c in choices.items() if n in ("model", "data")}
    with pytest.raises(FederatedError, match=said):
        Finetuning(multimodal(**{**choices, **places}))


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"text_only_clients": 3}, "leaves 0 with pictures.*; allowed: up to 1"),
        ({"text_only_clients": 2}, "leaves 1 with pictures.*in the clear for all.*up to 1"),
        ({"text_only_clients": 1, "min_arrivals": 3}, "leaves 2 with pictures.*; allowed: up to 0"),
        ({"text_only_clients": 1, "weighting": "prescaled"}, "allowed: integer, uniform"),
        ({"text_only_clients": 1, "update": "weights"}, "with update = 'weights'.*: delta"),
        (
            {"text_only_clients": 1, "aggregation": "median-of-groups", "clients": 9},
            "with aggregation = 'median-of-groups'",
        ),
        ({"text_only_clients": -1}, "greater than or equal to 0"),
    ],
)
def test_configurations(multimodal: Make, choices: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        multimodal(**choices)


def test_a_token_for_images_that_is_absent_or_in_captions(multimodal: Make, tmp_path: Path) -> None:
    absent = tiny.llava(tmp_path / "absent", image_token_id=64)
    with pytest.raises(ModelError, match="has no token for images among the 64"):
        Finetuning(multimodal(model=str(absent)))
    used = tiny.llava(tmp_path / "used", image_token_id=4)  # the letter a
    with pytest.raises(DataError, match="gives the token 4; allowed"):
        Finetuning(multimodal(model=str(used)))


def test_what_serves_texts_refuses_pictures(things: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is a model of type llava, for task multimodal, not c"):
        open_model(things / "llava", "causal")
    with pytest.raises(ModelError, match="is for task multimodal; int8 is for models of text"):
        deploy(things / "llava", None, tmp_path / "small", int8=True)


def test_the_command_runs(
    multimodal: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = multimodal()
    options = ["lm", "finetune", "--task", "multimodal", "--model", config.model, "--clients", "3"]
    options += ["--data", str(config.data), "--rounds", "1", "--local-steps", "1"]
    options += ["--max-test-samples", "9", "--text-only-clients", "1", "--out", str(tmp_path)]
    assert command(options) == 0
    assert "Test perplexity" in capsys.readouterr().out
