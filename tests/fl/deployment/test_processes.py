"""Children that are kept running: started, followed, restarted, ended with all they started."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quancrypt_fl.deployment import processes, trees
from quancrypt_fl.deployment.events import EventLog, cleaned, flower_line
from quancrypt_fl.deployment.processes import (
    Backoff,
    Launch,
    Program,
    ProgramError,
    Supervisor,
    said,
)
from quancrypt_fl.deployment.sites import StateError, free_port, in_use, superexec_secret
from quancrypt_fl.deployment.supernode import node_config_text
from quancrypt_fl.deployment.trees import Member, descendants, is_running

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="process trees are Linux's")

QUICK = Backoff(first=0.05, factor=1.0, calm=60.0)
PATIENCE = 20.0  # seconds; nothing is asserted on how long things take


def script(text: str) -> Launch:
    command = [sys.executable, "-I", "-S", "-c", textwrap.dedent(text)]
    return Launch(command, {"PATH": os.environ["PATH"]})


class Watched:
    """A supervisor with what it was told, and a way to stop it when something has happened."""

    def __init__(self) -> None:
        self.output = io.StringIO()
        self.log = EventLog(self.output)
        self.lines: list[str] = []
        self.ends: list[int] = []
        self.until: Callable[[], bool] = lambda: False
        self.supervisor: Supervisor | None = None

    def program(self, text: str, name: str = "child", **options: object) -> Program:
        options = {"backoff": QUICK, "grace": 2.0, **options}
        return Program(
            name, lambda: script(text), self.lines.append, on_end=self.ends.append, **options
        )  # type: ignore[arg-type]

    def run(self, *programs: Program, until: Callable[[], bool]) -> int:
        deadline = time.monotonic() + PATIENCE

        def tick() -> None:
            assert self.supervisor is not None
            if until():
                self.supervisor.stop()
            elif time.monotonic() > deadline:
                raise AssertionError(f"it did not happen: {self.lines}, {self.output.getvalue()}")

        self.supervisor = Supervisor(self.log, programs, tick=tick)
        return self.supervisor.run()


@pytest.fixture
def watched() -> Iterator[Watched]:
    before = set(descendants(os.getpid()))
    yield Watched()
    left = [member for member in set(descendants(os.getpid())) - before if is_running(member)]
    assert left == []


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


FOREVER = """
    import time
    print("up", flush=True)
    while True:
        time.sleep(0.05)
    """


# --- supervision ---


def test_output_is_followed_and_the_end_is_clean(watched: Watched) -> None:
    status = watched.run(
        watched.program(
            """
            import os, sys, time
            print("out ä", os.getpid() == os.getsid(0), sys.stdin.read() == "", flush=True)
            print("err", file=sys.stderr, flush=True)
            time.sleep(60)
            """
        ),
        until=lambda: len(watched.lines) == 2,
    )
    assert status == 0
    assert sorted(watched.lines) == ["err", "out ä True True"]
    assert "ended by SIGTERM" in watched.output.getvalue()


def test_what_dies_is_started_again(watched: Watched) -> None:
    watched.run(
        watched.program("print('once', flush=True); raise SystemExit(3)"),
        until=lambda: len(watched.lines) >= 3,
    )
    assert watched.ends[:2] == [3, 3]
    assert "ended with status 3; starting it again in 0.05 s" in watched.output.getvalue()


def test_lines_before_an_end_are_told_before_it(watched: Watched) -> None:
    seen: list[int] = []
    program = watched.program("for i in range(200): print(i)")
    program.on_end = lambda status: seen.append(len(watched.lines))
    watched.run(program, until=lambda: bool(seen))
    assert seen[0] == 200


def test_it_gives_up_after_so_many_failures_and_ends_the_others(watched: Watched) -> None:
    other = watched.program(FOREVER, "other")
    failing = watched.program("raise SystemExit(1)", attempts=3)
    with pytest.raises(ProgramError, match="child ended with status 1 3 times in a row"):
        watched.run(other, failing, until=lambda: False)
    assert watched.ends == [1, 1, 1]


def test_a_calm_time_forgives_failures(watched: Watched) -> None:
    calm = Backoff(first=0.01, factor=1.0, calm=0.0)
    watched.run(
        watched.program("raise SystemExit(1)", attempts=2, backoff=calm),
        until=lambda: len(watched.ends) >= 4,
    )


def test_backoff_grows_to_its_limit() -> None:
    backoff = Backoff(first=0.5, factor=2.0, most=30.0)
    assert [backoff.delay(n) for n in (1, 2, 3, 7, 500)] == [0.5, 1.0, 2.0, 30.0, 30.0]


def test_programs_that_belong_together_are_started_together(watched: Watched) -> None:
    first = watched.program(
        "import os, time; print('first', flush=True); time.sleep(0.3); os.kill(os.getpid(), 9)",
        "first",
        together=("second",),
    )
    second = watched.program("import time; print('second', flush=True); time.sleep(60)", "second")
    watched.run(first, second, until=lambda: watched.lines.count("second") >= 2)
    assert watched.ends[0] == -signal.SIGKILL


def test_a_missing_program_says_so(watched: Watched) -> None:
    program = Program(
        "child",
        lambda: Launch(["/no/such/program"], {}),
        watched.lines.append,
        attempts=1,
        backoff=QUICK,
    )
    with pytest.raises(ProgramError):
        watched.run(program, until=lambda: False)
    assert watched.lines == ["/no/such/program: No such file or directory"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it(watched: Watched, number: int) -> None:
    sent: list[bool] = []

    def send() -> bool:
        if watched.lines and not sent:
            sent.append(True)
            os.kill(os.getpid(), number)
        return False

    handler = signal.getsignal(number)
    assert watched.run(watched.program(FOREVER), until=send) == number
    assert signal.getsignal(number) is handler


def test_what_is_to_be_done_before_the_end(watched: Watched) -> None:
    program = watched.program(FOREVER)
    running: list[bool] = []
    supervisor = Supervisor(
        watched.log,
        [program],
        tick=lambda: supervisor.stop() if watched.lines else None,
        before_end=lambda: running.append(alive(supervisor.pid("child") or 0)),
    )
    supervisor.run()
    assert running == [True]


def test_a_failing_tick_ends_everything(watched: Watched) -> None:
    def fail() -> bool:
        if watched.lines:
            raise ValueError("of the tick")
        return False

    with pytest.raises(ValueError, match="of the tick"):
        watched.run(watched.program(FOREVER), until=fail)


# --- trees ---

TREE = """
    import os, subprocess, sys, time
    grandchild = "import os, signal, time; {ignore}print(os.getpid(), flush=True); time.sleep(60)"
    subprocess.Popen([sys.executable, "-I", "-S", "-c", grandchild], start_new_session={session})
    {after}
    """
IGNORE = "signal.signal(signal.SIGTERM, signal.SIG_IGN); "


@pytest.mark.parametrize("session", [False, True])
@pytest.mark.parametrize("ignore", ["", IGNORE])
@pytest.mark.parametrize("slow_kill", [False, True])
def test_the_end_takes_the_whole_tree(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, session: bool, ignore: str, slow_kill: bool
) -> None:
    """Nobody is left when it returns, also where the kernel takes its time to kill them."""
    later: list[threading.Timer] = []

    def kill_later(members: Iterable[Member], number: int = signal.SIGKILL) -> None:
        later.append(threading.Timer(0.2, trees.end, (list(members), number)))
        later[-1].start()

    if slow_kill:
        monkeypatch.setattr(processes, "end", kill_later)
    text = TREE.format(ignore=ignore, session=session, after="time.sleep(60)")
    watched.run(watched.program(text, grace=0.3), until=lambda: bool(watched.lines))
    assert not alive(int(watched.lines[0]))
    for timer in later:
        timer.join()


def test_what_a_dead_child_left_is_ended_before_the_next_start(watched: Watched) -> None:
    after = "time.sleep(0.3); os._exit(1)"
    text = TREE.format(ignore="", session=False, after=after)
    overlapping: list[int] = []
    program = watched.program(text)
    start = program.launch

    def launch() -> Launch:
        overlapping.extend(pid for pid in map(int, watched.lines) if alive(pid))
        return start()

    program.launch = launch
    watched.run(program, until=lambda: len(watched.lines) >= 2)
    assert overlapping == []
    assert not any(alive(int(line)) for line in watched.lines)


def test_what_ignores_sigterm_is_killed(watched: Watched) -> None:
    watched.run(
        watched.program(
            """
            import signal, time
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            print("deaf", flush=True)
            time.sleep(60)
            """,
            grace=0.2,
        ),
        until=lambda: bool(watched.lines),
    )
    assert "ended by SIGKILL" in watched.output.getvalue()


def test_strangers_are_left_alone(watched: Watched) -> None:
    stranger = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"])
    try:
        watched.run(watched.program(FOREVER), until=lambda: bool(watched.lines))
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_children_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    marks = tmp_path / "pids"
    code = f"""
        import os, sys
        from pathlib import Path
        from quancrypt_fl.deployment.events import EventLog
        from quancrypt_fl.deployment.processes import Launch, Program, Supervisor
        child = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
        command = [sys.executable, "-I", "-S", "-c", child]
        def tell(line):
            Path({str(marks)!r}).write_text(line + chr(10))
        Supervisor(EventLog(), [Program("child", lambda: Launch(command, {{}}), tell)]).run()
        """
    supervisor = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stderr=subprocess.DEVNULL
    )
    try:
        pid = int(
            _wait_for(
                lambda: marks.exists() and marks.read_text().endswith("\n") and marks.read_text()
            )
        )
        assert alive(pid)
        supervisor.kill()
        supervisor.wait()
        _wait_for(lambda: not alive(pid))
    finally:
        supervisor.kill()
        supervisor.wait()


def _wait_for(found: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (value := found()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return value


def test_a_member_is_told_from_a_later_process_with_its_number() -> None:
    (me,) = [m for m in descendants(os.getppid()) if m.pid == os.getpid()]
    assert is_running(me)
    assert not is_running(Member(me.pid, me.born + 1))


def test_how_a_process_ended() -> None:
    assert said(0) == "ended"
    assert said(7) == "ended with status 7"
    assert said(-9) == "ended by SIGKILL"
    assert said(-200) == "ended by signal 200"


# --- logs ---


def test_lines_for_people() -> None:
    stream = io.StringIO()
    log = EventLog(stream, clock=lambda: 1_700_000_000.25)
    log("server", "two\nlines \x1b[92mgreen\x1b[0m \x07", clients=3)
    log("superlink", "gone", level="error")
    log("superlink", "each poll", level="debug")
    first, second = stream.getvalue().splitlines()
    assert first.endswith("  server     two\\nlines green \\x07")
    assert second.endswith("  superlink  error: gone")
    assert len(first.split("  ")[0]) == len("2023-11-14 22:13:20")


def test_lines_for_programs() -> None:
    stream = io.StringIO()
    log = EventLog(stream, json_lines=True, verbose=True, clock=lambda: 1_700_000_000.25)
    log("server", "here", level="debug", clients=3, node="7")
    assert json.loads(stream.getvalue()) == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "debug",
        "source": "server",
        "text": "here",
        "clients": 3,
        "node": "7",
    }


@pytest.mark.parametrize("json_lines", [False, True])
def test_secrets_are_never_written(json_lines: bool) -> None:
    stream = io.StringIO()
    log = EventLog(stream, json_lines=json_lines, secrets=["hush", ""])
    log("client", "the word is hush; run --token abcdef0123 --token=xyz now", fact="hush!")
    assert "hush" not in stream.getvalue()
    assert "abcdef0123" not in stream.getvalue()
    assert "xyz" not in stream.getvalue()


def test_a_terminal_that_is_gone_stops_nothing() -> None:
    stream = io.StringIO()
    stream.close()
    EventLog(stream)("server", "nobody reads this")


def test_events_of_several_threads_do_not_mix() -> None:
    stream = io.StringIO()
    log = EventLog(stream, json_lines=True)

    def tell() -> None:
        for _ in range(200):
            log("server", "x" * 50)

    threads = [threading.Thread(target=tell) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {json.loads(line)["text"] for line in stream.getvalue().splitlines()} == {"x" * 50}


@pytest.mark.parametrize(
    ("line", "event"),
    [
        ("\x1b[92mINFO \x1b[0m:      SuperNode ID: 12", ("info", "SuperNode ID: 12")),
        ("\x1b[93mWARNING \x1b[0m:   Connection attempt", ("warning", "Connection attempt")),
        ("\x1b[91mERROR \x1b[0m:     Exit Code: 305", ("error", "Exit Code: 305")),
        ("INFO:     Uvicorn running", ("info", "Uvicorn running")),
        ("\x1b[92mINFO \x1b[0m:      ", ("info", "")),
        ('2026-11-25T04:26:35.607Z INFO [uvicorn.access] "POST /"', ("debug", '"POST /"')),
        ("2026-11-25T04:26:35.607Z ERROR [uvicorn.error] no port", ("error", "no port")),
        ("Traceback (most recent call last):", ("info", "Traceback (most recent call last):")),
        ('  File "app.py", line 3 ', ("info", '  File "app.py", line 3')),
    ],
)
def test_flowers_lines(line: str, event: tuple[str, str]) -> None:
    assert flower_line(line) == event


def test_long_lines_are_cut() -> None:
    assert len(cleaned("x" * 100_000)) < 5_000


# --- a kit in use ---


def test_a_kit_is_used_by_one_process(tmp_path: Path) -> None:
    state = tmp_path / "kit" / "state"
    with in_use(state, "quancrypt client"):
        assert state.stat().st_mode & 0o777 == 0o700
        other = f"quancrypt client, process {os.getpid()}"
        with pytest.raises(StateError, match=f"is in use by {other}"), in_use(state, "other"):
            raise AssertionError("two at once")
    with in_use(state, "quancrypt client"):
        pass


def test_the_secret_of_a_start_is_its_owners_alone(tmp_path: Path) -> None:
    first = superexec_secret(tmp_path).read_bytes()
    path = superexec_secret(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(path.read_bytes()) == 32
    assert path.read_bytes() != first


def test_free_ports_are_free() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port()))


def test_node_configurations_are_what_flower_reads() -> None:
    config = pytest.importorskip("flwr.common.config")
    values = {
        "partition-id": 3,
        "share": 0.5,
        "yes": True,
        "data-dir": "/a folder/with 'quotes'",
        "quancrypt-key": r"C:\keys\secret.key",
        "name": 'say "hi" = 2',
    }
    assert config.parse_config_args([node_config_text(values)]) == values
    for impossible in ("a'b\"c", "line\nfeed", "a'b\\c"):
        with pytest.raises(StateError, match="cannot hold"):
            node_config_text({"data-dir": impossible})
