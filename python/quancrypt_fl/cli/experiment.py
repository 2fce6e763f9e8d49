"""``quancrypt experiment``: a published table or figure, ours beside the paper's figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quancrypt_fl.cli.errors import CommandError, CommandInterruptedError
from quancrypt_fl.cli.interrupts import MESSAGE, interruptible_imports
from quancrypt_fl.cli.options import DataSets, Device
from quancrypt_fl.cli.storage import check_folder
from quancrypt_fl.cli.text import counted, print_json, printable, table

if TYPE_CHECKING:
    from quancrypt_fl.experiments.experiment import Experiment, Plan

__all__ = ["exit_if_failed", "experiment"]

_CELL_FAILED = 1


def experiment(
    name: Annotated[
        str | None, typer.Argument(help="Which one; --list shows all.", show_default=False)
    ] = None,
    scale: Annotated[
        str,
        typer.Option(
            metavar="quick|standard|paper",
            help="Minutes on two cores; about an hour; 300 rounds, for a GPU.",
        ),
    ] = "quick",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for results.", show_default="runs/NAME-SCALE"),
    ] = None,
    data_dir: DataSets = None,
    seeds: Annotated[int, typer.Option(help="Number of seeds: 1, 2, ...")] = 3,
    device: Device = "cpu",
    list_all: Annotated[
        bool, typer.Option("--list", help="Show all experiments and do nothing else.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would run and for how long, and stop.")
    ] = False,
    json_only: Annotated[
        bool, typer.Option("--json", help="Print only the document, as JSON.")
    ] = False,
) -> None:
    """Reproduce a published table or figure, or a study that the paper leaves out.

    Writes experiment.json, table.md, figure.png and figure.svg into --out, and each run below
    cells/. The same command goes on where it was interrupted; finished cells are not run again.
    Exit status 1: a cell failed.
    """
    with interruptible_imports():
        from quancrypt_fl.experiments.catalogue import EXPERIMENTS, find_experiment
        from quancrypt_fl.experiments.experiment import make_plan

    if list_all:
        _print_list(EXPERIMENTS, json_only=json_only)
        return
    if name is None:
        raise CommandError(f"name an experiment: {', '.join(EXPERIMENTS)}")
    chosen = find_experiment(name)
    plan = make_plan(scale, seeds, device, data_dir)
    folder = out or Path("runs") / f"{name}-{scale}"
    check_folder(folder)
    if dry_run:
        _print_dry_run(chosen, plan, folder, json_only=json_only)
        return
    _run(chosen, plan, folder, json_only=json_only)


def _run(chosen: Experiment, plan: Plan, folder: Path, *, json_only: bool) -> None:
    with interruptible_imports():
        from quancrypt_fl.cli.experiment_progress import experiment_watcher
        from quancrypt_fl.experiments.runner import ExperimentRun
        from quancrypt_fl.experiments.tables import markdown

    with experiment_watcher(chosen, plan, silent=json_only) as watcher:
        run = ExperimentRun(chosen, plan, folder, watcher)
        try:
            document = run.run()
        except KeyboardInterrupt as error:
            done = f"{len(run.finished)} of {counted(len(run.cells), 'cell')} finished"
            raise CommandInterruptedError(
                f"{MESSAGE}; {done} in {folder}; the same command goes on"
            ) from error
    if json_only:
        print_json(document)
    else:
        print(markdown(document))
        files = ("experiment.json", "table.md", "figure.png", "figure.svg")
        print("Written: " + ", ".join(str(folder / f) for f in files if (folder / f).exists()))
    exit_if_failed(document)


def exit_if_failed(document: Mapping[str, Any]) -> None:
    """End with exit status 1 if a cell of an experiment's document failed."""
    if any(cell["state"] == "failed" for cell in document["cells"]):
        raise typer.Exit(_CELL_FAILED)


def _print_list(experiments: Mapping[str, Experiment], *, json_only: bool) -> None:
    if json_only:
        print_json(
            {
                "experiments": [
                    {"name": name, "title": item.title, "question": item.question}
                    for name, item in experiments.items()
                ]
            }
        )
        return
    print(table(("experiment", "what"), [(n, e.title) for n, e in experiments.items()], left=2))


def _print_dry_run(chosen: Experiment, plan: Plan, folder: Path, *, json_only: bool) -> None:
    from quancrypt_fl.cli.experiment_progress import span
    from quancrypt_fl.experiments.estimate import cell_seconds, data_sizes
    from quancrypt_fl.experiments.runner import ExperimentRun

    sizes = data_sizes(chosen.datasets(plan.scale), plan.data_dir)
    run = ExperimentRun(chosen, plan, folder)
    rows: list[dict[str, Any]] = [
        {
            "id": cell.id,
            "rounds": cell.rounds,
            "finished": cell.finished(run.folder(cell)) is not None,
            "estimated_seconds": cell_seconds(cell, sizes),
            "runs": cell.describe(),
        }
        for cell in run.cells
    ]
    left = [row for row in rows if not row["finished"]]
    total = sum(row["estimated_seconds"] or 0.0 for row in left)
    missing = {name: size.missing for name, size in sizes.items() if size.missing is not None}
    if json_only:
        print_json({"cells": rows, "estimated_seconds": total, "missing": missing})
        return
    shown = [
        (
            row["id"],
            str(row["rounds"]),
            "finished" if row["finished"] else _said(row["estimated_seconds"]),
        )
        for row in rows
    ]
    print(table(("cell", "rounds", "estimated"), shown))
    where = "two cores of a recent CPU" if plan.device == "cpu" else "a GPU of a data centre"
    measurements = sum(row["estimated_seconds"] is None for row in left)
    aside = ", measurements aside" if measurements else ""
    about = f", about {span(total)} on {where}{aside}" if measurements < len(left) else ""
    print(f"{counted(len(left), 'cell')} to run{about}")
    for name, size in sizes.items():
        if size.missing is not None:
            print(f"missing: {printable(size.missing)} (estimated for {size.train:,} images)")
        else:
            print(f"{name}: {size.train:,} training and {size.test:,} test images")


def _said(seconds: float | None) -> str:
    from quancrypt_fl.cli.experiment_progress import span

    return "a measurement" if seconds is None else span(seconds)
