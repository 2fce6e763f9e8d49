"""A live line while a run goes on: clients trained, accuracy, bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from quancrypt_fl.federation_config import FederationConfig
from quancrypt_fl.observer import Observer

__all__ = ["progress_observer"]


class _ProgressObserver(Observer):
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None
        self._uploaded = 0
        self._rounds = 0

    def started(self, config: FederationConfig, finished_rounds: int) -> None:
        self._rounds = config.rounds
        self._task = self._progress.add_task(
            f"round {min(finished_rounds + 1, config.rounds)}/{config.rounds}",
            total=config.rounds * config.participants,
            completed=finished_rounds * config.participants,
            news="first round",
        )

    def client_trained(self) -> None:
        if self._task is not None:
            self._progress.advance(self._task)

    def round_finished(self, record: Mapping[str, Any]) -> None:
        self._uploaded += record["bytes"]["upload"]
        if self._task is not None:
            self._progress.update(
                self._task,
                description=f"round {min(record['round'] + 1, self._rounds)}/{self._rounds}",
                news=f"{_judged(record)}, "
                f"{decimal(self._uploaded)} uploaded per client{_spent(record)}",
            )


def _judged(record: Mapping[str, Any]) -> str:
    """What a run's records report by ``value`` is named only in its results."""
    if "value" in record:
        return f"value {record['value']:.4g}"
    return f"accuracy {record['test_accuracy']:.2%}"


def _spent(record: Mapping[str, Any]) -> str:
    privacy = record.get("privacy")
    return f", ε {privacy['epsilon']:.2f}" if privacy else ""


@contextmanager
def progress_observer(*, silent: bool) -> Iterator[Observer]:
    """An observer that draws a progress bar on stderr, or nothing if silent or not a terminal."""
    console = Console(stderr=True)
    if silent or not console.is_terminal:
        yield Observer()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[news]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield _ProgressObserver(progress)
