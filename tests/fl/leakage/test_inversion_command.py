"""``quancrypt attack inversion``: its document, its files, and where it goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quancrypt_fl.cli.app import app, run
from quancrypt_fl.errors import ConfigError
from quancrypt_fl.leakage.inversion.study import inversion_study
from quancrypt_fl.report.reading import collect

pytest.importorskip("skimage", reason="SSIM is scikit-image's")

FAST = ("attack", "inversion", "--model", "mlp", "--attack", "analytic", "--images", "4")
COMMAND = (
    "quancrypt attack inversion --dataset digits --model mlp --attack analytic --view plaintext "
    "--view quantized --view ciphertext --view random --images 4"
)
VIEWS = ("--view", "plaintext", "--view", "quantized", "--view", "ciphertext", "--view", "random")


def call(*arguments: str) -> Any:
    return app(args=[*FAST, *VIEWS, *arguments], standalone_mode=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("inversion")
    call("--out", str(out), "--seed", "5")
    return out


def test_the_document_is_that_of_the_contract(folder: Path) -> None:
    document = json.loads((folder / "inversion.json").read_bytes())
    assert document["seed"] == 5
    assert document["complete"] is True
    assert document["config"]["networks"] == ["mlp"]
    views = [target["view"] for target in document["targets"]]
    assert views == ["plaintext", *["quantized"] * 3, "ciphertext", "random"]
    for target in document["targets"]:
        assert target["images"] == 4
        assert {"psnr", "ssim", "mse", "label_accuracy"} <= target.keys()
    figures = {(t["view"], t["bits"]): t for t in document["targets"]}
    assert figures["plaintext", None]["psnr"] > 60
    assert figures["plaintext", None]["label_accuracy"] == 1.0
    assert figures["quantized", 8]["psnr"] > figures["quantized", 4]["psnr"]
    assert figures["ciphertext", 8]["psnr"] < 12
    assert figures["ciphertext", 8]["upload_bytes"] > figures["quantized", 8]["upload_bytes"]


def test_pictures_and_table_are_written(folder: Path) -> None:
    document = json.loads((folder / "inversion.json").read_bytes())
    assert document["pictures"] == ["reconstructions-digits-mlp-analytic.png"]
    assert (folder / document["pictures"][0]).read_bytes().startswith(b"\x89PNG")
    table = (folder / "table.md").read_text()
    assert "digits, mlp, attack analytic:" in table
    assert f"`{COMMAND} --seed 5 --scale quick`" in table


def test_checks_compare_ciphertexts_with_random_bytes(folder: Path) -> None:
    checks = json.loads((folder / "inversion.json").read_bytes())["checks"]
    assert [check["passed"] for check in checks] == [True, True]
    assert all("random bytes" in check["text"] for check in checks)


def test_finished_cells_are_not_run_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from quancrypt_fl.leakage.inversion import study

    def fails(*_: object) -> dict[str, Any]:
        raise AssertionError("a finished cell ran again")

    before = json.loads((folder / "inversion.json").read_bytes())
    monkeypatch.setattr(study, "measure_inversion", fails)
    call("--out", str(folder), "--seed", "5", "--json")
    assert json.loads(capsys.readouterr().out)["targets"] == before["targets"]


def test_a_report_shows_the_tables(folder: Path) -> None:
    found = collect(folder)
    assert not found.problems
    (experiment,) = found.experiments
    assert experiment.title == "Gradient inversion, digits"
    assert experiment.notes[-1].endswith(f"{COMMAND} --seed 5 --scale quick")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dataset": "cats"}, "dataset = 'cats'; allowed: digits, mnist"),
        ({"networks": ["vgg"]}, "model = 'vgg'; allowed: lenet, mlp"),
        ({"attacks": ["magic"]}, "attack = 'magic'; allowed: dlg, cosine, analytic"),
        ({"kinds": ["x"]}, "view = 'x'; allowed: plaintext, difference"),
        ({"networks": ["resnet18-batch"]}, "its last feature map has one pixel"),
        ({"images": 0}, "images = 0; allowed: 1 to 1,000"),
    ],
)
def test_bad_names_say_what_is_allowed(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        inversion_study(**{"dataset": "digits", **given})


def test_a_bad_scale_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*FAST, "--scale", "huge"]) == 2
    assert "allowed: quick, standard, paper" in capsys.readouterr().err


def test_an_interrupted_study_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from quancrypt_fl.leakage.inversion import study

    measured = study.measure_inversion
    seen: list[str] = []

    def once(*arguments: Any) -> dict[str, Any]:
        seen.append(arguments[-1]["view"]["kind"])
        if len(seen) == 2:
            raise KeyboardInterrupt
        return measured(*arguments)

    monkeypatch.setattr(study, "measure_inversion", once)
    views = ("--view", "plaintext", "--view", "clipped")
    assert run([*FAST, *views, "--out", str(tmp_path)]) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert run([*FAST, *views, "--out", str(tmp_path)]) == 0
    assert seen == ["plaintext", "clipped", "clipped"]
    document = json.loads((tmp_path / "inversion.json").read_bytes())
    assert [target["view"] for target in document["targets"]] == ["plaintext", "clipped"]


def test_a_cell_that_was_changed_is_measured_again(tmp_path: Path) -> None:
    command = [*FAST, "--view", "plaintext", "--out", str(tmp_path)]
    assert run(command) == 0
    before = json.loads((tmp_path / "inversion.json").read_bytes())["targets"]
    (cell,) = tmp_path.glob("cells/*/measurement.json")
    for change in ('"psnr": [', '"psnr": ["x", '), ('"results"', '"result"'), ("{", "["):
        text = cell.read_text()
        assert change[0] in text
        cell.write_text(text.replace(*change, 1))
        assert run(command) == 0
        after = json.loads((tmp_path / "inversion.json").read_bytes())["targets"]
        assert [{**t, "seconds": 0} for t in after] == [{**t, "seconds": 0} for t in before]


def test_a_folder_belongs_to_one_data_set(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["attack", "membership", "--out", str(folder)]) == 2
    assert "name another folder for --out" in capsys.readouterr().err


@pytest.mark.parametrize("other", [("--seed", "6"), ("--seed", "5", "--images", "2")], ids=str)
def test_a_folder_belongs_to_one_seed_and_number_of_images(
    folder: Path, capsys: pytest.CaptureFixture[str], other: tuple[str, ...]
) -> None:
    """Cells of other ones would replace what is there."""
    before = (folder / "inversion.json").read_bytes()
    assert run([*FAST, *VIEWS, "--out", str(folder), *other]) == 2
    said = capsys.readouterr().err
    assert "seed 5, images 4" in said
    assert "name another folder for --out" in said
    assert (folder / "inversion.json").read_bytes() == before


def test_folders_are_named_after_what_was_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run([*FAST, "--view", "random", "--seed", "3", "--json"]) == 0
    (made,) = (tmp_path / "runs").iterdir()
    assert made.name == "inversion-digits-quick-mlp-analytic-random-4-images-seed-3"


def test_what_is_encrypted_and_what_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The attack that gets nothing from an upload gets the image if encryption is switched off."""
    views = [w for kind in ("unmasked", "decoded", "ciphertext", "random", "guess") for w in
             ("--view", kind)]  # fmt: skip
    images = [*FAST[:-1], "12"]
    assert run([*images, *views, "--out", str(tmp_path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    figures = {t["view"]: t for t in document["targets"] if t["view"] != "guess"}
    assert figures["unmasked"]["psnr"] > 40
    assert figures["unmasked"]["ssim_above_guess"][0] > 0.2
    assert figures["decoded"]["ssim_above_guess"][2] < 0
    checks = {check["text"]: check["passed"] for check in document["checks"]}
    assert len(checks) == 6
    for text, passed in checks.items():
        assert passed is not False
        if "switched off" in text:
            assert passed is True


def test_a_cell_that_fails_is_status_1_and_the_others_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from quancrypt_fl.leakage.inversion import study

    measured = study.measure_inversion

    def fails(*arguments: Any) -> dict[str, Any]:
        if arguments[-1]["view"]["kind"] == "clipped":
            raise ValueError("broken on purpose")
        return measured(*arguments)

    monkeypatch.setattr(study, "measure_inversion", fails)
    views = ("--view", "plaintext", "--view", "clipped")
    assert run([*FAST, *views, "--out", str(tmp_path)]) == 1
    document = json.loads((tmp_path / "inversion.json").read_bytes())
    assert document["complete"] is False
    assert [target["view"] for target in document["targets"]] == ["plaintext"]
    assert "broken on purpose" in (tmp_path / "table.md").read_text()
