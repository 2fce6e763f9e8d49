"""The picture of a run: accuracy per round, and what a client has uploaded by then."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

__all__ = ["plot_run"]

_INK, _GREY, _BLUE, _ORANGE = "#1f2933", "#8793a1", "#1f6fb4", "#d9661f"
_UNITS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("bytes", 1.0))


def plot_run(document: Mapping[str, Any], path: Path) -> None:
    """Draw a run's document into a PNG file (1500 x 600 pixels)."""
    figure = Figure(figsize=(10, 4), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    figure.suptitle(
        f"{document['method']} · {document['dataset']} · {document['model']} · "
        f"{document['clients']} clients · seed {document['seed']}",
        color=_INK,
        fontsize=11,
    )
    _accuracy(left, document)
    _uploads(right, document)
    figure.savefig(path, format="png")


def _accuracy(axes: Axes, document: Mapping[str, Any]) -> None:
    rounds = [record["round"] for record in document["rounds"]]
    accuracy = [record["test_accuracy"] for record in document["rounds"]]
    axes.plot(rounds, accuracy, color=_BLUE, marker="o", markersize=3.5)
    axes.annotate(
        f"{accuracy[-1]:.2%}",
        (rounds[-1], accuracy[-1]),
        xytext=(0, 8),
        textcoords="offset points",
        ha="right",
        color=_BLUE,
        weight="bold",
    )
    axes.set_title("Accuracy on the test set", loc="left", fontsize=10, color=_INK)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    axes.set_ylim(top=min(1.0, max(accuracy) + 0.25 * (max(accuracy) - min(accuracy)) + 0.005))
    _tidy(axes)


def _uploads(axes: Axes, document: Mapping[str, Any]) -> None:
    rounds = np.array([record["round"] for record in document["rounds"]])
    uploaded = np.cumsum([record["bytes"]["upload"] for record in document["rounds"]])
    reference = document["totals"]["float32_update_bytes"] * np.arange(1, len(rounds) + 1)
    unit, size = next(
        (name, size) for name, size in _UNITS if max(uploaded[-1], reference[-1]) >= size
    )
    sent = "as sent, encrypted" if document["receipt"]["protected"] else "as sent, in the clear"
    axes.plot(rounds, reference / size, color=_GREY, linestyle="--", label="float32, every value")
    axes.plot(
        rounds,
        uploaded / size,
        color=_ORANGE,
        marker="o",
        markersize=3.5,
        label=f"{sent}: {uploaded[-1] / reference[-1]:.2f} x float32",
    )
    axes.set_title(f"Uploaded by one client so far ({unit})", loc="left", fontsize=10, color=_INK)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, loc="upper left", fontsize=9)
    _tidy(axes)


def _tidy(axes: Axes) -> None:
    axes.set_xlabel("round", color=_INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color="#e4e8ec")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(colors=_INK, labelsize=9)
