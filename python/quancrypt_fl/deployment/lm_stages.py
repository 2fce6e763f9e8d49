"""All stages of a language model's pipeline on this machine: started, followed, ended."""

from __future__ import annotations

import json
import os
import queue
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from quancrypt_fl.deployment.processes import Launch, Process, said
from quancrypt_fl.errors import FederatedError
from quancrypt_fl.lm.pipeline_interfaces import INTERFACE, loopback
from quancrypt_fl.lm.pipeline_job import PipelineJob
from quancrypt_fl.lm.pipeline_worker import JOB, LOST, REFUSED, SEPARATOR

__all__ = ["PipelineError", "run_local"]

_WORKER = "quancrypt_fl.lm.pipeline_worker"
_GRACE = 5.0  # seconds between SIGTERM and SIGKILL
_SETTLE = 10.0  # seconds for the stage that ended first to be seen to have ended
_TICK = 0.5  # seconds
_LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class PipelineError(FederatedError):
    """A stage ended before the pipeline was done."""


@dataclass
class _Stage:
    number: int  # from 1
    process: Process | None = None
    status: int | None = None
    error: str = ""
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=20))


_Events: TypeAlias = "queue.SimpleQueue[tuple[_Stage, str | int | None]]"
"""Lines that a stage printed; None: it ended; after that, and after its last line, its status."""


def run_local(
    job: PipelineJob, stages: int, on_token: Callable[[int, int], None]
) -> dict[str, Any]:
    """Run every stage in a process of its own; what the first one returns.

    The stages find each other by a file in a folder that only this user can read, and listen on the
    loopback address alone. They end with this process, whatever ends it.

    Parameters
    ----------
    job, on_token
        See :func:`~quancrypt_fl.lm.pipeline_stage.run_stage`.
    stages
        How many.

    Raises
    ------
    PipelineError
        If a stage fails or is killed: it is named, and the others have been ended.
    """
    with tempfile.TemporaryDirectory(prefix="quancrypt-pipeline-") as name:
        folder = Path(name)
        (folder / JOB).write_text(job.to_json(), encoding="utf-8")
        events: _Events = queue.SimpleQueue()
        members = [_Stage(number) for number in range(1, stages + 1)]
        with _ended(members):
            for stage in members:
                _start(stage, folder, stages, job.threads, events)
            return _follow(members, events, on_token)


def _start(stage: _Stage, folder: Path, stages: int, threads: int, events: _Events) -> None:
    command = [sys.executable, "-m", _WORKER, str(folder), str(stage.number - 1), str(stages)]
    environment = {name: value for name, value in os.environ.items() if name not in _LAUNCHER}
    environment |= {INTERFACE: loopback(), "OMP_NUM_THREADS": str(threads)}
    stage.process = Process(
        Launch(command, environment),
        lambda line: events.put((stage, line)),
        lambda: events.put((stage, None)),
    )


def _follow(
    members: list[_Stage], events: _Events, on_token: Callable[[int, int], None]
) -> dict[str, Any]:
    """Until all have ended well, or one has not."""
    result: dict[str, Any] | None = None
    deadline: float | None = None  # set once a stage has failed because of another one
    while any(stage.status is None for stage in members):
        if deadline is not None and time.monotonic() > deadline:
            break
        try:
            stage, event = events.get(timeout=_TICK)
        except queue.Empty:
            continue
        if event is None:
            assert stage.process is not None
            events.put((stage, stage.process.clear_up(0)))  # behind all that it said
        elif isinstance(event, int):
            stage.status = event
            if event not in (0, LOST):
                break
            if event == LOST and deadline is None:
                deadline = time.monotonic() + _SETTLE
        elif event.startswith(SEPARATOR):
            told = json.loads(event[1:])
            if "token" in told:
                on_token(*told["token"])
            stage.error = told.get("error", stage.error)
            result = told.get("result", result)
        elif event:
            stage.lines.append(event)
    if result is None or any(stage.status != 0 for stage in members):
        raise _failure(members)
    return result


def _failure(members: list[_Stage]) -> PipelineError:
    """The stage that failed by itself; else the first that missed another."""
    ended = [stage for stage in members if stage.status]
    causes = [stage for stage in ended if stage.status != LOST] or ended or members
    stage, total = causes[0], len(members)
    assert stage.process is not None
    where = f"stage {stage.number} of {total}"
    if stage.status in (REFUSED, LOST):
        return PipelineError(f"{where}: {stage.error}; all stages were ended")
    last = f" ({stage.lines[-1][:200]})" if stage.lines and (stage.status or 0) > 0 else ""
    return PipelineError(
        f"{where} (process {stage.process.pid}) {said(stage.status or 0)}{last}; "
        "all other stages were ended"
    )


@contextmanager
def _ended(members: list[_Stage]) -> Iterator[None]:
    """End what runs, whatever happens inside; also if Ctrl-C comes again meanwhile."""
    try:
        yield
    finally:
        for stage in members:
            if stage.process is not None:
                stage.process.end(_GRACE)
