"""Which charts the page has, and what they show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import mean, median

from quancrypt_fl.report.charts import BarChart, LineChart, Series, bar_chart, line_chart
from quancrypt_fl.report.compare import Group
from quancrypt_fl.report.figures import percent, round_size, seconds, size
from quancrypt_fl.report.runs import PHASES, Round, Run
from quancrypt_fl.report.scales import Scale, linear, logarithmic, whole

__all__ = ["PROTECTION", "accuracy_charts", "time_charts", "traffic_charts"]

PROTECTION = ("protect", "aggregate", "open", "unprotect")
_MOST_REFERENCES = 2  # float32 lines: one for each size of model, if there are few
_LOG_FROM = 12.0  # the largest over the smallest: from there on small ones would be a dot at 0


Points = list[tuple[float, float]]


def accuracy_charts(groups: Sequence[Group]) -> list[LineChart]:
    """Test accuracy by round and by bytes uploaded; validation accuracy where runs have it."""
    by_round = _numbers(groups, lambda item: item.test_accuracy)
    if not by_round:
        return _without_accuracy(groups)
    y = _shares(by_round)
    ends = [(mean_, group.label) for group in groups if (mean_ := group.mean_accuracy) is not None]
    best, label = max(ends, key=lambda end: end[0])
    said = f"Highest at the end: {percent(best)} with {label}."
    charts = [_over_rounds("accuracy-rounds", "Test accuracy by round", by_round, y, said)]
    totals = [run.uploaded[-1] for group in groups for run in group.runs]
    first = [run.uploaded[0] for group in groups for run in group.runs]
    if min(first) > 0:
        x = _sizes([*first, *totals], totals)
        charts.append(
            line_chart(
                "accuracy-bytes",
                "Test accuracy by bytes uploaded",
                _series(groups, _accuracy_by_bytes),
                x,
                y,
                x_label=f"uploaded by one client{', logarithmic' if x.log else ''}",
                x_text=_size_text(x),
                y_text=_share_text(y),
                description="The further left a line rises, the fewer bytes it takes.",
            )
        )
    validation = _numbers(groups, lambda item: item.validation_accuracy)
    if validation:
        said = "What early stopping looks at."
        title = "Validation accuracy by round"
        charts.append(_over_rounds("validation", title, validation, _shares(validation), said))
    return charts


def _without_accuracy(groups: Sequence[Group]) -> list[LineChart]:
    """The training loss, where nobody measured an accuracy."""
    losses = _numbers(groups, lambda item: item.train_loss)
    if not losses:
        return []
    values = [y for item in losses for line in item.lines for _, y in line]
    return [
        line_chart(
            "loss-rounds",
            "Training loss by round",
            losses,
            _rounds(losses),
            linear(values),
            x_label="round",
            x_text=_whole,
            y_text=lambda value: f"{value:.4g}",
            description=f"Between {min(values):.4g} and {max(values):.4g}.",
        )
    ]


def traffic_charts(groups: Sequence[Group]) -> list[LineChart]:
    """Bytes of a client per round, up and down; nothing where no run counts bytes."""
    charts = []
    ways: tuple[tuple[str, str, Callable[[Round], int]], ...] = (
        ("upload", "Uploaded by one client per round", lambda item: item.upload),
        ("download", "Downloaded by one client per round", lambda item: item.download),
    )
    for name, title, take in ways:
        lines = _numbers(groups, take)
        values = [value for item in lines for line in item.lines for _, value in line]
        if min(values) <= 0:
            continue
        plain = {run.float32_bytes for group in groups for run in group.runs if run.float32_bytes}
        x = _rounds(lines)
        references = [
            Series(f"float32: {size(count)}", None, (((x.low, count), (x.high, count)),))
            for count in sorted(plain)[:_MOST_REFERENCES]
        ]
        typical = [median(value for _, value in line) for item in lines for line in item.lines]
        y = _sizes([*values, *plain], typical)
        charts.append(
            line_chart(
                name,
                f"{title}{', logarithmic' if y.log else ''}",
                [*references, *lines],
                x,
                y,
                x_label="round",
                x_text=_whole,
                y_text=_size_text(y),
                description=f"Between {size(min(values))} and {size(max(values))}.",
            )
        )
    return charts


def time_charts(groups: Sequence[Group]) -> list[BarChart]:
    """Seconds of a mean round by phase: all of them, then those of protection alone."""
    means = []
    for group in groups:
        rounds = [item for run in group.runs for item in run.rounds]
        spent = {p: mean(item.seconds.get(p, 0.0) for item in rounds) for p in PHASES}
        means.append((group.label, spent))
    if not any(sum(spent.values()) for _, spent in means):
        return []
    joint = any(spent["open"] for _, spent in means)
    phases, protecting = (
        tuple(phase for phase in names if joint or phase != "open")
        for names in (PHASES, PROTECTION)
    )
    whole_rounds = [(label, spent, seconds(sum(spent.values()))) for label, spent in means]
    protection = [
        (label, {p: spent[p] for p in PROTECTION}, _protection_note(spent))
        for label, spent in means
        if sum(spent.values())
    ]
    slowest = max(whole_rounds, key=lambda row: sum(row[1].values()))
    dearest = max(protection, key=lambda row: sum(row[1].values()))
    return [
        bar_chart(
            "time-all",
            "Seconds of a round",
            whole_rounds,
            phases,
            text=seconds,
            description=f"Longest: {slowest[2]} with {slowest[0]}.",
        ),
        bar_chart(
            "time-protection",
            "Of these, for protection",
            protection,
            protecting,
            text=seconds,
            description=f"Most: {dearest[2]} with {dearest[0]}.",
        ),
    ]


def _protection_note(spent: dict[str, float]) -> str:
    cost = sum(spent[phase] for phase in PROTECTION)
    return f"{seconds(cost)}, {percent(cost / sum(spent.values()), 1)} of a round"


def _series(groups: Sequence[Group], points: Callable[[Run], Points]) -> list[Series]:
    """A series for each group, without lines that have no points."""
    found = []
    for style, group in enumerate(groups):
        lines = tuple(tuple(line) for run in group.runs if (line := points(run)))
        if lines:
            found.append(Series(group.label, style, lines))
    return found


def _numbers(groups: Sequence[Group], take: Callable[[Round], float | None]) -> list[Series]:
    """A figure by round, where the round has it."""

    def points(run: Run) -> Points:
        return [(item.number, y) for item in run.rounds if (y := take(item)) is not None]

    return _series(groups, points)


def _accuracy_by_bytes(run: Run) -> Points:
    return [
        (float(sent), item.test_accuracy)
        for sent, item in zip(run.uploaded, run.rounds, strict=True)
        if item.test_accuracy is not None
    ]


def _over_rounds(
    name: str, title: str, series: Sequence[Series], y: Scale, description: str
) -> LineChart:
    return line_chart(
        name,
        title,
        series,
        _rounds(series),
        y,
        x_label="round",
        x_text=_whole,
        y_text=_share_text(y),
        description=description,
    )


def _rounds(series: Sequence[Series]) -> Scale:
    numbers = [int(x) for item in series for line in item.lines for x, _ in line]
    return whole(min(numbers), max(numbers))


def _shares(series: Sequence[Series]) -> Scale:
    """A scale of accuracies: within 0 and 1, whatever round numbers lie beyond."""
    found = linear([y for item in series for line in item.lines for _, y in line])
    ticks = tuple(t for t in found.ticks if 0 <= t <= 1)
    return Scale(max(0.0, found.low), min(1.0, found.high), ticks)


def _sizes(values: Sequence[float], compared: Sequence[float]) -> Scale:
    """A scale of bytes from 0 on, or a logarithmic one if the compared ones lie far apart."""
    if max(compared) > _LOG_FROM * min(compared):
        return logarithmic(values)
    return linear(values, zero=True)


def _share_text(scale: Scale) -> Callable[[float], str]:
    """Shares as per cent: on the axis with as few digits as tell its marks apart."""
    steps = [b - a for a, b in pairwise(scale.ticks)] or [0.1]
    digits = 0 if min(steps) >= 0.00999 else 1 if min(steps) >= 0.00099 else 2
    ticks = set(scale.ticks)
    return lambda value: percent(value, digits if value in ticks else 2)


def _size_text(scale: Scale) -> Callable[[float], str]:
    """Bytes: on the axis without zeros after the point."""
    ticks = set(scale.ticks)
    return lambda value: round_size(value) if value in ticks else size(value)


def _whole(value: float) -> str:
    return f"{value:,.0f}"
