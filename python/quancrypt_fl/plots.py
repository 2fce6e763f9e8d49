"""The picture of a run: how good it is per round, and what a client has uploaded by then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

__all__ = ["plot_run"]

_INK, _GREY, _BLUE, _ORANGE = "#1f2933", "#8793a1", "#1f6fb4", "#d9661f"
_UNITS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("bytes", 1.0))
_MOST_DOTS = 40


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
    if document.get("metric") == "perplexity":
        _perplexity(left, document)
    else:
        _accuracy(left, document)
    _uploads(right, document)
    figure.savefig(path, format="png")


def _accuracy(axes: Axes, document: Mapping[str, Any]) -> None:
    """Test accuracy, with the result's as a figure; validation accuracy where it is known."""
    records = document["rounds"]
    rounds = [record["round"] for record in records]
    accuracy = [record["test_accuracy"] for record in records]
    validation = [record.get("validation_accuracy") for record in records]
    shown = list(accuracy)
    if None not in validation:
        axes.plot(rounds, validation, color=_GREY, linewidth=1.2, label="validation set")
        shown += validation
    axes.plot(rounds, accuracy, color=_BLUE, label="test set", **_marker(rounds))
    final = document["totals"].get("final_round", rounds[-1])
    at = rounds.index(final)
    if final != rounds[-1]:
        axes.axvline(final, color=_BLUE, linestyle=":", linewidth=1, label=f"back to round {final}")
        axes.plot([final], [accuracy[at]], color=_BLUE, marker="o", markersize=5)
    axes.annotate(
        f"{accuracy[at]:.2%}",
        (final, accuracy[at]),
        xytext=(0, 8),
        textcoords="offset points",
        ha="right" if 2 * at >= len(rounds) - 1 > 0 else "center" if at == 0 else "left",
        color=_BLUE,
        weight="bold",
    )
    if len(axes.get_lines()) > 1:
        axes.legend(frameon=False, loc="lower right", fontsize=9)
    title = "Accuracy on the test set" if None in validation else "Accuracy"
    axes.set_title(title, loc="left", fontsize=10, color=_INK)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    axes.set_ylim(top=min(1.0, max(shown) + 0.25 * (max(shown) - min(shown)) + 0.005))
    _tidy(axes, rounds)


def _perplexity(axes: Axes, document: Mapping[str, Any]) -> None:
    """Perplexity on held-out text, with the result's as a figure: lower is better."""
    records = document["rounds"]
    rounds = [record["round"] for record in records]
    values = [record["value"] for record in records]
    final = document["totals"].get("final_round", rounds[-1])
    at = rounds.index(final)
    axes.plot(rounds, values, color=_BLUE, **_marker(rounds))
    axes.annotate(
        f"{values[at]:.2f}",
        (final, values[at]),
        xytext=(0, 8),
        textcoords="offset points",
        ha="center" if at == 0 else "right",
        color=_BLUE,
        weight="bold",
    )
    axes.set_title("Perplexity on the test text", loc="left", fontsize=10, color=_INK)
    axes.set_ylim(top=max(values) + 0.15 * (max(values) - min(values)) + 0.01)
    _tidy(axes, rounds)


def _uploads(axes: Axes, document: Mapping[str, Any]) -> None:
    rounds = np.array([record["round"] for record in document["rounds"]])
    uploaded = np.cumsum([record["bytes"]["upload"] for record in document["rounds"]])
    reference = document["totals"]["float32_update_bytes"] * np.arange(1, len(rounds) + 1)
    unit, size = next(
        (name, size) for name, size in _UNITS if max(uploaded[-1], reference[-1]) >= size
    )
    sent = "as sent, encrypted" if document["receipt"]["protected"] else "as sent, in the clear"
    plain: dict[str, Any] = {"color": _GREY, "linestyle": "--", "label": "float32, every value"}
    if len(rounds) == 1:  # a line of one point has no length
        axes.axhline(reference[0] / size, **plain)
    else:
        axes.plot(rounds, reference / size, **plain)
    axes.plot(
        rounds,
        uploaded / size,
        color=_ORANGE,
        label=f"{sent}: {uploaded[-1] / reference[-1]:.2f} x float32",
        **_marker(rounds),
    )
    axes.set_title(f"Uploaded by one client so far ({unit})", loc="left", fontsize=10, color=_INK)
    # Room for the legend, where no line rises from below it.
    head = 1.35 if len(rounds) == 1 else 1.05
    axes.set_ylim(0, head * max(uploaded[-1], reference[-1]) / size)
    axes.legend(frameon=False, loc="upper left", fontsize=9)
    _tidy(axes, rounds)


def _marker(rounds: Sized) -> dict[str, Any]:
    """Dots, as long as they are apart; hundreds of them would be a thick line."""
    if len(rounds) > _MOST_DOTS:
        return {"linewidth": 1.5}
    return {"marker": "o", "markersize": 3.5}


def _tidy(axes: Axes, rounds: Sequence[int] | NDArray[np.int64]) -> None:
    axes.set_xlabel("round", color=_INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(rounds) == 1:
        axes.set_xlim(rounds[0] - 1, rounds[0] + 1)
        axes.set_xticks([int(rounds[0])])
    axes.grid(axis="y", color="#e4e8ec")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(colors=_INK, labelsize=9)
