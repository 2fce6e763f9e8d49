"""The tables of the page as rows of cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quancrypt_fl.report.compare import ABSENT, Comparison, Group
from quancrypt_fl.report.figures import percent, ratio, seconds, size
from quancrypt_fl.report.runs import PHASES, Run

__all__ = [
    "NAME",
    "NUMBER",
    "WORDS",
    "Cell",
    "Grid",
    "cells",
    "comparison_grids",
    "overview_grid",
    "receipts_grid",
    "rounds_grid",
    "seeds_grid",
]

_MOST_COLUMNS = 8  # of a table of what differs: more is a second table, so that it can be printed
_MOST_ROUNDS = 60  # rows of one run's table
NUMBER, WORDS, NAME = "number", "words", "name"


@dataclass(frozen=True, slots=True)
class Cell:
    """Text, the id that it leads to, and a class for its colour."""

    text: str
    link: str = ""
    look: str = ""


@dataclass(frozen=True, slots=True)
class Grid:
    """A table.

    Attributes
    ----------
    name
        Id of its caption.
    columns
        Heading and kind: ``number``, ``words`` or ``name``.
    heads
        Headings over several columns, from the second column on: text and number of columns.
    """

    name: str
    caption: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[Cell, ...], ...]
    heads: tuple[tuple[str, int], ...] = ()


def cells(*texts: str) -> tuple[Cell, ...]:
    """A row of plain cells."""
    return tuple(Cell(text) for text in texts)


def overview_grid(runs: Sequence[Run], links: Sequence[str]) -> Grid:
    """One row for each run, which leads to its id in ``links``.

    The best final accuracy of each data set is marked.
    """
    phases = [phase for phase in PHASES if any(phase in run.seconds for run in runs)]
    best = {
        name: max(run.final_accuracy for run in runs if run.dataset == name)
        for name in {run.dataset for run in runs}
    }
    rows = []
    for run, link in zip(runs, links, strict=True):
        spent = run.seconds
        top = len(runs) > 1 and run.final_accuracy == best[run.dataset]
        uploaded = run.uploaded[-1]
        rows.append(
            (
                Cell(run.name, link),
                *cells(run.method, run.dataset, run.model, f"{run.clients:,}"),
                Cell(f"{len(run.rounds):,}"),
                Cell(percent(run.final_accuracy), look="best" if top else ""),
                Cell(f"{percent(run.best.test_accuracy)} ({run.best.number})"),
                *cells(size(uploaded), ratio(run.upload_ratio)),
                *cells(size(run.downloaded), ratio(run.ratio(run.downloaded))),
                *(Cell(seconds(spent.get(phase))) for phase in phases),
            )
        )
    labels = ("method", "data set", "model")
    figures = ("clients", "rounds", "final", "best (round)")
    traffic = ("up", "of float32", "down", "of float32")
    heads = [("Run", 5), ("Test accuracy", 2), ("Bytes per client, all rounds", 4)]
    if phases:
        heads.append(("Time, all rounds", len(phases)))
    return Grid(
        "overview-table",
        "Every run" if len(runs) > 1 else "The run in figures",
        (
            ("run", NAME),
            *((label, NAME) for label in labels),
            *((label, NUMBER) for label in (*figures, *traffic, *phases)),
        ),
        tuple(rows),
        tuple(heads),
    )


def seeds_grid(groups: Sequence[Group]) -> Grid | None:
    """Means over seeds, or None if no configuration ran with several."""
    if all(len(group.runs) == 1 for group in groups):
        return None
    rows = []
    for group in groups:
        deviation = group.deviation
        finals = [run.final_accuracy for run in group.runs]
        rows.append(
            cells(
                group.label,
                f"{len(group.runs)}",
                percent(group.mean_accuracy),
                ABSENT if deviation is None else f"{100 * deviation:.2f}",
                percent(min(finals)),
                percent(max(finals)),
            )
        )
    labels = ("seeds", "mean", "deviation, points", "lowest", "highest")
    return Grid(
        "seeds-table",
        "Final test accuracy over seeds",
        (("configuration", NAME), *((label, NUMBER) for label in labels)),
        tuple(rows),
    )


def receipts_grid(runs: Sequence[Run], links: Sequence[str]) -> Grid:
    """What each run says about its protection, in a line."""
    rows = []
    for run, link in zip(runs, links, strict=True):
        facts = dict(run.receipt.facts)
        shown = (facts.get(name, ABSENT) for name in ("Scheme", "Security", "Key fingerprints"))
        rows.append(
            (
                Cell(run.name, link),
                Cell(run.receipt.short, look=run.receipt.level),
                *cells(*shown),
            )
        )
    labels = ("updates", "scheme", "security", "key fingerprints")
    return Grid(
        "receipts-table",
        "Receipts",
        (("run", NAME), *((label, WORDS) for label in labels)),
        tuple(rows),
    )


def comparison_grids(
    name: str,
    caption: str,
    runs: Sequence[Run],
    values: Sequence[Mapping[str, str]],
    comparison: Comparison,
) -> list[Grid]:
    """Tables of the differing fields, eight columns each; a row for each run."""
    fields = comparison.differing
    parts = [fields[i : i + _MOST_COLUMNS] for i in range(0, len(fields), _MOST_COLUMNS)]
    return [
        Grid(
            f"{name}-{number}",
            caption if len(parts) == 1 else f"{caption} ({number} of {len(parts)})",
            (("run", NAME), *((field, WORDS) for field in part)),
            tuple(
                cells(run.name, *(found.get(field, ABSENT) for field in part))
                for run, found in zip(runs, values, strict=True)
            ),
        )
        for number, part in enumerate(parts, start=1)
    ]


def rounds_grid(run: Run, name: str) -> Grid:
    """Figures of a run's rounds; of a long run an even choice, the first and the last included."""
    last = len(run.rounds) - 1
    caption = f"{'All ' if last else ''}{last + 1:,} round{'s' if last else ''}"
    chosen = run.rounds
    if last >= _MOST_ROUNDS:
        chosen = tuple(
            run.rounds[round(i * last / (_MOST_ROUNDS - 1))] for i in range(_MOST_ROUNDS)
        )
        caption = f"{_MOST_ROUNDS} of {last + 1:,} rounds"
    phases = [phase for phase in PHASES if phase in run.seconds]
    validated = any(item.validation_accuracy is not None for item in run.rounds)
    dropped = any(item.lost for item in run.rounds)
    rows = []
    for item in chosen:
        rows.append(
            cells(
                f"{item.number}",
                percent(item.test_accuracy),
                *([percent(item.validation_accuracy)] if validated else []),
                _loss(item.test_loss),
                _loss(item.train_loss),
                percent(item.pruning_rate, 1),
                _number(item.participants),
                *([_number(item.lost)] if dropped else []),
                size(item.upload),
                size(item.download),
                *(seconds(item.seconds.get(phase)) for phase in phases),
            )
        )
    labels = (
        "test accuracy",
        *(["validation accuracy"] if validated else []),
        "test loss",
        "train loss",
        "pruned",
        "participants",
        *(["dropped out"] if dropped else []),
        "up",
        "down",
        *phases,
    )
    return Grid(name, caption, tuple((label, NUMBER) for label in ("round", *labels)), tuple(rows))


def _number(value: int | None) -> str:
    return ABSENT if value is None else f"{value:,}"


def _loss(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.4g}"
