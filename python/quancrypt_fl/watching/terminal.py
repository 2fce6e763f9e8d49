"""The state of a run in a terminal: a view that is drawn anew, or a line per round elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from quancrypt_fl.report.figures import NOTHING, percent, seconds, size
from quancrypt_fl.watching.source import StatusSource
from quancrypt_fl.watching.status import Event, Record, Status

__all__ = ["STALE", "follow", "follow_lines", "span", "sparkline", "view"]

STALE = 20.0  # seconds without a heartbeat (which comes every 5)
_REFRESH = 0.5  # seconds
_BLOCKS = "▁▂▃▄▅▆▇█"
_SPARKS = 60  # characters
_STYLES = {"asked": "cyan", "answered": "green", "refused": "bold red", "lost": "bold red"}
_SIGNS = {"asked": "…", "answered": "✓", "refused": "✗", "lost": "✗", "idle": " "}
_ORDER = ("refused", "lost", "asked", "answered", "idle")
_HEADINGS = {
    "finished": "bold green", "failed": "bold red", "stopped": "bold yellow",
    "waiting": "bold yellow",
}  # fmt: skip
_TROUBLE = ("refused", "lost", "failed", "note")
_OWN_APPS = " (of an app of your own: one that hands its strategy an observer)"
_LEAST_ROWS = 5  # of clients, however small the terminal
_WIDE, _NARROW = 110, 70  # columns


def follow(source: StatusSource, console: Console) -> Status | None:
    """Draw until the run is over; its last state."""
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            status = source.read()
            shown = view(
                status,
                time.time(),
                source.problem,
                rows=max(_LEAST_ROWS, console.height - 22),
                width=console.width,
            )
            live.update(shown, refresh=True)
            if status is not None and status.over:
                return status
            time.sleep(_REFRESH)


def follow_lines(
    source: StatusSource,
    say: Callable[[str], None],
    pause: Callable[[float], None] = time.sleep,
) -> Status:
    """Say a line per finished round, per trouble and per change of state, until the run is over."""
    training: str | None = None
    heading = problem = ""
    round_, stale = 0, False
    events: Sequence[Event] = ()
    if source.read() is None:
        say("waiting for a run to start" + _OWN_APPS)
    while True:
        status = source.read()
        if source.problem and source.problem != problem:
            say(source.problem)
        problem = source.problem or ""
        if status is None:
            pause(_REFRESH)
            continue
        if status.training != training:
            training, round_, events = status.training, 0, ()
        for event in _after(events, status.events):
            if event.kind in _TROUBLE:
                say(_told(event))
        events = status.events
        for record in status.records:
            if record.round > round_:
                say(_line(record, status.rounds))
                round_ = record.round
        if status.state != "training" and status.heading() != heading:
            say(status.heading() + (f": {status.error}" if status.error else ""))
        heading = status.heading()
        if status.over:
            return status
        was, stale = stale, time.time() - status.updated > STALE
        if stale and not was:
            say(f"no news for {STALE:.0f} s: the server may have stopped")
        pause(_REFRESH)


def _after(before: Sequence[Event], now: Sequence[Event]) -> Sequence[Event]:
    """Events that were added to a list whose oldest ones are dropped.

    Told by their places, not by their times: a clock that is set back, or two events at one tick
    of it, hide nothing.
    """
    for first in range(len(before)):
        kept = len(before) - first
        if before[first:] == now[:kept]:
            return now[kept:]
    return now


def _line(record: Record, rounds: int) -> str:
    if record.failed:
        return f"round {record.round} of {rounds} failed: {record.failed}"
    parts = [
        f"accuracy {percent(record.test_accuracy)}" if record.test_accuracy is not None else "",
        f"training loss {record.train_loss:.4g}" if record.train_loss is not None else "",
        seconds(record.wall_seconds) if record.wall_seconds is not None else "",
        f"{record.participants} counted" if record.participants is not None else "",
        f"{record.lost} lost" if record.lost else "",
        f"up {size(record.upload)}" if record.upload else "",
        f"down {size(record.download)}" if record.download else "",
    ]
    return f"round {record.round} of {rounds}: " + ", ".join(part for part in parts if part)


def view(
    status: Status | None,
    now: float,
    problem: str | None = None,
    *,
    rows: int = 1_000,
    width: int = 80,
) -> RenderableType:
    """Everything at once: state, round, figures, clients (at most ``rows``), latest events."""
    if status is None:
        return Text(problem or f"Waiting for a run to start{_OWN_APPS} ...", style="yellow")
    silent = now - status.updated
    stale = not status.over and silent > STALE
    at = status.updated if stale else status.ended or now
    parts: list[RenderableType] = [_head(status, at)]
    if status.error or problem:
        parts.append(Text(status.error or problem or "", style="red"))
    if stale:
        said = f"No news for {span(silent)}: the server may have stopped."
        parts.append(Text(said, style="bold red"))
    parts += [_bar(status), _figures(status)]
    if status.clients:
        parts += [Text(), _clients(status, at, rows, width)]
    if status.events:
        parts += [Text(), _events(status)]
    return Group(*parts)


def _head(status: Status, at: float) -> RenderableType:
    line = Text(status.heading(), style=_HEADINGS.get(status.state, "bold"))
    if status.started is not None:
        line.append(f"   {span(at - status.started)}", style="dim")
    if (phase := status.phase) is not None:
        said = f"   {phase.name} {phase.answered} of {phase.asked}, {span(at - phase.since)}"
        line.append(said, style="cyan")
    return line


def _bar(status: Status) -> RenderableType:
    done = float(status.finished)
    if (phase := status.phase) is not None and phase.asked:
        done += 0.9 * min(1.0, (phase.answered + phase.failed) / phase.asked)
    table = Table.grid()
    table.add_row(ProgressBar(total=max(1, status.rounds), completed=done, width=60))
    return table


def _figures(status: Status) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    found = status.accuracies
    if found:
        shown = Text(f"{percent(found[-1])}  ")
        shown.append(sparkline(found), style="green")
        shown.append(f"  best {percent(max(found))}", style="dim")
        table.add_row("Test accuracy", shown)
    last = status.records[-1] if status.records else None
    if last is not None and last.train_loss is not None:
        table.add_row("Training loss", f"{last.train_loss:.4g}")
    totals = status.totals
    if totals.upload or totals.download:
        table.add_row(
            "Bytes per client",
            f"up {size(totals.upload)}, down {size(totals.download)}, all rounds; "
            f"the server received {size(totals.received)}",
        )
    if last is not None and last.seconds:
        table.add_row(f"Seconds, round {last.round}", _spent(last.seconds))
    if status.finished > 1 and totals.seconds:
        table.add_row("Seconds, all rounds", _spent(totals.seconds))
    counts = [("refused", totals.refused), ("lost", totals.lost), ("ignored", totals.ignored)]
    trouble = [f"{number} {name}" for name, number in counts if number]
    if totals.failed_rounds:
        trouble.append(
            f"{totals.failed_rounds} round{'s' if totals.failed_rounds > 1 else ''} failed"
        )
    table.add_row(
        "Replies", ", ".join([f"{totals.answered:,} accepted", *trouble]),
        style="red" if trouble else "",
    )  # fmt: skip
    return table


def _spent(parts: Mapping[str, float]) -> str:
    return ", ".join(f"{phase} {seconds(value)}" for phase, value in parts.items())


def _clients(status: Status, at: float, rows: int, width: int) -> RenderableType:
    """As much of each client as there is room for."""
    wide, narrow = width >= _WIDE, width < _NARROW
    about = not narrow and (wide or any(client.reason for client in status.clients))
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("client", max_width=24, overflow="ellipsis", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for heading in ("since", "lost") if narrow else ("since", "up", "all up", "answered", "lost"):
        table.add_column(heading, justify="right", no_wrap=True)
    if about:
        table.add_column("seconds, or why not" if wide else "why not", overflow="fold")
    ordered = sorted(status.clients, key=lambda c: (_ORDER.index(c.state), c.title))
    for client in ordered[:rows]:
        cells: list[Text | str] = [
            Text(client.title),
            Text(f"{_SIGNS[client.state]} {client.state}", style=_STYLES.get(client.state, "dim")),
            NOTHING if client.since is None else span(at - client.since),
            *([] if narrow else [size(client.bytes), size(client.bytes_all)]),
            *([] if narrow else [f"{client.answered_all:,}"]),
            f"{client.lost_all + client.refused_all:,}",
        ]
        if about:
            said = client.reason or (_spent(client.seconds) if wide else "")
            cells.append(Text(said, style="red" if client.reason else ""))
        table.add_row(*cells)
    if len(ordered) <= rows:
        return table
    return Group(table, Text(f"and {len(ordered) - rows:,} more", style="dim"))


def _events(status: Status, most: int = 5) -> RenderableType:
    lines = []
    shown = [event for event in status.events if event.kind != "answered"][-most:]
    for event in shown:
        line = Text(time.strftime("%H:%M:%S  ", time.localtime(event.at)), style="dim")
        style = "red" if event.kind in ("refused", "lost", "failed") else ""
        line.append(_told(event), style=style)
        lines.append(line)
    return Group(*lines)


def _told(event: Event) -> str:
    name = f"{event.name}: " if event.name else ""
    return name + event.text + (f" ({event.phase})" if event.phase else "")


def sparkline(values: Sequence[float], width: int = _SPARKS) -> str:
    """Values as blocks between their own lowest and highest; the latest ``width`` of them.

    >>> sparkline([0.1, 0.5, 0.8, 0.9])
    '▁▅▇█'
    """
    shown = values[-width:]
    low, high = min(shown), max(shown)
    if high == low:
        return _BLOCKS[3] * len(shown)
    top = len(_BLOCKS) - 1
    return "".join(_BLOCKS[round((value - low) / (high - low) * top)] for value in shown)


def span(duration: float) -> str:
    """A length of time on the wall.

    >>> span(7.2), span(75), span(7_500)
    ('7 s', '1:15 min', '2:05 h')
    """
    whole = max(0, int(duration))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02} h"
