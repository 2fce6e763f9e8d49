"""The figure of an experiment, from its document: accuracy over rounds, or bars."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

__all__ = ["draw_figure", "drawable"]

_INK, _GREY, _RULE = "#1f2933", "#66727f", "#e4e8ec"
_BATCHCRYPT, _BATCHCRYPT_16 = "BatchCrypt, 8 bits", "BatchCrypt, 16 bits (as published)"
_METHODS = {
    "QuanCrypt-FL": "#d9661f",
    "Vanilla-FL": "#1f2933",
    _BATCHCRYPT: "#1f6fb4",
    _BATCHCRYPT_16: "#009e73",
}
# Okabe and Ito: told apart with every kind of colour blindness.
_OTHERS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_DASHES = {
    "Vanilla-FL": (0, (4, 2)),
    _BATCHCRYPT: (0, (1, 1.2)),
    _BATCHCRYPT_16: (0, (3, 1, 1, 1)),
}
_MOST_COLUMNS = 3
_BAR = 0.72
_BAND = 0.36  # opacity of all bands of a panel together

Row = Mapping[str, Any]


def drawable(document: Mapping[str, Any]) -> bool:
    """Whether there is anything to draw yet."""
    summary = document["summary"]
    return bool(summary["rows"] if summary["kind"] == "accuracy" else summary["figure"])


def draw_figure(document: Mapping[str, Any], path: Path) -> None:
    """Draw the document of ``experiment.json`` into a file.

    Parameters
    ----------
    document
        A :func:`drawable` one.
    path
        The file; its suffix is the format, ``.png`` or ``.svg``.
    """
    summary = document["summary"]
    # The same document makes the same file.
    with mpl.rc_context({"svg.hashsalt": document["name"], "svg.fonttype": "none"}):
        figure = _curves(summary) if summary["kind"] == "accuracy" else _bars(summary)
        figure.suptitle(document["title"], x=0.01, ha="left", fontsize=12, color=_INK)
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, dpi=150, metadata=metadata)


def _curves(summary: Mapping[str, Any]) -> Figure:
    rows: Sequence[Row] = summary["rows"]
    groups = list(dict.fromkeys(row["group"] for row in rows))
    over_axis = summary["axis"] if any(row["x"] is not None for row in rows) else None
    panels = len(groups) + (over_axis is not None)
    columns = min(_MOST_COLUMNS, panels)
    lines = math.ceil(panels / columns)
    figure = Figure(figsize=(max(6.4, 4.1 * columns), 3.3 * lines + 1.1), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel().tolist()
    colours = _colours(rows)
    for place, group in zip(axes, groups, strict=False):
        members = [row for row in rows if row["group"] == group]
        for row in members:
            _curve(place, row, colours[row["label"]], _BAND / max(2, len(members)))
        _title(place, group)
        place.set_xlabel("round", color=_INK, fontsize=9)
        place.xaxis.set_major_locator(MaxNLocator(integer=True))
    if over_axis is not None:
        _over_axis(axes[len(groups)], rows, over_axis)
    for place in axes[panels:]:
        place.remove()
    for place in axes[:panels]:
        _tidy(place)
    handles: dict[str, Any] = {}
    for place in axes[: len(groups)]:
        for handle, label in zip(*place.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower left",
        ncols=min(len(handles), 2 * columns),
        frameon=False,
        fontsize=9,
        labelcolor=_INK,
        title="Test accuracy (%); line: mean over seeds, band: smallest to largest",
        title_fontsize=8.5,
        alignment="left",
    )
    return figure


def _curve(axes: Axes, row: Row, colour: str, alpha: float) -> None:
    curve = row["curve"]
    axes.plot(
        curve["round"],
        curve["mean"],
        color=colour,
        linestyle=_DASHES.get(row["label"], "-"),
        linewidth=1.8,
        marker="o" if len(curve["round"]) == 1 else None,
        markersize=4,
        label=row["label"],
    )
    axes.fill_between(
        curve["round"], curve["low"], curve["high"], color=colour, alpha=alpha, linewidth=0
    )


def _over_axis(axes: Axes, rows: Sequence[Row], name: str) -> None:
    """Best accuracy less that of Vanilla-FL, seed by seed, over the varied field."""
    placed = [row for row in rows if row["x"] is not None and row["best_difference"] is not None]
    groups = list(dict.fromkeys(row["group"] for row in placed))
    for number, group in enumerate(groups):
        members = sorted(
            (row for row in placed if row["group"] == group), key=lambda row: float(row["x"])
        )
        differences = [row["best_difference"] for row in members]
        axes.errorbar(
            [row["x"] for row in members],
            [d["mean"] for d in differences],
            yerr=[0.0 if d["high"] is None else d["high"] - d["mean"] for d in differences],
            color=_OTHERS[number % len(_OTHERS)],
            marker="os^Dvp*"[number % 7],
            markersize=5,
            linewidth=1.5,
            capsize=3,
            label=group,
        )
    axes.axhline(0.0, color=_INK, linestyle=_DASHES["Vanilla-FL"], linewidth=1.2)
    if len(groups) > 1:
        axes.legend(frameon=False, fontsize=8, labelcolor=_INK)
    _title(axes, "Best accuracy less Vanilla-FL's (points, 95 %)")
    axes.set_xlabel(name, color=_INK, fontsize=9)


def _colours(rows: Sequence[Row]) -> dict[str, str]:
    """Methods have a colour of their own, values of a field a scale, anything else its turn."""
    labels = list(dict.fromkeys(row["label"] for row in rows))
    ordered = sorted(
        {row["label"]: float(row["x"]) for row in rows if row["x"] is not None}.items(),
        key=lambda item: item[1],
    )
    scale = mpl.colormaps["viridis"].resampled(256)
    colours = dict(_METHODS)
    for number, (label, _) in enumerate(ordered):
        place = 0.9 * number / max(1, len(ordered) - 1)  # the last tenth is too light for lines
        colours[label] = mpl.colors.to_hex(scale(place))
    rest = [label for label in labels if label not in colours]
    colours.update({label: _OTHERS[n % len(_OTHERS)] for n, label in enumerate(rest)})
    return colours


def _bars(summary: Mapping[str, Any]) -> Figure:
    """Panels of horizontal bars on logarithmic scales: ``figure`` of a measurement's summary."""
    panels = summary["figure"]
    heights = [max(2, len(panel["bars"])) for panel in panels]
    figure = Figure(figsize=(9.6, 0.34 * sum(heights) + 0.75 * len(panels) + 0.6),
                    layout="constrained")  # fmt: skip
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights).ravel()
    for place, panel in zip(axes, panels, strict=True):
        _bar_panel(place, panel)
    return figure


