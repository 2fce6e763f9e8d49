"""``quancrypt report``: one HTML page about the runs in a folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from quancrypt_fl.cli.errors import CommandError
from quancrypt_fl.cli.interrupts import interruptible_imports
from quancrypt_fl.cli.options import Force, JsonOnly
from quancrypt_fl.cli.storage import check_output, write
from quancrypt_fl.cli.text import counted, print_json, printable

__all__ = ["report"]

_HEAD = 2_000  # bytes in which a page of ours names itself
_LONGEST_TITLE = 200
_OF_A_RUN = (
    "results.json", "experiment.json", "model.safetensors", "status.json", "events.jsonl",
)  # fmt: skip


def report(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of one or several runs, at any depth.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The page.", show_default="DIR/report.html")
    ] = None,
    title: Annotated[
        str | None, typer.Option(help="Heading of the page.", show_default="from the folder's name")
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    force: Force = False,
    json_only: JsonOnly = False,
) -> None:
    """Make one HTML page of the runs in DIR: tables, charts, receipts, configurations.

    The page needs no other file and loads nothing. Files that are no results are named on it, with
    the reason, and left out. An earlier report is replaced; any other file needs --force, and files
    of runs are never written over.
    """
    with interruptible_imports():
        from quancrypt_fl.report.page import render_page
        from quancrypt_fl.report.reading import collect

    found = collect(folder)
    path = out or folder / "report.html"
    _check_not_of_a_run(path, folder, found.files)
    replace = force or _is_report(path)
    check_output(path, force=replace)
    heading = (title or f"Runs in {folder.resolve().name or 'this folder'}")[:_LONGEST_TITLE]
    page = render_page(found, heading).encode("utf-8", "replace")
    write(path, page, force=replace)
    if json_only:
        print_json(
            {
                "report": str(path),
                "bytes": len(page),
                "runs": [run.summary() for run in found.runs],
                "experiments": [experiment.title for experiment in found.experiments],
                "problems": [{"file": p.file, "reason": p.reason} for p in found.problems],
            }
        )
    else:
        for problem in found.problems:
            line = f"quancrypt: left out: {problem.file}: {problem.reason}"
            print(printable(line), file=sys.stderr)
        parts = [counted(len(found.runs), "run")] if found.runs else []
        if found.experiments:
            parts.append(counted(len(found.experiments), "experiment"))
        print(printable(f"{path}: {', '.join(parts)}, {len(page):,} bytes"))
    if show:
        _open(path)


def _check_not_of_a_run(out: Path, folder: Path, files: Sequence[Path]) -> None:
    """Raise :class:`CommandError` if ``out`` is, or would be, a file of one of the runs."""
    real, top = Path(os.path.realpath(out)), Path(os.path.realpath(folder))
    if top in real.parents:
        place = real.relative_to(top)
        if place.name in _OF_A_RUN or "checkpoints" in place.parts[:-1]:
            raise CommandError(f"{out}: is a file of a run; name another one to write")
    check_output(out, force=True, inputs=_inputs(folder, files))


def _inputs(folder: Path, files: Sequence[Path]) -> Iterator[Path]:
    for place in files:
        run = (folder / place).parent
        yield from (run / name for name in _OF_A_RUN)
        for root, _, names in os.walk(run / "checkpoints"):  # empty where it cannot be read
            yield from (Path(root, name) for name in names)


def _is_report(path: Path) -> bool:
    """Whether an earlier report stands there, which may be replaced unasked."""
    from quancrypt_fl.report.page import GENERATOR

    try:
        with path.open("rb") as stream:
            return path.is_file() and GENERATOR.encode() in stream.read(_HEAD)
    except OSError:
        return False


def _open(path: Path) -> None:
    import webbrowser

    if not webbrowser.open(path.resolve().as_uri()):
        raise CommandError(f"{path}: is written, but no browser was found to open it")
