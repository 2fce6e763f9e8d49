"""A training followed over crashes of its ServerApp and of the SuperLink."""

from __future__ import annotations

import fcntl
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from quancrypt_fl.cli import app as command_line
from quancrypt_fl.cli import run as run_command
from quancrypt_fl.cli.errors import CommandError, CommandFailedError
from quancrypt_fl.deployment.events import EventLog
from quancrypt_fl.deployment.runs import (
    Outcome,
    RunError,
    RunStoppedError,
    Training,
    copy_results,
    prune_runs,
    run_folder,
    runs_of,
)

pytest.importorskip("flwr")

from quancrypt_fl.flower.control import ControlUnavailableError, RunState

CRASH = "ServerApp ended by signal 9 (SIGKILL)"


@dataclass
class Server:
    """A SuperLink whose runs end as they are told to; what is callable happens at that moment."""

    ends: list[RunState]
    folder: Path
    away: int = 0
    settings: list[dict[str, Any]] = field(default_factory=list)
    stopped: list[int] = field(default_factory=list)
    looks: int = 0  # at runs, until the one that died is found to be over

    def unfinished(self) -> list[int]:
        self.looks -= 1
        return [7] if self.looks >= 0 else []

    def start(self, bundle: Any, settings: dict[str, Any]) -> int:
        self.settings.append(dict(settings))
        return len(self.settings)

    def state(self, run: int) -> RunState:
        if self.away:
            self.away -= 1
            raise ControlUnavailableError("the SuperLink does not answer")
        return self.ends[run - 1]

    def logs(self, run: int, after: float, take: Callable[[str], Any]) -> float:
        if after < run:
            take(f"\x1b[92mINFO \x1b[0m:      line of run {run}\n")
        return float(run)

    def stop(self, run: int) -> None:
        self.stopped.append(run)


def training(server: Server) -> tuple[Training, io.StringIO]:
    output = io.StringIO()
    time = iter(range(10**9))
    made = Training(
        server,  # type: ignore[arg-type]
        None,  # type: ignore[arg-type]
        lambda resume: {"resume": resume},
        EventLog(output),
        server.folder,
        clock=lambda: float(next(time)),
        sleep=lambda seconds: None,
    )
    return made, output


def results(folder: Path, finished: int = 3) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    document = {"schema": 1, "totals": {"rounds": finished}}
    (folder / "results.json").write_text(json.dumps(document))
    (folder / "status.json").write_text(json.dumps({"finished": finished}))
    return document


def test_a_run_that_is_completed(tmp_path: Path) -> None:
    document = results(tmp_path / "run-1")
    server = Server([RunState("completed", "")], tmp_path / "run-1")
    made, output = training(server)
    assert made.complete(resume=False) == Outcome(tmp_path / "run-1", document)
    assert server.settings == [{"resume": False}]
    assert "line of run 1" in output.getvalue()


def test_a_crash_is_gone_on_with(tmp_path: Path) -> None:
    results(tmp_path)
    ends = [RunState("failed", CRASH), RunState("failed", ""), RunState("completed", "")]
    server = Server(ends, tmp_path)
    made, output = training(server)
    made.complete(resume=False)
    assert server.settings == [{"resume": False}, {"resume": True}, {"resume": True}]
    assert CRASH in output.getvalue()


def test_crashes_without_progress_end_it(tmp_path: Path) -> None:
    server = Server([RunState("failed", CRASH)] * 30, tmp_path)
    with pytest.raises(RunError, match=r"crashed 21 times without a round: ServerApp ended"):
        training(server)[0].complete(resume=False)
    assert len(server.settings) == 21


def test_an_exception_of_the_app_is_final(tmp_path: Path) -> None:
    server = Server([RunState("failed", "ServerApp failed with exception: no room")], tmp_path)
    with pytest.raises(RunError, match=r"^no room$"):
        training(server)[0].complete(resume=False)
    assert len(server.settings) == 1