def _bar_panel(axes: Axes, panel: Mapping[str, Any]) -> None:
    bars = panel["bars"]
    values = [bar["value"] for bar in bars]
    floor = 10.0 ** math.floor(math.log10(min(values)) - 0.2)
    for number, bar in enumerate(bars):
        ours = bar["label"].startswith("QuanCrypt-FL")
        colour = _METHODS["QuanCrypt-FL"] if ours else "#8fa3b5"
        axes.barh(number, bar["value"] - floor, left=floor, height=_BAR, color=colour)
        axes.annotate(
            bar["text"],
            (bar["value"], number),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            weight="bold" if ours else "normal",
            color=_INK,
        )
    axes.set_xscale("log")
    axes.set_xlim(floor, max(values) * (max(values) / floor) ** 0.3)
    axes.set_yticks(range(len(bars)), [bar["label"] for bar in bars], fontsize=9, color=_INK)
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.minorticks_off()
    _title(axes, panel["title"])
    _tidy(axes, axis="x")
    axes.tick_params(axis="y", length=0)


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=10, color=_INK)


def _tidy(axes: Axes, axis: str = "y") -> None:
    axes.grid(axis="x" if axis == "x" else "y", color=_RULE)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(colors=_GREY, labelsize=8.5)
    axes.tick_params(axis="y", labelcolor=_INK)
