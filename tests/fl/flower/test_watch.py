"""``quancrypt watch``: in a terminal, line by line, as JSON, and the server of the page."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console
from tests.fl.flower.runs import LOST, NODES, TRAINING, ask, begin, middle, put, record, whole_round
from tests.fl.flower.test_watch_server import get
from tests.fl.test_report import EVIL

from quancrypt_fl.cli.errors import CommandError
from quancrypt_fl.cli.watch import watch
from quancrypt_fl.flower import run_status
from quancrypt_fl.flower.run_status import SCHEMA, RunStatus
from quancrypt_fl.flower.status import STATUS, StatusFile
from quancrypt_fl.report.values import UntrustedError
from quancrypt_fl.watching import source as sources
from quancrypt_fl.watching import status as reading
from quancrypt_fl.watching.server import WatchServer
from quancrypt_fl.watching.source import StatusSource, WatchError
from quancrypt_fl.watching.status import parse_status
from quancrypt_fl.watching.terminal import follow, follow_lines, span, sparkline, view

Document = dict[str, Any]
BERLIN, UPPSALA, PORTO = NODES


def command(*arguments: str) -> int:
    app = typer.Typer()
    app.command()(watch)
    status = app(list(arguments), standalone_mode=False)
    return status if isinstance(status, int) else 0


def shown(status: Any, *, width: int = 120, now: float = 1_003.0, **options: Any) -> str:
    console = Console(width=width, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    console.print(view(status, now, width=width, **options))
    console.file.close()
    return console.export_text()


# --- reading ---


def test_reader_and_writer_agree() -> None:
    assert (SCHEMA, STATUS) == (reading.SCHEMA, sources.STATUS)
    status = parse_status(json.loads(json.dumps(middle().document())))
    assert (status.training, status.state, status.round) == (TRAINING, "training", 2)
    assert status.heading() == "Round 2 of 3"
    assert [client.state for client in status.clients] == ["answered", "asked", "lost"]
    assert status.facts == {"method": "quancrypt", "bits": "8", "params": "qcp:1234"}
    assert status.records[0].upload == 1_000
    assert status.totals.received == 4_000


def test_the_newest_status_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_SEARCH_EVERY", 0.0)
    with pytest.raises(WatchError, match="does not exist"):
        StatusSource(tmp_path / "kit")
    source = StatusSource(tmp_path)
    assert source.read() is None
    old = put(tmp_path / "state" / "one", middle().document())
    os.utime(old, (1, 1))
    found = source.read()
    assert found is not None
    assert found.finished == 1
    put(tmp_path / "state" / "two", middle().document() | {"finished": 2})
    found = source.read()
    assert found is not None
    assert found.finished == 2
    put(tmp_path / "a" / "b" / "c" / "d" / "e", middle().document() | {"finished": 0})
    assert source.read() == found  # too deep
    assert StatusSource(old).read() is not None  # the file itself


def test_an_unreadable_status_leaves_the_last_one(tmp_path: Path) -> None:
    path = put(tmp_path, middle().document())
    source = StatusSource(tmp_path)
    good = source.read()
    assert good is not None
    path.write_text("{")
    assert source.read() == good
    assert source.problem
    assert source.problem.startswith("status.json: not JSON")
    put(tmp_path, middle().document())
    assert source.read() == good
    assert source.problem is None


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_no_changed_value_gets_through_or_breaks_the_view(data: st.DataObject) -> None:
    """Any value anywhere replaced by another: refused by name, or shown."""
    document = json.loads(json.dumps(middle().document()))
    place = document
    while True:
        keys = sorted(place) if isinstance(place, dict) else range(len(place))
        key = data.draw(st.sampled_from(list(keys)))
        inner = place[key]
        if isinstance(inner, dict | list) and inner and data.draw(st.booleans()):
            place = inner
            continue
        break
    place[key] = data.draw(
        st.sampled_from([None, True, -1, 1.5, 10**30, "", EVIL, [], {}, [None], {"a": EVIL}])
    )
    try:
        status = parse_status(document)
    except UntrustedError:
        return
    text = shown(status)
    assert "\x00" not in text
    assert "\u202e" not in text


# --- the terminal ---


def test_the_view_shows_what_the_status_says() -> None:
    text = shown(parse_status(middle().document()))
    for part in (
        "Round 2 of 3", "train+upload 1 of 3, 3 s", "50.00 %", "up 1.00 kB, down 2.00 kB",
        "Berlin", "✓ answered", "Uppsala", "… asked", "Porto", "✗ lost", "did not answer in 5 s",
        "train 1.50 s, protect 0.250 s", "4 accepted, 1 lost",
        "Porto: lost: did not answer in 5 s (train+upload)",
    ):  # fmt: skip
        assert part in text, part
    lines = text.splitlines()
    assert next(i for i, x in enumerate(lines) if x.startswith("Porto")) < next(
        i for i, x in enumerate(lines) if x.startswith("Berlin")
    )  # trouble first


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_view_fits(width: int) -> None:
    text = shown(parse_status(middle().document()), width=width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "Berlin" in text


def test_the_view_bounds_its_rows() -> None:
    run = RunStatus(clock=lambda: 1_000.0)
    begin(run)
    run.round_started(round=1, asked={i: f"client-{i:04}" for i in range(1_000)})
    text = shown(parse_status(run.document()), rows=7)
    assert text.count("client-") == 7
    assert "and 993 more" in text


def test_a_silent_server_is_named() -> None:
    status = parse_status(middle().document())
    assert "No news" not in shown(status, now=1_010.0)
    assert "No news for 1:40 min: the server may have stopped." in shown(status, now=1_100.0)


def test_before_and_after_a_run() -> None:
    assert "Waiting for a run to start" in shown(None)
    run = RunStatus(clock=lambda: 1_000.0)
    begin(run)
    run.waiting(connected=1, needed=3)
    assert "Waiting for clients: 1 of 3 connected" in shown(parse_status(run.document()))
    run.run_finished(None, "the disk is full")
    text = shown(parse_status(run.document()), now=9_999.0)
    assert "Failed after 0 of 3 rounds" in text
    assert "the disk is full" in text
    assert "No news" not in text


def test_sparklines_and_spans() -> None:
    assert sparkline([0.5]) == "▄"
    assert sparkline([0.0, 1.0] * 100, width=6) == "▁█▁█▁█"
    assert [span(s) for s in (-1, 59.9, 60, 3_599, 3_600, 360_000)] == [
        "0 s", "59 s", "1:00 min", "59:59 min", "1:00 h", "100:00 h",
    ]  # fmt: skip


def steps(folder: Path) -> Iterator[None]:
    """A run that goes one step on at each pause of the one who watches."""
    run = RunStatus()
    yield
    begin(run)
    run.waiting(connected=1, needed=3)
    put(folder, run.document())
    yield
    whole_round(run, 1)
    ask(run, 2)
    run.lost(round=2, phase="train+upload", **LOST)
    put(folder, run.document())
    yield
    run.round_finished(record(2, participants=2, lost=1))
    whole_round(run, 3, failed="too few", test_accuracy=None)
    put(folder, run.document())
    yield
    (folder / STATUS).write_text("{")
    yield
    run.run_finished({}, None)
    put(folder, run.document())
    yield


def test_a_line_for_whatever_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_SEARCH_EVERY", 0.0)
    script = steps(tmp_path)
    lines: list[str] = []
    status = follow_lines(StatusSource(tmp_path), lines.append, lambda _: next(script))
    assert status.state == "finished"
    text = re.sub(r"[\d.]+ (µs|ms|s),", "TIME,", "\n".join(lines))
    assert text.splitlines() == [
        "waiting for a run to start (of an app of your own: one that hands its strategy an "
        "observer)",
        "Waiting for clients: 1 of 3 connected",
        "Porto: lost: did not answer in 5 s (train+upload)",
        "round 1 of 3: accuracy 50.00 %, training loss 1.5, TIME, 3 counted, up 1.00 kB, "
        "down 2.00 kB",
        "round 3 failed: too few",
        "round 2 of 3: accuracy 75.00 %, training loss 0.75, TIME, 2 counted, 1 lost, up 1.00 kB, "
        "down 2.00 kB",
        "round 3 of 3 failed: too few",
        lines[7],
        "Finished after 3 rounds",
    ]
    assert lines[7].startswith("status.json: not JSON")


@pytest.mark.parametrize("ticks", [[1_000.0], range(1_000, 0, -1)], ids=["stands", "goes back"])
def test_no_clock_hides_an_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ticks: Iterable[float]
) -> None:
    monkeypatch.setattr(sources, "_SEARCH_EVERY", 0.0)
    clock = itertools.chain(ticks, itertools.repeat(1.0))
    run = RunStatus(clock=lambda: next(clock))
    begin(run)
    most = run_status.MOST_EVENTS

    def script() -> Iterator[None]:
        put(tmp_path, run.document())
        yield
        for count in (1, 2, 0, most // 2, most, 1):  # between two looks; old ones are dropped
            for _ in range(count):
                run.note(f"note {next(numbers)}")
            put(tmp_path, run.document())
            yield
        run.run_finished({}, None)
        put(tmp_path, run.document())
        yield

    numbers, lines, steps = itertools.count(), list[str](), script()
    follow_lines(StatusSource(tmp_path), lines.append, lambda _: next(steps))
    notes = [int(line.removeprefix("note ")) for line in lines if line.startswith("note ")]
    assert notes == list(range(4 + most // 2 + most))


def test_the_live_view_ends_with_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = middle()
    put(tmp_path, run.document())

    def pause(_: float) -> None:
        run.run_finished({}, None)
        put(tmp_path, run.document())

    monkeypatch.setattr("quancrypt_fl.watching.terminal.time.sleep", pause)
    with Path(os.devnull).open("w") as nowhere:
        console = Console(file=nowhere, force_terminal=True, width=100, height=30, record=True)
        status = follow(StatusSource(tmp_path), console)
        text = console.export_text()
    assert status is not None
    assert status.over
    assert "Round 2 of 3" in text
    assert "Finished after 1 round" in text


# --- the command ---


def test_watching_needs_neither_flower_nor_torch() -> None:
    code = (
        "import sys, quancrypt_fl.cli.watch, quancrypt_fl.watching.server, "
        "quancrypt_fl.watching.terminal; print({'flwr', 'torch', 'ray'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "set()"


def test_once_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CommandError, match="no run has started"):
        command(str(tmp_path), "--once")
    put(tmp_path / "state", middle().document())
    assert command(str(tmp_path), "--once") == 0
    assert "Round 2 of 3" in capsys.readouterr().out
    assert command(str(tmp_path), "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["finished"] == 1
    assert document["clients"][0]["node"] == str(BERLIN)
    (tmp_path / "state" / STATUS).write_text("{")
    with pytest.raises(CommandError, match=r"status\.json: not JSON"):
        command(str(tmp_path), "--json")


def test_a_failed_run_is_the_exit_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = middle()
    run.run_finished(None, "all clients are \x1b[31mlost")
    put(tmp_path, run.document())
    assert command(str(tmp_path)) == 1
    printed = capsys.readouterr().out
    assert "Failed after 1 of 3 rounds: all clients are \\x1b[31mlost" in printed
    assert "\x1b" not in printed
    assert command(str(tmp_path), "--once") == 1


def test_a_stopped_run_can_be_gone_on_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = middle()
    run.run_stopped()
    put(tmp_path, run.document())
    assert command(str(tmp_path)) == 1
    printed = capsys.readouterr().out
    assert "Stopped after 1 of 3 rounds; go on with quancrypt run --resume\n" in printed
    assert "failed" not in printed


def test_impossible_options(tmp_path: Path) -> None:
    for options in (["--web", "--once"], ["--web", "--json"], ["--open"]):
        with pytest.raises(CommandError, match="goes with"):
            command(str(tmp_path), *options)
    with pytest.raises(WatchError, match="does not exist"):
        command(str(tmp_path / "nothing"))
    with pytest.raises(WatchError, match=r"cannot listen at 192\.0\.2\.1:0: "):
        command(str(tmp_path), "--web", "--host", "192.0.2.1", "--port", "0")


def test_web_says_where_and_ends_on_ctrl_c(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def interrupted(server: WatchServer) -> None:
        assert get(server, "/")[0] == 200
        raise KeyboardInterrupt

    monkeypatch.setattr(WatchServer, "wait", interrupted)
    monkeypatch.setattr("webbrowser.open", lambda url: bool(opened.append(url)) or True)
    assert command(str(tmp_path), "--web", "--port", "0", "--open") == 0
    printed = capsys.readouterr()
    assert re.match(r"http://127\.0\.0\.1:\d+/ shows the run; Ctrl-C", printed.out)
    assert opened == [printed.out.split()[0]]
    assert printed.err == ""
    assert command(str(tmp_path), "--web", "--port", "0", "--host", "0.0.0.0") == 0
    assert "whoever reaches this address can read the page" in capsys.readouterr().err


def test_a_written_status_is_watched(tmp_path: Path) -> None:
    file = StatusFile(tmp_path / "state")
    begin(file)
    whole_round(file, 1)
    file.close()
    status = StatusSource(tmp_path).read()
    assert status is not None
    assert status.finished == 1