def test_a_training_without_success_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the strategy raises then is the command's error, with an app of one's own too."""
    reason = "no round succeeded: 2 of 2 failed, the last one: 0 clients answered"
    server = Server([RunState("failed", f"ServerApp failed with exception: {reason}")], tmp_path)
    made, _ = training(server)
    made.folder = None
    with pytest.raises(CommandFailedError, match=f"^the training failed: {reason}$") as caught:
        run_command._complete(made, resume=False)

    def run() -> None:
        raise caught.value

    monkeypatch.setattr(command_line, "app", lambda **_: run())
    assert command_line.run(["run"]) == 1
    assert capsys.readouterr().err == f"quancrypt: the training failed: {reason}\n"


def test_results_of_an_own_app_are_its_own(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"^--out goes with the built-in app"):
        run_command.run(tmp_path, app=tmp_path, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_that_somebody_stopped(tmp_path: Path) -> None:
    server = Server([RunState("stopped", "")], tmp_path)
    with pytest.raises(RunStoppedError):
        training(server)[0].complete(resume=False)


def test_a_superlink_that_starts_again_is_waited_for(tmp_path: Path) -> None:
    results(tmp_path)
    server = Server([RunState("completed", "")], tmp_path, away=20)
    made, output = training(server)
    made.complete(resume=False)
    assert output.getvalue().count("does not answer; waiting for it") == 1


def test_a_superlink_that_stays_away_is_an_error(tmp_path: Path) -> None:
    server = Server([RunState("running", "")], tmp_path, away=10**6)
    with pytest.raises(ControlUnavailableError):
        training(server)[0].complete(resume=False)


def test_stopping_stops_the_run_that_goes_on(tmp_path: Path) -> None:
    server = Server([RunState("running", "")], tmp_path)
    made, _ = training(server)
    made.stop()
    assert server.stopped == []

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    made.sleep = interrupt
    with pytest.raises(KeyboardInterrupt):
        made.complete(resume=False)
    made.stop()
    assert server.stopped == [1]


def test_a_run_that_died_with_its_machine_is_waited_for(tmp_path: Path) -> None:
    made, output = training(Server([], tmp_path, looks=20))
    assert made.others(patient=True) == []
    assert output.getvalue().count("an earlier run is not over") == 1
    assert training(Server([], tmp_path, looks=20))[0].others(patient=False) == [7]
    assert training(Server([], tmp_path, looks=10**6))[0].others(patient=True) == [7]


def test_a_run_that_is_alive_is_followed(tmp_path: Path) -> None:
    """Only the command that followed it was killed: its ServerApp holds the lock of the history."""
    document = results(tmp_path / "run-1")
    (tmp_path / "run-1" / "history").mkdir()
    server = Server([RunState("completed", "")] * 7, tmp_path / "run-1", looks=10**6)
    with (tmp_path / "run-1" / "history" / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made, output = training(server)
        others = made.others(patient=True)
        assert others == [7]
        assert made.is_alive(others)
        assert not made.is_alive([])
        assert not made.is_alive([7, 8])
    assert not made.is_alive(others)
    assert "an earlier run is not over" not in output.getvalue()
    assert made.complete(resume=True, going_on=7) == Outcome(tmp_path / "run-1", document)
    assert server.settings == []  # none was started
    assert "line of run 7" in output.getvalue()


def test_a_run_that_is_followed_and_crashes_is_gone_on_with(tmp_path: Path) -> None:
    results(tmp_path)
    ends = [RunState("completed", "")] + [RunState("failed", CRASH)] * 6
    server = Server(ends, tmp_path)
    training(server)[0].complete(resume=True, going_on=7)
    assert server.settings == [{"resume": True}]


def test_results_that_cannot_be_read(tmp_path: Path) -> None:
    server = Server([RunState("completed", "")], tmp_path)
    with pytest.raises(RunError, match=r"results\.json: cannot be read"):
        training(server)[0].complete(resume=False)
    (tmp_path / "results.json").write_text("[]")
    server = Server([RunState("completed", "")], tmp_path)
    with pytest.raises(RunError, match="is no document"):
        training(server)[0].complete(resume=False)


def test_folders_of_runs(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run to go on with"):
        run_folder(tmp_path, resume=True)
    assert run_folder(tmp_path, resume=False).name == "run-1"
    for name in ("run-2", "run-10", "other"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    assert [path.name for path in runs_of(tmp_path)] == ["run-2", "run-10"]
    assert run_folder(tmp_path, resume=False).name == "run-11"
    assert run_folder(tmp_path, resume=True).name == "run-10"


def test_old_runs_are_pruned(tmp_path: Path) -> None:
    folders = [tmp_path / "runs" / f"run-{number}" for number in range(1, 13)]
    for folder in folders:
        (folder / "history").mkdir(parents=True)
        (folder / "history" / "lock").touch()
    for folder in (*folders[:3], *folders[4:6]):
        results(folder)  # 1, 2, 3, 5 and 6 were completed
    (tmp_path / "runs" / "notes").mkdir()
    with (folders[3] / "history" / "lock").open("rb+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        removed = prune_runs(tmp_path, 3)
    assert [path.name for path in removed] == ["run-1", "run-2", *(f"run-{n}" for n in (7, 8, 9))]
    left = ["run-3", "run-4", "run-5", "run-6", "run-10", "run-11", "run-12"]
    assert [path.name for path in runs_of(tmp_path)] == left
    assert (tmp_path / "runs" / "notes").is_dir()
    assert prune_runs(tmp_path, 3) == [folders[3]]  # nobody is at work on it any more
    assert run_folder(tmp_path, resume=False).name == "run-13"
    assert prune_runs(tmp_path / "nothing", 1) == []


def test_an_old_run_that_cannot_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (1, 2):
        (tmp_path / "runs" / f"run-{number}").mkdir(parents=True)

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(RunError, match=r"run-1: an old run that cannot be removed: Permission"):
        prune_runs(tmp_path, 1)


def test_results_are_copied(tmp_path: Path) -> None:
    document = results(tmp_path / "run-1")
    copy_results(Outcome(tmp_path / "run-1", document), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "results.json",
        "status.json",
    ]
    copy_results(Outcome(None, None), tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
