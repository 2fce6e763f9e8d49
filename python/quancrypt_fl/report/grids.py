"""The tables of the page as rows of cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from quancrypt_fl.report.compare import ABSENT, Comparison, Group
from quancrypt_fl.report.deployed import ClientShare
from quancrypt_fl.report.figures import percent, ratio, seconds, size
from quancrypt_fl.report.runs import PHASES, Run

__all__ = [
    "NAME",
    "NUMBER",
    "WORDS",
    "Cell",
    "Grid",
    "cells",
    "clients_grid",
    "comparison_grids",
    "overview_grid",
    "receipts_grid",
    "rounds_grid",
    "seeds_grid",
]

_MOST_COLUMNS = 8  # of a table of what differs: more is a second table, so that it can be printed
_MOST_ROUNDS = 60  # rows of one run's table
_MOST_CLIENTS = 500  # rows of one run's clients
STEPS = ("train", "protect", "unprotect")  # of what a client measures itself
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
        name: max(
            (r.final_accuracy for r in runs if r.dataset == name and r.final_accuracy is not None),
            default=None,
        )
        for name in {run.dataset for run in runs}
    }
    rows = []
    for run, link in zip(runs, links, strict=True):
        spent = run.seconds
        final = run.final_accuracy
        top = len(runs) > 1 and final is not None and final == best[run.dataset]
        uploaded = run.uploaded[-1]
        rows.append(
            (
                Cell(run.name, link),
                *cells(run.method, run.dataset, run.model, f"{run.clients:,}"),
                Cell(f"{len(run.rounds):,}"),
                Cell(percent(run.final_accuracy), look="best" if top else ""),
                Cell(f"{percent(run.best[0])} ({run.best[1]})" if run.best else ABSENT),
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
        finals = group.accuracies
        rows.append(
            cells(
                group.label,
                f"{len(group.runs)}",
                percent(group.mean_accuracy),
                ABSENT if deviation is None else f"{100 * deviation:.2f}",
                percent(min(finals, default=None)),
                percent(max(finals, default=None)),
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
    failed = any(item.failed for item in run.rounds)
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
                *([f"failed: {item.failed}" if item.failed else "ok"] if failed else []),
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
    columns = [(label, NUMBER) for label in ("round", *labels)]
    if failed:
        columns.append(("result", WORDS))
    return Grid(name, caption, tuple(columns), tuple(rows))


def clients_grid(run: Run, name: str) -> Grid | None:
    """Who took part in a deployed run and how often; None where the rounds do not say."""
    shares: dict[str, list[ClientShare]] = {}
    for item in run.rounds:
        for share in item.clients:
            shares.setdefault(share.node, []).append(share)
    if not shares:
        return None
    steps = [p for p in STEPS if any(p in s.seconds for found in shares.values() for s in found)]
    ordered = sorted(shares.values(), key=lambda found: (found[-1].name, found[-1].node))
    rows = []
    for found in ordered[:_MOST_CLIENTS]:
        means = (
            mean(values) if (values := [s.seconds[p] for s in found if p in s.seconds]) else None
            for p in steps
        )
        rows.append(
            cells(
                found[-1].name,
                f"{len(found):,}",
                f"{sum(s.weight > 0 for s in found):,}",
                _number(found[-1].samples),
                f"{sum(s.weight for s in found):,}",
                *(seconds(value) for value in means),
            )
        )
    labels = ("rounds", "counted", "samples", "weight in all", *(f"{p}, mean" for p in steps))
    caption = f"{len(ordered):,} client{'' if len(ordered) == 1 else 's'}"
    if len(ordered) > _MOST_CLIENTS:
        caption = f"{_MOST_CLIENTS} of {caption}"
    columns = (("client", NAME), *((label, NUMBER) for label in labels))
    return Grid(name, caption, columns, tuple(rows))


def _number(value: int | None) -> str:
    return ABSENT if value is None else f"{value:,}"


def _loss(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.4g}"
