"""Experiments run, stop, go on and fail as they should: on digits, in seconds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from quancrypt_fl.errors import ConfigError, DataError
from quancrypt_fl.experiments import cells as cells_module
from quancrypt_fl.experiments import docs
from quancrypt_fl.experiments.accuracy import CIFAR100
from quancrypt_fl.experiments.cells import Cell
from quancrypt_fl.experiments.experiment import AccuracyExperiment, Arm, Plan, Requirement
from quancrypt_fl.experiments.runner import ExperimentRun
from quancrypt_fl.experiments.watcher import Watcher
from quancrypt_fl.observer import Observer

LABELS = {"quancrypt": "QuanCrypt-FL", "vanilla": "Vanilla-FL"}
BASE = {"dataset": "digits", "clients": 3, "rounds": 2, "local_epochs": 1,
        "max_train_samples": 300}  # fmt: skip
TWO_SEEDS = Plan(seeds=(1, 2))


def tiny_arms(scale: str) -> list[Arm]:
    del scale
    return [
        Arm(
            key=method,
            group="3 clients",
            label=LABELS[method],
            fields={**BASE, "method": method},
            against="vanilla" if method == "quancrypt" else None,
            published=99.5 if method == "quancrypt" else None,
            x=8.0 if method == "quancrypt" else None,
        )
        for method in LABELS
    ]


def tiny(**choices: Any) -> AccuracyExperiment:
    options: dict[str, Any] = {
        "name": "tiny",
        "title": "Digits",
        "question": "Does it run?",
        "group_heading": "clients",
        "label_heading": "method",
        "arms": tiny_arms,
        "requirements": lambda scale: [
            Requirement(
                text="close to vanilla", arm="quancrypt", against="vanilla", at_least=-100.0
            )
        ],
        "notes": ("A footnote.",),
        "axis": "bits",
        **choices,
    }
    return AccuracyExperiment(**options)


class Recorder(Watcher):
    """Notes what runs; interrupts after so many rounds."""

    def __init__(self, interrupt_after: int | None = None) -> None:
        self.rounds: list[tuple[str, int]] = []
        self.failed: dict[str, str] = {}
        self.left: list[str] = []
        self._interrupt_after = interrupt_after

    def started(self, cells: Sequence[Cell], left: Sequence[Cell]) -> None:
        self.left = [cell.id for cell in left]

    def cell_started(self, cell: Cell) -> Observer:
        recorder = self

        class Rounds(Observer):
            def round_finished(self, record: Mapping[str, Any]) -> None:
                recorder.rounds.append((cell.id, record["round"]))
                if len(recorder.rounds) == recorder._interrupt_after:
                    raise KeyboardInterrupt

        return Rounds()

    def cell_failed(self, cell: Cell, error: str) -> None:
        self.failed[cell.id] = error


def without_bytes_and_times(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows as they must be, whoever encrypted when."""
    return [
        {key: value for key, value in row.items() if key != "upload_bytes_per_round"}
        for row in document["summary"]["rows"]
    ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A tiny experiment with two seeds, done in one go."""
    out = tmp_path_factory.mktemp("finished") / "results"
    return out, ExperimentRun(tiny(), TWO_SEEDS, out).run()


def test_an_experiment_leaves_complete_files(finished: tuple[Path, dict[str, Any]]) -> None:
    out, document = finished
    assert json.loads((out / "experiment.json").read_text()) == json.loads(json.dumps(document))
    assert document["schema"] == 1
    assert document["complete"] is True
    assert document["data"] == {"digits": {"train": 1438, "test": 359}}
    assert [cell["state"] for cell in document["cells"]] == ["finished"] * 4
    assert all(cell["seconds"] > 0 for cell in document["cells"])
    assert document["cells"][0]["runs"] == {
        "clients": 3, "rounds": 2, "local_epochs": 1, "max_train_samples": 300
    }  # fmt: skip
    assert set(document["environment"]) >= {"cpu", "torch", "backend", "quancrypt_native"}
    rows = {row["arm"]: row for row in document["summary"]["rows"]}
    assert rows["quancrypt"]["best_difference"]["count"] == 2
    assert rows["vanilla"]["best_difference"] is None
    assert len(rows["vanilla"]["curve"]["mean"]) == 2
    assert document["summary"]["checks"][0]["passed"] is True
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")
    ET.fromstring((out / "figure.svg").read_text())
    results = json.loads((out / "cells" / "quancrypt-seed-2" / "results.json").read_text())
    assert results["seed"] == 2
    assert str(out) not in (out / "experiment.json").read_text()


def test_the_table_has_ours_and_the_published_figure(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    out, document = finished
    table = (out / "table.md").read_text()
    mean = document["summary"]["rows"][0]["best_accuracy"]["mean"]
    row = next(line for line in table.splitlines() if line.startswith("| 3 clients | QuanCrypt"))
    assert f"| {mean:.2f} ± " in row
    assert "| 99.50 |" in row
    assert "published (%)" in table
    assert "| close to vanilla |" in table
    assert "- A footnote." in table
    assert "95 % confidence interval" in table
    assert "1,438 training and 359 test images" in table
    assert "Incomplete" not in table


def test_finished_cells_are_not_run_again(
    finished: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, document = finished

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a finished cell ran again")

    monkeypatch.setattr(cells_module, "Simulation", refuse)
    recorder = Recorder()
    again = ExperimentRun(tiny(), TWO_SEEDS, out, recorder).run()
    assert recorder.left == []
    assert recorder.failed == {}
    assert again == document  # the seconds of the first run among it


def test_a_changed_configuration_runs_again(finished: tuple[Path, dict[str, Any]]) -> None:
    out, _ = finished
    cell = tiny().cells(TWO_SEEDS)[0]
    assert isinstance(cell, cells_module.TrainingCell)
    folder = out / "cells" / cell.id
    assert cell.finished(folder) is not None
    for change in ({"rounds": 3}, {"bits": 4}, {"seed": 5}):
        other = replace(cell, config=cell.config.model_copy(update=change))
        assert other.finished(folder) is None
    assert cell.finished(out / "cells" / "absent") is None


def test_an_interrupted_experiment_goes_on_at_the_round_where_it_stopped(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    first = Recorder(interrupt_after=3)
    run = ExperimentRun(tiny(), TWO_SEEDS, tmp_path, first)
    with pytest.raises(KeyboardInterrupt):
        run.run()
    assert run.finished == ["quancrypt-seed-1"]
    half = json.loads((tmp_path / "experiment.json").read_text())
    assert half["complete"] is False
    assert [cell["state"] for cell in half["cells"]] == ["finished", "left", "left", "left"]
    assert "Incomplete: 3 of 4 cells" in (tmp_path / "table.md").read_text()

    second = Recorder()
    document = ExperimentRun(tiny(), TWO_SEEDS, tmp_path, second).run()
    assert second.left == ["vanilla-seed-1", "quancrypt-seed-2", "vanilla-seed-2"]
    ran = [*first.rounds, *second.rounds]
    assert len(ran) == len(set(ran)) == 8  # no round twice
    assert second.rounds[0] == ("vanilla-seed-1", 2)
    assert document["complete"] is True
    assert without_bytes_and_times(document) == without_bytes_and_times(finished[1])


def test_a_failing_cell_is_recorded_and_the_rest_goes_on(tmp_path: Path) -> None:
    def arms(scale: str) -> list[Arm]:
        ours, vanilla = tiny_arms(scale)
        impossible = {**ours.fields, "clients": 299, "max_train_samples": 300}
        return [replace(ours, fields=impossible), vanilla]

    recorder = Recorder()
    experiment, plan = tiny(arms=arms), Plan(seeds=(1,))
    document = ExperimentRun(experiment, plan, tmp_path, recorder).run()
    failed, fine = document["cells"]
    assert (failed["state"], fine["state"]) == ("failed", "finished")
    assert "299" in failed["error"]
    assert list(recorder.failed) == ["quancrypt-seed-1"]
    assert document["complete"] is False
    assert [row["arm"] for row in document["summary"]["rows"]] == ["vanilla"]
    assert document["summary"]["checks"][0]["passed"] is None
    assert "Traceback" in (tmp_path / "cells" / "quancrypt-seed-1" / "error.txt").read_text()
    assert "Failed: `quancrypt-seed-1`" in (tmp_path / "table.md").read_text()

    again = Recorder()
    ExperimentRun(experiment, plan, tmp_path, again).run()
    assert again.left == ["quancrypt-seed-1"]


def test_a_folder_belongs_to_one_experiment_scale_and_data(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    out, _ = finished
    with pytest.raises(ConfigError, match=r"tiny at scale quick on cpu .* not to other at"):
        ExperimentRun(tiny(name="other"), TWO_SEEDS, out).run()
    with pytest.raises(ConfigError, match="name another folder"):
        ExperimentRun(tiny(), replace(TWO_SEEDS, scale="standard"), out).run()
    (tmp_path / "plan.json").write_text("not JSON")
    with pytest.raises(ConfigError, match="belongs to something else"):
        ExperimentRun(tiny(), TWO_SEEDS, tmp_path).run()


def test_a_checkpoint_of_another_configuration_is_not_gone_on_from(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    cell = tiny().cells(TWO_SEEDS)[0]
    assert isinstance(cell, cells_module.TrainingCell)
    shutil.copytree(finished[0] / "cells" / cell.id, tmp_path / cell.id)
    other = replace(cell, config=cell.config.model_copy(update={"bits": 6}))
    document = other.run(tmp_path / cell.id, Observer())
    assert document["config"]["bits"] == 6
    assert len(document["rounds"]) == 2
    assert other.finished(tmp_path / cell.id) is not None


def test_results_go_into_a_document_with_their_figure(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    document = tmp_path / "page.md"
    document.write_text("# Page\n<!-- experiments:tiny -->\n<!-- /experiments -->\n")
    docs.main([str(finished[0]), str(document)])
    text = document.read_text()
    assert "| 3 clients | QuanCrypt-FL |" in text
    assert "![Digits](experiment-tiny.png)" in text
    assert (tmp_path / "experiment-tiny.png").is_file()


def test_the_headline_has_a_column_for_each_method(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    document = tmp_path / "page.md"
    document.write_text("<!-- experiments:headline -->\n<!-- /experiments -->\n")
    docs.main([str(finished[0]), str(document)])
    head, _, line, *_ = document.read_text().splitlines()[1:]
    assert "| QuanCrypt-FL |" in head
    rows = {row["label"]: row for row in finished[1]["summary"]["rows"]}
    best = rows["QuanCrypt-FL"]["best_accuracy"]["mean"]
    assert line.startswith("| Digits, 3 clients | 2 |")
    assert f"| {best:.2f} ± " in line
    assert f"quancrypt experiment tiny --scale {finished[1]['scale']}" in document.read_text()


def write_cifar100(folder: Path, train: int, test: int) -> None:
    """Files in CIFAR-100's form: coarse label, fine label, 3,072 pixels."""
    rng = np.random.default_rng(1)
    for name, count in (("train.bin", train), ("test.bin", test)):
        records = rng.integers(0, 256, (count, 3074), dtype=np.uint8)
        records[:, 0] %= 20
        records[:, 1] %= 100
        (folder / name).write_bytes(records.tobytes())


def test_cifar100_runs_on_files_of_its_form(tmp_path: Path) -> None:
    """ResNet18 is configured likewise; its 11 million weights take too long here."""
    first = [arm for arm in CIFAR100.arms("paper") if arm.key.endswith("10-clients-quancrypt")]
    assert [arm.group for arm in first] == ["alexnet, 10 clients", "resnet18, 10 clients"]
    assert [arm.published for arm in first] == [47.90, 48.21]
    small = {**first[0].fields, "clients": 2, "rounds": 1}
    alexnet = replace(first[0], fields=small, against=None)
    write_cifar100(tmp_path, train=20, test=5)
    experiment = replace(CIFAR100, arms=lambda scale: [alexnet], requirements=lambda scale: [])
    plan = Plan(seeds=(1,), data_dir=tmp_path)
    document = ExperimentRun(experiment, plan, tmp_path / "out").run()
    assert document["summary"]["rows"][0]["published_best_accuracy"] == 47.90
    assert document["data"] == {"cifar100": {"train": 20, "test": 5}}
    assert document["complete"] is True


def test_missing_data_are_named_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    plan = Plan(data_dir=tmp_path / "data")
    with pytest.raises(DataError, match=r"train\.bin"):
        ExperimentRun(CIFAR100, plan, tmp_path / "out").run()
    assert not (tmp_path / "out").exists()


@pytest.fixture
def make_document() -> Callable[..., dict[str, Any]]:
    def make(rows: int, **changes: Any) -> dict[str, Any]:
        row = {
            "group": "g", "x": None, "best_difference": None,
            "best_accuracy": {"mean": 1.0, "low": None, "high": None},
            "curve": {"round": [1.0], "mean": [1.0], "low": [1.0], "high": [1.0]},
        }  # fmt: skip
        return {
            "name": "n", "title": "t",
            "summary": {
                "kind": "accuracy", "axis": None,
                "rows": [{**row, "label": f"l{n}", **changes} for n in range(rows)],
            },
        }  # fmt: skip

    return make


def test_figures_are_drawn_from_documents_alone(
    tmp_path: Path, make_document: Callable[..., dict[str, Any]]
) -> None:
    from quancrypt_fl.experiments.figures import draw_figure, drawable

    assert not drawable(make_document(0))
    for rows in (1, 9):  # a single point; more lines than colours
        draw_figure(make_document(rows), tmp_path / f"{rows}.svg")
        text = (tmp_path / f"{rows}.svg").read_text()
        assert all(f"l{n}" in text for n in range(rows))
    draw_figure(make_document(9), tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_bytes() == (tmp_path / "9.svg").read_bytes()
