"""Child processes that are kept running: started, followed line by line, restarted, ended.

Each child has a session, and so a process group, of its own. When it dies what it leaves is ended
before it is started again; when the supervisor dies, whatever kills it, the kernel tells the
children. All are started by the thread that runs :meth:`Supervisor.run`, which is to be the main
thread: the kernel takes the end of the thread that started a child for that of its parent.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO

from quancrypt_fl.deployment import launch
from quancrypt_fl.deployment.events import EventLog
from quancrypt_fl.deployment.trees import (
    Member,
    adopt_orphans,
    descendants,
    end,
    is_running,
    reap_adopted,
)
from quancrypt_fl.errors import FederatedError

__all__ = ["Backoff", "Launch", "Process", "Program", "ProgramError", "Supervisor", "said"]

_TICK = 0.25  # seconds between two looks at what is due
_REAP = 5.0  # seconds between two looks for adopted children that ended
_LOOK = 0.02  # seconds
_LONGEST_LINE = 1 << 16  # bytes
_REMAINS = 3.0  # seconds for what a dead child left to end by itself
_KILLED = 30.0  # seconds for SIGKILL to take effect: on a busy machine it is not at once


class ProgramError(FederatedError):
    """A program cannot be kept running."""


@dataclass(frozen=True)
class Launch:
    """How a program is started. The environment is all that it gets."""

    command: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    folder: Path | None = None


@dataclass(frozen=True)
class Backoff:
    """How long to wait before the next start.

    Attributes
    ----------
    first, factor, most
        Seconds before the first restart, what they grow by, and their limit.
    calm
        A program that ran for so many seconds begins again with ``first``.
    """

    first: float = 0.5
    factor: float = 2.0
    most: float = 30.0
    calm: float = 60.0

    def delay(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row, 1 or more."""
        return float(min(self.most, self.first * self.factor ** min(failures - 1, 60)))


@dataclass
class Program:
    """A program to keep running.

    Attributes
    ----------
    name
        For the log.
    launch
        Makes the command for each start.
    on_line
        Gets each line of its output.
    on_end
        Told its exit status (negative: a signal's number) before it is started again.
    together
        Names of programs that are started again with it.
    attempts
        Failures in a row, each within ``backoff.calm`` seconds, after which the supervisor gives
        up; None: never.
    grace
        Seconds between SIGTERM and SIGKILL at the end.
    """

    name: str
    launch: Callable[[], Launch]
    on_line: Callable[[str], None]
    on_end: Callable[[int], None] = lambda status: None
    together: tuple[str, ...] = ()
    attempts: int | None = None
    backoff: Backoff = Backoff()
    grace: float = 10.0


