"""The leakage tables: rows are views, columns attacks, with the bytes and accuracy beside them.

There is one for each data set and model, so that no row mixes figures of two. They are made of the
figures of all ``experiment.json`` of ``quancrypt attack`` in a folder, which are as little trusted
as the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from quancrypt_fl.report.compare import ABSENT
from quancrypt_fl.report.experiment import Experiment
from quancrypt_fl.report.figures import percent, ratio
from quancrypt_fl.report.grids import NAME, NUMBER, Grid, cells
from quancrypt_fl.report.values import (
    entries,
    number,
    optional_count,
    optional_number,
    section,
    shorten,
    text,
)

__all__ = ["Leak", "leakage_section", "parse_leaks"]

_MOST_ROWS = 500
_MOST_ATTACKS = 24  # columns of a table
_MOST_SUBJECTS = 40  # tables
_TRAININGS = {
    "layers": ("all-layers", "50 %, clipped, 8 bits"),
    "noise": ("noise", "of a training"),
}
"""Rows of a table to which updates of such trainings belong."""

View = tuple[str, str]
"""Kind and setting of a view."""

Subject = tuple[str, str, str]
"""Data set, model, and the run's folder if one of them is not stated."""


@dataclass(frozen=True, slots=True)
class Leak:
    """One figure: what an attack got from a view.

    Attributes
    ----------
    run
        The folder of its file.
    dataset, model
        What was attacked; empty where the file does not say.
    view
        Kind and setting: a row of a table.
    attack
        A column of a table.
    figure
        For people, as the next two.
    upload
        Bytes of an upload beside float32, or None where nothing is uploaded.
    accuracy
        Test accuracy of the model that was trained so, or None.
    """

    run: str
    dataset: str
    model: str
    view: View
    attack: str
    figure: str
    upload: str | None
    accuracy: str | None

    @property
    def subject(self) -> Subject:
        """The table that it belongs to."""
        return self.dataset, self.model, "" if self.dataset and self.model else self.run


def parse_leaks(document: Any, run: str) -> list[Leak]:
    """The figures of a document of ``experiment.json``; empty for other experiments.

    Parameters
    ----------
    document
        What the file holds.
    run
        Its folder's place below the folder of the report.

    Raises
    ------
    UntrustedError
        At the first value that is missing or not what it should be.
    """
    summary = section(document, "summary")
    name = text(document, "name")
    if summary.get("kind") != "leakage" or not summary.get("rows"):
        return []
    read = {"inversion": _inverted, "membership": _inferred}.get(name)
    if read is None:
        return []
    rows = entries(summary, "rows", "summary.", largest=_MOST_ROWS)
    return [read(row, f"summary.rows[{i}].", shorten(run)) for i, row in enumerate(rows)]


def _inverted(row: Any, place: str, run: str) -> Leak:
    """Inversion. Kinds of views are as the file has them."""
    view = text(row, "view", place)
    return Leak(
        run,
        text(row, "dataset", place),
        text(row, "model", place),
        (view, text(row, "setting", place, default="")),
        f"{text(row, 'attack', place)}: PSNR, dB",
        f"{number(row, 'psnr', place):.1f}",
        None if view == "random" else _upload(row, place),
        None,
    )


def _inferred(row: Any, place: str, run: str) -> Leak:
    """Membership. Of an update it belongs to the row of the same view of an inversion."""
    view, training = text(row, "view", place), text(row, "training", place)
    kind, setting = _TRAININGS.get(training, ("plaintext", ""))
    clients = optional_count(row, "clients", place, low=1)
    if view in ("final", "rounds"):
        kind, setting = f"model, {view}", f"{kind} {setting}".strip()
    elif view == "aggregate":
        layers = f"{kind} {setting}" if setting else ""
        kind, setting = "aggregate", ", ".join(filter(None, (f"{clients or '?'} clients", layers)))
    elif view == "ciphertext":
        kind, setting = "ciphertext", "8 bits"
    elif view != "single":  # of a later version
        kind, setting = view, f"{kind} {setting}" if setting else ""
    return Leak(
        run,
        text(row, "dataset", place, default=""),
        text(row, "model", place, default=""),
        (kind, setting),
        f"membership, {text(row, 'attack', place)}: AUC",
        f"{number(row, 'auc', place, low=0, high=1):.2f}",
        None if view in ("final", "rounds") else _upload(row, place),
        percent(number(row, "test_accuracy", place, low=0, high=1), 1),
    )


