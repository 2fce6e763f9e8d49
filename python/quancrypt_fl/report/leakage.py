"""The leakage table: rows are views, columns attacks, with the bytes and accuracy beside them.

It is made of the figures of all ``experiment.json`` of ``quancrypt attack`` in a folder, which are
as little trusted as the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from quancrypt_fl.report.compare import ABSENT
from quancrypt_fl.report.experiment import Experiment
from quancrypt_fl.report.figures import percent, ratio
from quancrypt_fl.report.grids import NAME, NUMBER, Cell, Grid, cells
from quancrypt_fl.report.values import entries, number, optional_count, section, text

__all__ = ["Leak", "leakage_section", "parse_leaks"]

_MOST_ROWS = 500
_MOST_ATTACKS = 24  # columns of the table
_TRAININGS = {
    "layers": ("all-layers", "50 %, clipped, 8 bits"),
    "noise": ("noise", "of a training"),
}
"""Rows of the table to which updates of such trainings belong."""


@dataclass(frozen=True, slots=True)
class Leak:
    """One figure: what an attack got from a view.

    Attributes
    ----------
    view
        Kind and setting: a row of the table.
    attack
        A column of the table.
    figure
        For people.
    upload
        Bytes of an upload beside float32, or None where nothing is uploaded.
    accuracy
        Test accuracy of the model that was trained so, or None.
    """

    view: tuple[str, str]
    attack: str
    figure: str
    upload: float | None
    accuracy: float | None


def parse_leaks(document: Any) -> list[Leak]:
    """The figures of a document of ``experiment.json``; empty for other experiments.

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
    return [read(row, f"summary.rows[{i}].") for i, row in enumerate(rows)]


def _inverted(row: Any, place: str) -> Leak:
    model, attack = text(row, "model", place), text(row, "attack", place)
    return Leak(
        (text(row, "view", place), text(row, "setting", place, default="")),
        f"{attack}, {text(row, 'dataset', place)}, {model}: PSNR, dB",
        f"{number(row, 'psnr', place):.1f}",
        _upload(row, place),
        None,
    )


def _inferred(row: Any, place: str) -> Leak:
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
    return Leak(
        (kind, setting),
        f"membership, {text(row, 'attack', place)}: AUC",
        f"{number(row, 'auc', place, low=0, high=1):.2f}",
        None if view in ("final", "rounds") else _upload(row, place),
        number(row, "test_accuracy", place, low=0, high=1),
    )


def _upload(row: Any, place: str) -> float | None:
    sent = number(row, "upload_bytes", place, low=0)
    return sent / number(row, "float32_bytes", place, low=1)


def leakage_section(leaks: Sequence[Leak]) -> Experiment:
    """The section of the page. A view and attack that occur twice show the last figure."""
    attacks = list(dict.fromkeys(leak.attack for leak in leaks))[:_MOST_ATTACKS]
    rows: list[tuple[Cell, ...]] = []
    for view in dict.fromkeys(leak.view for leak in leaks):
        mine = [leak for leak in leaks if leak.view == view]
        figures = {leak.attack: leak.figure for leak in mine}
        upload = next((leak.upload for leak in mine if leak.upload is not None), None)
        accuracy = next((leak.accuracy for leak in mine if leak.accuracy is not None), None)
        rows.append(
            cells(
                f"{view[0]}, {view[1]}" if view[1] else view[0],
                *(figures.get(attack, ABSENT) for attack in attacks),
                percent(accuracy, 1),
                ratio(None if view[0] == "random" else upload),
            )
        )
    columns = (
        ("view", NAME),
        *((attack, NUMBER) for attack in attacks),
        ("test accuracy", NUMBER),
        ("upload, of float32", NUMBER),
    )
    return Experiment(
        "leakage",
        "What each view gives away",
        "An attack's figure for each view of an update or a model: PSNR of reconstructed images, "
        "AUC of membership (0.5 is guessing).",
        (Grid("leakage-table", "Views and attacks", columns, tuple(rows)),),
        (
            "Attacks and settings: docs/leakage.md. Figures of different networks and data sets "
            "are not to be compared with each other, but along a column.",
        ),
    )
