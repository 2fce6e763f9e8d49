"""Charts as numbers for the template: what stands where, in per cent across and pixels down.

The template draws them as inline SVG whose width is free: positions across are per cent, so that
text keeps its size on any screen, and colours are classes, so that they follow light and dark.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from quancrypt_fl.report.scales import Scale

__all__ = ["Bar", "BarChart", "Line", "LineChart", "Mark", "Series", "bar_chart", "line_chart"]

HEIGHT = 260  # pixels of the plotting area
COLOURS = 8
DASHES = 4
MOST_SERIES = COLOURS * DASHES
_MOST_POINTS = 400  # of one line: more than there are pixels for
_MOST_MARKS = 600  # points with a tooltip in one chart, evenly chosen: each takes 300 bytes
_VISIBLE_MARKS = 30  # points of a line up to which they are drawn as dots


@dataclass(frozen=True, slots=True)
class Series:
    """Values to draw: one line for each run of a group, all in the colour of the group.

    Attributes
    ----------
    style
        Number of the group; None for a grey reference line.
    """

    label: str
    style: int | None
    lines: tuple[tuple[tuple[float, float], ...], ...]


@dataclass(frozen=True, slots=True)
class Mark:
    """A point with a tooltip, at per cent across and pixels down."""

    x: float
    y: float
    title: str


@dataclass(frozen=True, slots=True)
class Line:
    """One line: ``points`` for a polyline of 1000 x :data:`HEIGHT`; classes for its look."""

    points: str
    look: str
    marks: tuple[Mark, ...]
    dots: bool


@dataclass(frozen=True, slots=True)
class LineChart:
    """Everything that the template needs to draw lines; positions as in :class:`Mark`."""

    name: str
    title: str
    description: str
    x_label: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    lines: tuple[Line, ...]
    legend: tuple[tuple[str, str], ...]
    left_out: int
    height: int = HEIGHT


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of parts: ``(phase, start, width, tooltip)``, both in per cent; ``note`` after it."""

    label: str
    parts: tuple[tuple[str, float, float, str], ...]
    note: str


@dataclass(frozen=True, slots=True)
class BarChart:
    """Stacked bars, one below the other."""

    name: str
    title: str
    description: str
    phases: tuple[str, ...]
    bars: tuple[Bar, ...]
    left_out: int


def look(style: int | None) -> str:
    """Classes of a line: a colour and a dash pattern."""
    if style is None:
        return "reference"
    return f"c{style % COLOURS} d{style // COLOURS % DASHES}"


def line_chart(
    name: str,
    title: str,
    series: Sequence[Series],
    x: Scale,
    y: Scale,
    *,
    x_label: str,
    x_text: Callable[[float], str],
    y_text: Callable[[float], str],
    description: str,
) -> LineChart:
    """Lay out lines.

    Parameters
    ----------
    name
        For the ids of the page.
    series
        At most :data:`MOST_SERIES` are drawn; the chart says how many are left out.
    x, y
        Scales that hold all values.
    x_text, y_text
        Values as text, for axes and tooltips.
    description
        The chart in a sentence, for those who cannot see it.
    """
    drawn = series[:MOST_SERIES]
    points = sum(min(len(v), _MOST_POINTS) for item in drawn for v in item.lines)
    stride = -(-points // _MOST_MARKS)
    lines = []
    for item in drawn:
        for values in item.lines:
            kept = _thinned(values)
            places = [
                (round(100 * x.position(a), 3), round(HEIGHT * (1 - y.position(b)), 2))
                for a, b in kept
            ]
            marks = tuple(
                Mark(
                    round(px, 3), round(py, 2), f"{item.label}: {y_text(b)} ({x_label} {x_text(a)})"
                )
                for (px, py), (a, b) in zip(places, kept, strict=True)
            )
            lines.append(
                Line(
                    " ".join(f"{10 * px:.2f},{py:.2f}" for px, py in places),
                    look(item.style),
                    () if item.style is None else marks[::-stride],
                    dots=len(kept) <= _VISIBLE_MARKS,
                )
            )
    return LineChart(
        name,
        title,
        description,
        x_label,
        tuple((round(100 * x.position(t), 3), x_text(t)) for t in x.ticks),
        tuple((round(HEIGHT * (1 - y.position(t)), 2), y_text(t)) for t in y.ticks),
        tuple(lines),
        tuple((item.label, look(item.style)) for item in drawn),
        len(series) - len(drawn),
    )


def _thinned(values: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """At most :data:`_MOST_POINTS` of the points, evenly, the last one among them."""
    if len(values) <= _MOST_POINTS:
        return values
    last = len(values) - 1
    return [values[round(i * last / (_MOST_POINTS - 1))] for i in range(_MOST_POINTS)]


def bar_chart(
    name: str,
    title: str,
    rows: Sequence[tuple[str, dict[str, float], str]],
    phases: Sequence[str],
    *,
    text: Callable[[float], str],
    description: str,
) -> BarChart:
    """Lay out stacked bars: rows of label, value of each phase, and a note."""
    drawn = rows[:MOST_SERIES]
    longest = max((sum(values.values()) for _, values, _ in drawn), default=0.0) or 1.0
    bars = []
    for label, values, note in drawn:
        start = 0.0
        parts = []
        for phase in phases:
            width = 100 * values.get(phase, 0.0) / longest
            if width > 0:
                title_of_part = f"{label}, {phase}: {text(values[phase])}"
                parts.append((phase, round(start, 4), round(width, 4), title_of_part))
            start += width
        bars.append(Bar(label, tuple(parts), note))
    return BarChart(name, title, description, tuple(phases), tuple(bars), len(rows) - len(drawn))