class Process:
    """One start of a program, in a session of its own.

    Parameters
    ----------
    made
        What to start.
    on_line, on_end
        Called from other threads: with each line, and once when it has ended, before it is reaped.
    """

    def __init__(
        self, made: Launch, on_line: Callable[[str], None], on_end: Callable[[], None]
    ) -> None:
        starter = [sys.executable, "-I", "-S", str(Path(launch.__file__)), str(os.getpid())]
        self._popen = subprocess.Popen(
            [*starter, *made.command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(made.environment),
            cwd=made.folder,
            start_new_session=True,
        )
        self.pid = self._popen.pid
        self._status: int | None = None
        self._over = threading.Event()
        assert self._popen.stdout is not None
        self._reader = threading.Thread(
            target=_follow, args=(self._popen.stdout, on_line), daemon=True
        )
        self._waiter = threading.Thread(target=self._await_end, args=(on_end,), daemon=True)
        self._reader.start()
        self._waiter.start()

    def _await_end(self, on_end: Callable[[], None]) -> None:
        # It stays a zombie until clear_up(), so that its group's number belongs to nobody else.
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        self._over.set()
        on_end()

    @property
    def ended(self) -> bool:
        """Whether the process itself has ended."""
        return self._over.is_set()

    def end(self, grace: float) -> int:
        """SIGTERM, SIGKILL after ``grace`` seconds, for it and all that it started; its status."""
        started = descendants(self.pid)  # also what is in a session of its own
        deadline = time.monotonic() + grace
        self._signal_group(signal.SIGTERM)
        self._over.wait(grace)
        return self.clear_up(deadline - time.monotonic(), started)

    def clear_up(self, patience: float, started: Sequence[Member] = ()) -> int:
        """End what is left of its group and of its descendants, and reap it.

        Parameters
        ----------
        patience
            Seconds for what is left to end by itself after SIGTERM; then comes SIGKILL.
        started
            Descendants that it had.

        Returns
        -------
        int
            Its exit status; a negative one is the number of a signal.
        """
        if self._status is not None:
            return self._status
        of_group = [each for each in descendants(os.getpid()) if _group(each.pid) == self.pid]
        others = [
            member
            for member in dict.fromkeys([*started, *descendants(self.pid), *of_group])
            if member.pid != self.pid
        ]
        if patience > 0 and any(map(is_running, others)):
            end(others, signal.SIGTERM)
            _await_ends(others, patience)
        end(others)
        self._signal_group(signal.SIGKILL)
        self._over.wait()
        _await_ends(others, _KILLED)
        self._status = self._popen.wait()
        self._reader.join(2.0)  # somebody outside our reach may hold the pipe
        return self._status

    def _signal_group(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


def _await_ends(members: Collection[Member], patience: float) -> None:
    """Return when none of them runs any more, or after ``patience`` seconds."""
    deadline = time.monotonic() + patience
    while any(map(is_running, members)) and time.monotonic() < deadline:
        time.sleep(_LOOK)


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def _follow(stream: IO[bytes], on_line: Callable[[str], None]) -> None:
    with stream:
        while line := stream.readline(_LONGEST_LINE):
            on_line(line.decode("utf-8", "replace").rstrip("\r\n"))


@dataclass
class _State:
    program: Program
    process: Process | None = None
    started: float = 0.0
    due: float | None = 0.0  # when to start; None: running
    failures: int = 0


@dataclass(frozen=True)
class _Line:
    name: str
    text: str


@dataclass(frozen=True)
class _End:
    process: Process | None
    name: str


class Supervisor:
    """Keeps programs running until a signal, :meth:`stop`, or one that fails for good.

    Parameters
    ----------
    log
        Told of starts, ends and restarts.
    programs
        In the order of starting; they are ended in the opposite order.
    tick
        Called a few times a second; what it raises ends everything.
    before_end
        Called before the programs are ended.
    """

    def __init__(
        self,
        log: EventLog,
        programs: Sequence[Program],
        *,
        tick: Callable[[], None] = lambda: None,
        before_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._log = log
        self._states = {program.name: _State(program) for program in programs}
        self._events: queue.SimpleQueue[_Line | _End | int] = queue.SimpleQueue()
        self._tick = tick
        self._before_end = before_end
        self._signals = 0
        self._strangers: set[Member] = set()  # children that were there before
        self._error: ProgramError | None = None

    def stop(self) -> None:
        """End everything; from any thread."""
        self._events.put(0)

    def restart(self, name: str) -> None:
        """End a program now; it is started again like one that died."""
        state = self._states[name]
        if state.process is not None:
            self._ended(state, state.process.end(state.program.grace))

    def pid(self, name: str) -> int | None:
        """The program's process, if it runs."""
        process = self._states[name].process
        return process.pid if process else None

    def run(self) -> int:
        """Run; returns the number of the signal that ended it, or 0 after :meth:`stop`.

        Raises
        ------
        ProgramError
            If a program failed too often in a row. Nothing is left running then either.
        """
        adopt_orphans()
        self._strangers = set(descendants(os.getpid()))
        before = {number: signal.signal(number, self._on_signal) for number in _ENDING}
        try:
            return self._run()
        finally:
            self._end_all()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signals += 1
        self._events.put(number)

    def _run(self) -> int:
        reaped = time.monotonic()
        while True:
            if self._error:
                raise self._error
            now = time.monotonic()
            for state in self._states.values():
                if state.due is not None and state.due <= now:
                    self._start(state)
            with suppress(queue.Empty):
                event = self._events.get(timeout=_TICK)
                if isinstance(event, int):
                    return event
                self._handle(event)
                continue  # lines first: a tick may take a while
            self._tick()
            if now - reaped > _REAP:
                self._reap()
                reaped = now

    def _start(self, state: _State) -> None:
        program = state.program
        made = program.launch()
        holder: list[Process] = []
        state.process = Process(
            made,
            lambda text: self._events.put(_Line(program.name, text)),
            lambda: self._events.put(_End(holder[0] if holder else None, program.name)),
        )
        holder.append(state.process)
        state.started, state.due = time.monotonic(), None
        self._log(program.name, f"started, process {state.process.pid}", pid=state.process.pid)

    def _handle(self, event: _Line | _End) -> None:
        state = self._states[event.name]
        if isinstance(event, _Line):
            state.program.on_line(event.text)
            return
        process = state.process
        if process is None or not process.ended or event.process not in (process, None):
            return  # of an earlier start
        self._ended(state, process.clear_up(_REMAINS))

    def _ended(self, state: _State, status: int) -> None:
        self._drain(state.program.name)
        state.process = None
        program, backoff = state.program, state.program.backoff
        calm = time.monotonic() - state.started >= backoff.calm
        state.failures = 1 if calm else state.failures + 1
        program.on_end(status)
        for name in program.together:
            other = self._states[name]
            if other.process is not None:
                other.process.end(other.program.grace)
                other.process = None
        if program.attempts is not None and state.failures >= program.attempts:
            self._error = ProgramError(
                f"{program.name} {said(status)} {state.failures} times in a row; its last lines "
                "above say why"
            )
            return
        delay = backoff.delay(state.failures)
        self._log(
            program.name,
            f"{said(status)}; starting it again in {delay:g} s",
            level="warning",
            status=status,
        )
        state.due = time.monotonic() + delay
        for name in program.together:
            self._states[name].due = state.due

    def _drain(self, name: str) -> None:
        """Lines that a program printed before it ended are told before its end."""
        later: list[_Line | _End | int] = []
        with suppress(queue.Empty):
            while True:
                event = self._events.get_nowait()
                if isinstance(event, _Line) and event.name == name:
                    self._states[name].program.on_line(event.text)
                else:
                    later.append(event)
        for event in later:
            self._events.put(event)

    def _end_all(self) -> None:
        self._before_end()
        for state in reversed(self._states.values()):
            process, state.process = state.process, None
            if process is None:
                continue
            # A second signal has no patience.
            status = process.end(state.program.grace if self._signals < 2 else 0.0)
            self._drain(state.program.name)
            self._log(state.program.name, said(status), status=status)
        left = set(descendants(os.getpid())) - self._strangers
        end(left)
        _await_ends(left, _KILLED)
        self._reap()

    def _reap(self) -> None:
        own = [state.process.pid for state in self._states.values() if state.process]
        reap_adopted([*own, *(member.pid for member in self._strangers)])


_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def said(status: int) -> str:
    """How a process ended, for people."""
    if status == 0:
        return "ended"
    if status > 0:
        return f"ended with status {status}"
    with suppress(ValueError):
        return f"ended by {signal.Signals(-status).name}"
    return f"ended by signal {-status}"
