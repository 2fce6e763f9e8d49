"""Finding and reading the files of runs, within bounds: whoever wrote them is not trusted."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Never

from quancrypt_fl.errors import FederatedError
from quancrypt_fl.report.deployed import document_of, is_over
from quancrypt_fl.report.experiment import Experiment, parse_experiment
from quancrypt_fl.report.leakage import Leak, parse_leaks
from quancrypt_fl.report.runs import Run, parse_run
from quancrypt_fl.report.values import UntrustedError, shorten

__all__ = ["Findings", "Problem", "ReportError", "collect", "read_json"]

RESULTS, EXPERIMENT, STATUS = "results.json", "experiment.json", "status.json"
MAX_BYTES = 32 << 20  # 10,000 rounds take about 6 MB
MAX_DEPTH = 12  # folders below the one that was named
MAX_FOLDERS = 20_000
MAX_RUNS = 200
MAX_PROBLEMS = 100


class ReportError(FederatedError, ValueError):
    """There is nothing to report on, or nowhere to write it."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A file that is left out, by its place below the folder, and why."""

    file: str
    reason: str


@dataclass(slots=True)
class Findings:
    """What was found below a folder.

    Attributes
    ----------
    runs
        Readable runs, by name.
    experiments
        Readable summaries of experiments.
    leaks
        Figures of attacks, from these summaries.
    problems
        Files that were left out.
    files
        Places below the folder of all files that were read, readable or not.
    """

    runs: list[Run] = field(default_factory=list)
    experiments: list[Experiment] = field(default_factory=list)
    leaks: list[Leak] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)


def collect(folder: Path) -> Findings:
    """Read every ``results.json`` and ``experiment.json`` below ``folder``.

    The ``status.json`` of a deployed run stands in for results that are not there yet.

    A run's name is its folder's place below ``folder``; that of ``folder`` itself is its own name.
    Beyond :data:`MAX_RUNS` files of a kind the search ends, and says so.

    Raises
    ------
    ReportError
        If ``folder`` is no folder, or holds nothing readable; the message gives the first reason.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise ReportError(f"{folder}: {what}; name the folder of one or several runs")
    found = Findings()
    for place in _files_below(folder, found):
        if max(len(found.runs), len(found.experiments)) == MAX_RUNS:
            found.problems.append(
                Problem(shorten(str(place)), f"more than {MAX_RUNS} files, this is next")
            )
            break
        found.files.append(place)
        name = place.parent.as_posix() if place.parent.parts else folder.resolve().name
        try:
            document = read_json(folder / place)
            if place.name == STATUS:
                if is_over(document) and _has_results(folder, place):
                    continue
                found.runs.append(parse_run(document_of(document), name))
            elif place.name == RESULTS:
                found.runs.append(parse_run(document, name))
            else:
                index = len(found.experiments) + 1
                leaks = parse_leaks(document, name)
                found.experiments.append(parse_experiment(document, name, index))
                found.leaks += leaks
        except UntrustedError as error:
            found.problems.append(Problem(shorten(str(place)), str(error)))
            if len(found.problems) == MAX_PROBLEMS:
                found.problems.append(Problem("the search", "ends: too many files are broken"))
                break
    if not found.runs and not found.experiments:
        raise ReportError(f"{folder}: {_nothing(found.problems)}")
    return found


def _has_results(folder: Path, place: Path) -> bool:
    """Whether results lie in a folder above, as in a server's kit with a folder for its state."""
    return any((folder / above / RESULTS).is_file() for above in place.parents)


def _nothing(problems: Sequence[Problem]) -> str:
    if not problems:
        return (
            f"no {RESULTS} and no experiment.json in it or below; `quancrypt simulate`, "
            "`experiment` and `attack` write them"
        )
    first = problems[0]
    return f"nothing readable in it or below; {first.file}: {first.reason}"


def _files_below(folder: Path, found: Findings) -> Iterator[Path]:
    """Places of the files below ``folder`` in order of name; links to folders are not followed."""
    walk = os.walk(folder, followlinks=False)
    for seen, (root, folders, files) in enumerate(walk, start=1):
        place = Path(root).relative_to(folder)
        if seen > MAX_FOLDERS:
            found.problems.append(
                Problem(shorten(str(place)), f"more than {MAX_FOLDERS:,} folders")
            )
            return
        if len(place.parts) >= MAX_DEPTH:
            if folders:
                found.problems.append(
                    Problem(shorten(str(place)), f"deeper than {MAX_DEPTH} folders")
                )
            folders.clear()
        folders.sort()
        wanted = (EXPERIMENT, RESULTS if RESULTS in files else STATUS)
        yield from (place / name for name in wanted if name in files)


def read_json(path: Path) -> Any:
    """The document of a regular file of at most :data:`MAX_BYTES`, without NaN and infinities.

    Raises
    ------
    UntrustedError
        If it cannot be read or is no such document.
    """
    try:
        # Non-blocking: opening a pipe that somebody put in place of the file must not hang.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UntrustedError("not a regular file")
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise UntrustedError(f"cannot be read: {error.strerror or error}") from error
    if len(data) > MAX_BYTES:
        raise UntrustedError(f"larger than {MAX_BYTES >> 20} MiB")
    try:
        return json.loads(data, parse_constant=_no_constant)
    except RecursionError:
        raise UntrustedError("not a results file: nested too deeply") from None
    except UnicodeDecodeError as error:
        raise UntrustedError(f"not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise UntrustedError(f"not JSON: {error.msg} ({where})") from error
    except ValueError as error:
        raise UntrustedError(f"not JSON: {error}") from error


def _no_constant(name: str) -> Never:
    raise ValueError(f"{name} is not a JSON number")