def _upload(row: Any, place: str) -> str | None:
    """None where nothing is sent."""
    sent = optional_number(row, "upload_bytes", place, low=0)
    return ratio(sent / number(row, "float32_bytes", place, low=1)) if sent else None


def leakage_section(leaks: Sequence[Leak]) -> Experiment:
    """The section of the page: a table for each data set and model."""
    subjects: dict[Subject, list[Leak]] = {}
    for leak in leaks:
        subjects.setdefault(leak.subject, []).append(leak)
    shown = list(subjects.items())[:_MOST_SUBJECTS]
    return Experiment(
        "leakage",
        "What each view gives away",
        "An attack's figure for each view of an update or a model: PSNR of reconstructed images, "
        "AUC of membership (0.5 is guessing).",
        tuple(
            _grid(f"leakage-table-{i}", subject, found)
            for i, (subject, found) in enumerate(shown, start=1)
        ),
        tuple(_notes([found for _, found in shown], len(subjects))),
    )


def _notes(shown: Sequence[Sequence[Leak]], subjects: int) -> Iterator[str]:
    yield (
        "Attacks and settings: docs/leakage.md. Accuracy and bytes are those of the table's own "
        "data set and model; figures of different tables are not to be compared."
    )
    if any(_apart(found) for found in shown):
        yield (
            "Where several runs have a figure for the same view and attack, or other accuracy or "
            "bytes, rows are kept apart, and end with the run's folder."
        )
    if any(not (leak.dataset and leak.model) for found in shown for leak in found):
        yield "A file that does not say its data set and model has a table of its own."
    if any(len(_attacks(found)) > _MOST_ATTACKS for found in shown):
        yield f"A table has {_MOST_ATTACKS} attacks at most; further ones are left out."
    if subjects > len(shown):
        yield f"{len(shown)} of {subjects:,} data sets and models are shown."


def _grid(name: str, subject: Subject, leaks: Sequence[Leak]) -> Grid:
    attacks, apart = _attacks(leaks)[:_MOST_ATTACKS], _apart(leaks)
    rows: dict[View, dict[str, list[Leak]]] = {}
    for leak in leaks:
        run = leak.run if leak.view in apart else ""
        rows.setdefault(leak.view, {}).setdefault(run, []).append(leak)
    columns = (
        ("view", NAME),
        *((attack, NUMBER) for attack in attacks),
        ("test accuracy", NUMBER),
        ("upload, of float32", NUMBER),
    )
    lines = [
        cells(
            ", ".join(filter(None, (*view, run))),
            *(_all(leak.figure for leak in found if leak.attack == attack) for attack in attacks),
            _all(leak.accuracy for leak in found),
            _all(leak.upload for leak in found),
        )
        for view, runs in rows.items()
        for run, found in runs.items()
    ]
    dataset, model, place = subject
    stated = f"{dataset or 'data set not stated'}, {model or 'model not stated'}"
    return Grid(name, f"{stated} ({place})" if place else stated, columns, tuple(lines))


def _attacks(leaks: Sequence[Leak]) -> list[str]:
    return list(dict.fromkeys(leak.attack for leak in leaks))


def _all(texts: Iterable[str | None]) -> str:
    """Every value that occurs, not only one of them."""
    return " / ".join(dict.fromkeys(filter(None, texts))) or ABSENT


def _apart(leaks: Sequence[Leak]) -> set[View]:
    """Views of which runs have a figure for the same attack, or other accuracy or bytes."""
    attacked: dict[tuple[View, str], str] = {}
    costs: dict[tuple[View, str], str] = {}
    found = set()
    for leak in leaks:
        if attacked.setdefault((leak.view, leak.attack), leak.run) != leak.run:
            found.add(leak.view)
        for what, value in (("accuracy", leak.accuracy), ("upload", leak.upload)):
            if value is not None and costs.setdefault((leak.view, what), value) != value:
                found.add(leak.view)
    return found
