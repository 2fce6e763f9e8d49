"""Progress of an experiment: a live line on a terminal, one line per cell elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from quancrypt_fl.cli.text import printable
from quancrypt_fl.experiments.cells import Cell
from quancrypt_fl.experiments.estimate import cell_seconds, data_sizes
from quancrypt_fl.experiments.experiment import Experiment, Plan
from quancrypt_fl.experiments.watcher import Watcher
from quancrypt_fl.observer import Observer

__all__ = ["experiment_watcher", "span"]


def span(seconds: float) -> str:
    """A length of time to a person's precision."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


class _Remaining:
    """Estimates what is left: expected times, corrected by how long they took so far.

    Measurements have no expected time (None): what they take counts nowhere.
    """

    def __init__(self, expected: Mapping[str, float | None]) -> None:
        self._expected = {id_: time_ for id_, time_ in expected.items() if time_ is not None}
        self._measurements = {id_ for id_, time_ in expected.items() if time_ is None}
        self._done = self._took = 0.0
        self._since = time.monotonic()  # of the running cell

    def finished(self, id_: str) -> None:
        now = time.monotonic()
        if id_ in self._expected:
            self._done += self._expected.pop(id_)
            self._took += now - self._since
        self._measurements.discard(id_)
        self._since = now

    def said(self, id_: str | None = None, share: float = 0.0) -> str:
        """:meth:`seconds` for people; empty while there are only measurements."""
        if not self._expected and self._measurements:
            return ""
        aside = ", measurements aside" if self._measurements else ""
        return f"about {span(self.seconds(id_, share))} left{aside}"

    def seconds(self, id_: str | None = None, share: float = 0.0) -> float:
        """Left, with ``share`` of cell ``id_`` done."""
        running = self._expected.get(id_, 0.0) * share if id_ else 0.0
        done = self._done + running
        took = self._took + (time.monotonic() - self._since if running > 0 else 0.0)
        factor = took / done if done > 0 else 1.0
        return (sum(self._expected.values()) - running) * factor


class _LineWatcher(Watcher):
    """A line when a cell is done or fails."""

    def __init__(self, console: Console, experiment: Experiment, plan: Plan) -> None:
        self._console = console
        self._experiment, self._plan = experiment, plan
        self._total = self._finished = 0
        self.remaining = _Remaining({})

    def started(self, cells: Sequence[Cell], left: Sequence[Cell]) -> None:
        sizes = data_sizes(self._experiment.datasets(self._plan.scale), self._plan.data_dir)
        self.remaining = _Remaining({cell.id: cell_seconds(cell, sizes) for cell in left})
        self._total, self._finished = len(cells), len(cells) - len(left)
        self._say(_joined(f"{self._finished} of {self._total} cells finished", self.remaining))

    def cell_finished(self, cell: Cell, document: Mapping[str, Any]) -> None:
        self._finished += 1
        self.remaining.finished(cell.id)
        news = f"[{self._finished}/{self._total}] {cell.id}{_result(document)}"
        self._say(_joined(news, self.remaining, "; "))

    def cell_failed(self, cell: Cell, error: str) -> None:
        self.remaining.finished(cell.id)
        self._say(f"{cell.id} failed: {error}")

    def _say(self, line: str) -> None:
        self._console.print(
            printable(" ".join(line.split())), highlight=False, markup=False, soft_wrap=True
        )


class _RoundObserver(Observer):
    """Moves the bar by rounds."""

    def __init__(self, watcher: _LiveWatcher, cell: Cell) -> None:
        self._watcher, self._cell = watcher, cell

    def round_finished(self, record: Mapping[str, Any]) -> None:
        self._watcher.show(
            self._cell,
            record["round"],
            f"round {record['round']}/{self._cell.rounds}, {record['test_accuracy']:.2%}",
        )


class _LiveWatcher(_LineWatcher):
    """Beside the lines, a bar with the cells done and the time left."""

    def __init__(
        self, console: Console, experiment: Experiment, plan: Plan, progress: Progress
    ) -> None:
        super().__init__(console, experiment, plan)
        self._progress = progress
        self._task: TaskID | None = None

    def started(self, cells: Sequence[Cell], left: Sequence[Cell]) -> None:
        super().started(cells, left)
        self._task = self._progress.add_task("", total=self._total, completed=self._finished)

    def cell_started(self, cell: Cell) -> Observer:
        self.show(cell, 0, "")
        return _RoundObserver(self, cell)

    def show(self, cell: Cell, rounds: int, news: str) -> None:
        """A running cell after so many of its rounds."""
        if self._task is None:
            return
        share = rounds / cell.rounds
        left = self.remaining.said(cell.id, share)
        self._progress.update(
            self._task,
            completed=self._finished + share,
            description=f"{self._finished}/{self._total} cells{', ' if left else ''}{left}: "
            f"{cell.id} {news}",
        )


def _joined(news: str, remaining: _Remaining, mark: str = ", ") -> str:
    said = remaining.said()
    return f"{news}{mark}{said}" if said else news


def _result(document: Mapping[str, Any]) -> str:
    totals = document.get("totals")
    if totals is None:
        return ": measured"
    return f": best accuracy {totals['best_test_accuracy']:.2%}"


@contextmanager
def experiment_watcher(experiment: Experiment, plan: Plan, *, silent: bool) -> Iterator[Watcher]:
    """A watcher that reports on stderr, or nothing if silent."""
    console = Console(stderr=True)
    if silent:
        yield Watcher()
    elif not console.is_terminal:
        yield _LineWatcher(console, experiment, plan)
    else:
        columns = (BarColumn(bar_width=24), TextColumn("{task.description}"))
        with Progress(*columns, console=console, transient=True) as progress:
            yield _LiveWatcher(progress.console, experiment, plan, progress)
