"""``quancrypt experiment``: what it lists, plans, prints and returns."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from quancrypt_fl.cli import experiment_progress
from quancrypt_fl.cli.errors import CommandError, CommandInterruptedError
from quancrypt_fl.cli.experiment import experiment
from quancrypt_fl.cli.experiment_progress import span
from quancrypt_fl.errors import ConfigError, DataError
from quancrypt_fl.experiments import catalogue, cells
from quancrypt_fl.experiments.experiment import AccuracyExperiment, Arm

Run = Callable[..., Any]

BASE = {"dataset": "digits", "clients": 2, "rounds": 2, "local_epochs": 1,
        "max_train_samples": 100}  # fmt: skip


@pytest.fixture
def run() -> Run:
    app = typer.Typer()
    app.command()(experiment)

    def call(*arguments: str) -> Any:
        return app(args=list(arguments), standalone_mode=False)

    return call


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> str:
    """An experiment of two cells, in place of one of the catalogue."""

    def arms(scale: str) -> list[Arm]:
        del scale
        return [
            Arm(key=m, group="2 clients", label=m, fields={**BASE, "method": m})
            for m in ("quancrypt", "vanilla")
        ]

    item = AccuracyExperiment(
        name="noniid", title="Tiny", question="Runs?", group_heading="clients",
        label_heading="method", arms=arms,
    )  # fmt: skip
    monkeypatch.setattr(catalogue, "EXPERIMENTS", {**catalogue.EXPERIMENTS, "noniid": item})
    return "noniid"


def test_list_names_all(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run("--list")
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines()[1:]] == list(catalogue.EXPERIMENTS)
    run("--list", "--json")
    listed = json.loads(capsys.readouterr().out)["experiments"]
    assert [entry["name"] for entry in listed] == list(catalogue.EXPERIMENTS)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((), CommandError, "name an experiment: mnist-clients, "),
        (("x",), ConfigError, "no experiment 'x'; there are: mnist-clients, "),
        (("timing", "--scale", "big"), ConfigError, "allowed: quick, standard, paper"),
        (("timing", "--device", "tpu"), ConfigError, "allowed: cpu, cuda"),
        (("timing", "--seeds", "0"), ConfigError, "allowed: 1 to 1,000"),
        (("timing", "--seeds", "1001"), ConfigError, "allowed: 1 to 1,000"),
        (("communication", "--device", "cuda"), ConfigError, "available: cpu"),
        (("communication", "--device", "cuda", "--dry-run"), ConfigError, "available: cpu"),
        (("cifar100", "--data-dir", "."), DataError, r"train\.bin"),
        (("mnist-clients",), DataError, "mnist"),
    ],
)
def test_wrong_arguments_say_what_is_allowed(
    arguments: tuple[str, ...],
    error: type[Exception],
    message: str,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(error, match=message):
        run(*arguments)
    assert list(tmp_path.iterdir()) == []


def test_out_must_not_be_a_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CommandError, match="is a file; --out names a folder"):
        run("communication", "--out", str(tmp_path / "file"))


def test_dry_run_shows_cells_and_time_and_writes_nothing(
    run: Run, tmp_path: Path, mnist_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    options = ("--data-dir", str(mnist_dir.parent), "--out", str(out), "--dry-run")
    run("mnist-clients", *options)
    shown = capsys.readouterr().out
    assert "cnn-50-clients-batchcrypt-seed-3" in shown
    assert "24 cells to run, about " in shown
    run("mnist-clients", "--seeds", "1", "--json", *options)
    document = json.loads(capsys.readouterr().out)
    assert len(document["cells"]) == 8
    assert document["estimated_seconds"] > 60
    assert document["missing"] == {}
    run("cifar100", "--json", "--dry-run", "--data-dir", str(tmp_path))
    assert "train.bin" in json.loads(capsys.readouterr().out)["missing"]["cifar100"]
    run("communication", "--dry-run", "--out", str(out))
    assert capsys.readouterr().out.splitlines()[-1] == "32 cells to run"
    assert not out.exists()


def test_a_run_prints_the_table_and_a_line_per_cell(
    run: Run, tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (tiny, "--seeds", "1", "--out", str(tmp_path / "out"))
    assert not run(*options)
    captured = capsys.readouterr()
    assert "| 2 clients | quancrypt | 2 | 1 |" in captured.out
    assert "figure.svg" in captured.out
    lines = captured.err.splitlines()
    assert lines[0].startswith("0 of 2 cells finished, about ")
    assert lines[1].startswith("[1/2] quancrypt-seed-1: best accuracy ")
    assert len(lines) == 3
    run(*options, "--json")
    captured = capsys.readouterr()
    assert json.loads(captured.out)["complete"] is True
    assert captured.err == ""
    run(*options, "--dry-run")
    assert "0 cells to run" in capsys.readouterr().out


def test_a_failed_cell_means_status_1(
    run: Run,
    tiny: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError("not enough")

    monkeypatch.setattr(cells, "Simulation", fail)
    assert run(tiny, "--seeds", "1", "--out", str(tmp_path)) == 1
    captured = capsys.readouterr()
    assert "quancrypt-seed-1 failed: MemoryError: not enough" in captured.err
    assert "Failed: `vanilla-seed-1`" in captured.out


def test_an_interrupt_says_what_is_saved(
    run: Run, tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulation = cells.Simulation
    made = []

    def second_is_interrupted(*arguments: Any, **choices: Any) -> Any:
        made.append(arguments)
        if len(made) == 2:
            raise KeyboardInterrupt
        return simulation(*arguments, **choices)

    monkeypatch.setattr(cells, "Simulation", second_is_interrupted)
    with pytest.raises(CommandInterruptedError, match="interrupted; 1 of 2 cells finished in"):
        run(tiny, "--seeds", "1", "--out", str(tmp_path))
    assert json.loads((tmp_path / "experiment.json").read_text())["complete"] is False


def test_on_a_terminal_progress_tells_the_round(
    run: Run, tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    class Terminal(experiment_progress.Console):
        def __init__(self, **options: Any) -> None:
            super().__init__(force_terminal=True, **options)

    show = experiment_progress._LiveWatcher.show

    def note(self: Any, cell: Any, rounds: int, news: str) -> None:
        seen.append((cell.id, rounds, news.partition(",")[0]))
        show(self, cell, rounds, news)

    monkeypatch.setattr(experiment_progress, "Console", Terminal)
    monkeypatch.setattr(experiment_progress._LiveWatcher, "show", note)
    run(tiny, "--seeds", "1", "--out", str(tmp_path))
    assert seen[:3] == [
        ("quancrypt-seed-1", 0, ""),
        ("quancrypt-seed-1", 1, "round 1/2"),
        ("quancrypt-seed-1", 2, "round 2/2"),
    ]


def test_spans_are_for_people() -> None:
    assert [span(s) for s in (5, 600, 3600, 9000)] == ["5 s", "10 min", "60 min", "2.5 h"]


def test_remaining_time_follows_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(experiment_progress.time, "monotonic", lambda: clock[0])
    expected: Mapping[str, float | None] = {"a": 10.0, "b": 10.0, "c": 20.0}
    remaining = experiment_progress._Remaining(expected)
    assert remaining.seconds() == 40.0
    clock[0] = 20.0  # twice as slow as expected
    remaining.finished("a")
    assert remaining.seconds() == 60.0
    clock[0] = 30.0
    assert remaining.seconds("b", share=0.5) == pytest.approx(50.0)


def test_measurements_are_not_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(experiment_progress.time, "monotonic", lambda: clock[0])
    assert experiment_progress._Remaining({"m": None}).said() == ""
    remaining = experiment_progress._Remaining({"m": None, "n": None, "a": 10.0, "b": 10.0})
    assert remaining.said() == "about 20 s left, measurements aside"
    clock[0] = 500.0
    remaining.finished("m")
    assert remaining.said("n") == "about 20 s left, measurements aside"
    remaining.finished("n")
    clock[0] = 520.0  # twice as slow as expected
    remaining.finished("a")
    assert remaining.said() == "about 20 s left"
    remaining.finished("b")
    assert remaining.said() == "about 0 s left"
