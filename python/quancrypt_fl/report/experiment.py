"""The summary of ``quancrypt experiment``: its table beside the published figures, and its checks.

``experiment.json`` is as little trusted as the results beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quancrypt_fl.report.compare import ABSENT
from quancrypt_fl.report.figures import ratio
from quancrypt_fl.report.grids import NAME, NUMBER, WORDS, Cell, Grid, cells
from quancrypt_fl.report.values import (
    UntrustedError,
    count,
    entries,
    number,
    optional_number,
    require_schema,
    section,
    shorten,
    text,
)

__all__ = ["Experiment", "parse_experiment"]

SCHEMA = 1
_MOST_ROWS = 500
_MOST_COLUMNS = 30
_MOST_NOTES = 30
_LONG = 600  # characters of a sentence
_VERDICTS = {True: ("yes", "good"), False: ("no", "plain"), None: ("not measured", "warning")}


@dataclass(frozen=True, slots=True)
class Experiment:
    """A section of the page: tables and remarks; ``name`` is the id of the section."""

    name: str
    title: str
    question: str
    tables: tuple[Grid, ...]
    notes: tuple[str, ...]


def parse_experiment(document: Any, place: str, index: int) -> Experiment:
    """Check a document of ``experiment.json``.

    Parameters
    ----------
    document
        What the file holds.
    place
        Its folder's place below the folder of the report.
    index
        Number of the experiment on the page, for ids.

    Raises
    ------
    UntrustedError
        At the first value that is missing or not what it should be.
    """
    require_schema(document, SCHEMA)
    name = f"experiment-{index}"
    summary = section(document, "summary")
    tables = list(_tables(summary, name))
    checks = _list(summary, "checks", "summary.")
    if checks:
        tables.append(_checks(checks, f"{name}-checks"))
    notes = [shorten(note, _LONG) for note in _list(summary, "notes", "summary.")]
    usual = f"quancrypt experiment {text(document, 'name')}"
    command = f"{text(document, 'command', default=usual)} --scale {text(document, 'scale')}"
    return Experiment(
        name,
        text(document, "title"),
        text(document, "question", default=" ").strip(),
        tuple(tables),
        (*_state(document), *notes[:_MOST_NOTES], f"{place}: {command}"),
    )


def _tables(summary: Mapping[str, Any], name: str) -> Sequence[Grid]:
    if summary.get("kind") == "accuracy":
        rows = _list(summary, "rows", "summary.")
        return [_accuracy(summary, rows, f"{name}-accuracy")] if rows else []
    return [
        _measured(table, f"summary.tables[{i}].", f"{name}-table-{i + 1}")
        for i, table in enumerate(_list(summary, "tables", "summary."))
    ]


def _accuracy(summary: Mapping[str, Any], rows: Sequence[Any], name: str) -> Grid:
    found = []
    for i, row in enumerate(rows):
        place = f"summary.rows[{i}]."
        sent = optional_number(row, "upload_bytes_per_round", place, low=0)
        plain = optional_number(row, "float32_update_bytes", place, low=1)
        published = optional_number(row, "published_best_accuracy", place)
        found.append(
            cells(
                text(row, "group", place, default=ABSENT),
                text(row, "label", place, default=ABSENT),
                f"{count(row, 'rounds', place):,}",
                f"{len(_list(row, 'seeds', place))}",
                _spread(row, "best_accuracy", place),
                ABSENT if published is None else f"{published:.2f}",
                _spread(row, "final_accuracy", place),
                _spread(row, "best_difference", place, sign="+"),
                ratio(None if sent is None or plain is None else sent / plain),
            )
        )
    labels = (
        "rounds",
        "seeds",
        "best accuracy, %",
        "published, %",
        "final accuracy, %",
        "best, against Vanilla-FL, points",
        "upload, of float32",
    )
    return Grid(
        name,
        "Accuracy beside the published figures; ± is a 95 % confidence interval over seeds",
        (
            (text(summary, "group_heading", "summary.", default="group"), NAME),
            (text(summary, "label_heading", "summary.", default="label"), NAME),
            *((label, NUMBER) for label in labels),
        ),
        tuple(found),
    )


def _measured(table: Any, place: str, name: str) -> Grid:
    """A table that the experiment has laid out itself: ``title``, ``head``, ``rows``, ``left``."""
    head = [shorten(label) for label in entries(table, "head", place, largest=_MOST_COLUMNS)]
    left = count(table, "left", place)
    rows = []
    for i, row in enumerate(_list(table, "rows", place)):
        if not isinstance(row, list) or len(row) != len(head):
            raise UntrustedError(f"{place}rows[{i}] is not a list of {len(head)} items")
        rows.append(cells(*(shorten(item) for item in row)))
    columns = tuple((label, WORDS if i < left else NUMBER) for i, label in enumerate(head))
    return Grid(name, text(table, "title", place), columns, tuple(rows))


def _checks(checks: Sequence[Any], name: str) -> Grid:
    rows = []
    for i, check in enumerate(checks):
        place = f"summary.checks[{i}]."
        wording = shorten(check.get("text"), _LONG) if isinstance(check, dict) else ""
        passed = check.get("passed") if isinstance(check, dict) else None
        if passed is not None and not isinstance(passed, bool):
            raise UntrustedError(f"{place}passed is not true, false or null")
        verdict, look = _VERDICTS[passed]
        basis, required, measured = (
            text(check, key, place, default=ABSENT) for key in ("basis", "required", "measured")
        )
        rows.append((*cells(wording, basis, required, measured), Cell(verdict, look=look)))
    labels = ("what must hold", "measured on", "required", "measured", "holds")
    return Grid(name, "What must hold", tuple((label, WORDS) for label in labels), tuple(rows))


def _state(document: Any) -> list[str]:
    """What is missing from the experiment."""
    states: dict[str, list[str]] = {"failed": [], "left": []}
    listed = _list(document, "cells", "")
    for i, cell in enumerate(listed):
        state = text(cell, "state", f"cells[{i}].")
        if state in states:
            states[state].append(text(cell, "id", f"cells[{i}]."))
    said = []
    if states["failed"]:
        said.append(f"Failed: {shorten(', '.join(states['failed']), _LONG)}.")
    if states["left"]:
        said.append(f"Incomplete: {len(states['left'])} of {len(listed)} cells have not run.")
    return said


def _spread(row: Any, key: str, place: str, sign: str = "") -> str:
    """``98.41 ± 0.12``; without an interval for a single value."""
    interval = section(row, key, place, required=False)
    if not interval:
        return ABSENT
    mean = number(interval, "mean", f"{place}{key}.")
    high = optional_number(interval, "high", f"{place}{key}.")
    return f"{mean:{sign}.2f}" + ("" if high is None else f" ± {high - mean:.2f}")


def _list(document: Any, key: str, place: str) -> Sequence[Any]:
    """A list that may be empty or absent."""
    if isinstance(document, dict) and not document.get(key):
        return []
    return entries(document, key, place, largest=_MOST_ROWS)
