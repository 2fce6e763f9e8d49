"""The figure of a run: time and bytes per value, ours beside the rivals', on log scales."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from quancrypt_fl.bench.tables import machine_line, nanoseconds

__all__ = ["draw_chart"]

_INK, _GREY, _RULE = "#1f2933", "#66727f", "#e4e8ec"
_BAR = 0.74  # of the room of a bar
_GAP = 0.9  # between groups, in bars
_HEAD = 4.5  # room to the right of the longest bar for its label: a factor


@dataclass(frozen=True, slots=True)
class _Series:
    key: str
    label: str
    colour: str


_SERIES = (
    _Series("packed", "QuanCrypt", "#d9661f"),
    _Series("seal", "SEAL, packed our way", "#1f6fb4"),
    _Series("tenseal", "TenSEAL, the paper's parameters", "#6f8fae"),
    _Series("paillier_packed", "Paillier 2048, modulus filled", "#9aa5b1"),
    _Series("paillier", "Paillier 2048, one value each", "#c3cad2"),
)
_OPERATIONS = (
    ("encrypt", "encrypt\nand serialize"),
    ("parse_add", "parse\nand add"),
    ("decrypt", "decrypt\na sum"),
)


def draw_chart(document: Mapping[str, Any], path: Path) -> None:
    """Draw a document of :func:`~quancrypt_fl.bench.run.run_benchmarks` into a file.

    Parameters
    ----------
    document
        What to draw.
    path
        The file; its suffix is the format: ``.png``, ``.pdf`` or ``.svg``.
    """
    figure = Figure(figsize=(11.5, 5.4), dpi=150)
    left, right = figure.subplots(1, 2, width_ratios=(1.75, 1))
    figure.subplots_adjust(left=0.085, right=0.985, top=0.80, bottom=0.115, wspace=0.10)
    times = [(label, _times(document, name)) for name, label in _OPERATIONS]
    _bars(left, times)
    _title(left, "Time per value, nanoseconds")
    sizes = {row["subject"]: row["bytes_per_value"] for row in document["bytes"]}
    _bars(right, [("", {s.key: sizes[s.key] for s in _SERIES if s.key in sizes})])
    _title(right, "Bytes per value uploaded")
    shown = {key for _, group in times for key in group} | set(sizes)
    figure.legend(
        handles=[Patch(color=s.colour, label=s.label) for s in _SERIES if s.key in shown],
        loc="upper left",
        bbox_to_anchor=(0.075, 0.985),
        ncols=5,
        frameon=False,
        fontsize=9,
        labelcolor=_INK,
        handlelength=1.1,
        handleheight=1.1,
        columnspacing=1.6,
    )
    bits = document["parameters"]["packed"]["bits"]
    weight = document["parameters"]["packed"]["max_weight"]
    figure.text(
        0.085,
        0.025,
        f"{bits}-bit values, sums of weight up to {weight}, logarithmic scales; in brackets: times "
        f"ours, measured in turn.  {machine_line(document['machine'])}",
        fontsize=7.5,
        color=_GREY,
    )
    figure.savefig(path)


def _times(document: Mapping[str, Any], name: str) -> dict[str, float]:
    """Median ns per value by subject; each rival's first comparison counts."""
    row = next(row for row in document["operations"] if row["name"] == name)
    group = {"packed": row["ours"]["median"]}
    for rival in row["rivals"]:
        # As measured against ours in the same pairs: ours times the ratio.
        group.setdefault(rival["rival"], row["ours"]["median"] * rival["ratio"]["median"])
    return group


def _bars(axes: Axes, groups: list[tuple[str, dict[str, float]]]) -> None:
    largest = max(max(group.values()) for _, group in groups)
    smallest = min(min(group.values()) for _, group in groups)
    floor = 10.0 ** _floor_exponent(smallest)
    place, centres = 0.0, []
    for _, group in groups:
        members = [series for series in _SERIES if series.key in group]
        for number, series in enumerate(members):
            value = group[series.key]
            axes.barh(place + number, value - floor, left=floor, height=_BAR, color=series.colour)
            ours = series.key == "packed"
            ratio = "" if ours else f"  ({_ratio(value / group['packed'])})"
            axes.annotate(
                f"{nanoseconds(value) if value < 1e6 else _millions(value)}{ratio}",
                (value, place + number),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=9 if ours else 8.5,
                weight="bold" if ours else "normal",
                color=series.colour if ours else _INK,
            )
        centres.append(place + (len(members) - 1) / 2)
        place += len(members) + _GAP
    axes.set_xscale("log")
    axes.set_xlim(floor, largest * _head(floor, largest))
    axes.set_ylim(place - _GAP, -1.0 + (1 - _BAR) / 2)
    axes.set_yticks(centres, [label for label, _ in groups], color=_INK, fontsize=9.5)
    powers = [10.0**e for e in range(_floor_exponent(smallest), 12) if 10.0**e <= largest * 1.01]
    axes.xaxis.set_major_locator(FixedLocator(powers))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _tick(x)))
    axes.grid(axis="x", color=_RULE)
    axes.set_axisbelow(True)
    axes.tick_params(axis="x", colors=_GREY, labelsize=8, length=0)
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.spines["left"].set_color(_GREY)


def _head(floor: float, largest: float) -> float:
    """Room for the longest bar's label: the same share of the axis whatever its range."""
    return float(max(_HEAD, (largest / floor) ** 0.36))


def _floor_exponent(smallest: float) -> int:
    exponent = -3
    while 10.0 ** (exponent + 1) <= smallest / 2:  # no bar without a length
        exponent += 1
    return exponent


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=11, color=_INK, weight="bold", pad=10)


def _ratio(value: float) -> str:
    return f"{_millions(value)} ×" if value >= 1e6 else f"{nanoseconds(value)} ×"


def _millions(value: float) -> str:
    return f"{value / 1e6:.1f} million"


def _tick(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:g} M"
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"
