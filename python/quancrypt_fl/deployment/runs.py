"""A run on a server that is running: submitted, followed, gone on with after a crash, stopped."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from quancrypt_fl.config import QuanCryptConfig
from quancrypt_fl.data.shapes import IMAGES
from quancrypt_fl.deployment.events import EventLog, flower_line
from quancrypt_fl.deployment.kits import KitError, ServerKit, run_table
from quancrypt_fl.errors import FederatedError

if TYPE_CHECKING:
    from quancrypt_fl.flower.bundles import AppBundle
    from quancrypt_fl.flower.control import Control, RunState

__all__ = ["Outcome", "RunError", "RunStoppedError", "Training", "builtin_settings", "runs_of"]

T = TypeVar("T")

RUNS = "runs"
_NAME = re.compile(r"run-(\d+)")
_POLL = 0.5  # seconds
_AWAY = 300.0  # seconds without a SuperLink after which a run is given up
_START = 30.0  # seconds in which a server that was just started must answer
_MOURNING = 90.0  # seconds; Flower's patience with a ServerApp is 60
_RESTARTS = 20  # in a row, without a round in between
_PATIENCE = 5.0  # seconds before a restart
_LOGS_AGAIN = 1.0  # seconds
_NOISE = re.compile(
    r"^Start `flwr|^Successfully installed|^Starting logstream|^configure_|^Connection (succ|att)"
)
_BY_ITSELF = "ServerApp failed with exception: "
"""How Flower begins the reason of an app that raised; every other end is a crash."""


class RunError(FederatedError):
    """A training failed, with the reason."""


class RunStoppedError(RunError):
    """Somebody stopped the run."""


@dataclass(frozen=True)
class Outcome:
    """How a training ended well.

    Attributes
    ----------
    folder
        The run's folder in the server's state; None with an app of one's own.
    results
        The document of ``results.json``, or None.
    """

    folder: Path | None
    results: dict[str, Any] | None


@dataclass
class Training:
    """One training, over as many of Flower's runs as it takes.

    Parameters
    ----------
    control
        The SuperLink.
    bundle
        The app.
    settings
        From whether it is a continuation to the app's run configuration.
    log
        Where the ServerApp's lines go.
    folder
        The run's folder, if it is the built-in app's.
    clock, sleep
        For tests.
    """

    control: Control
    bundle: AppBundle
    settings: Callable[[bool], Mapping[str, str | int | float | bool]]
    log: EventLog
    folder: Path | None = None
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    run: int | None = field(default=None, init=False)

    def complete(self, *, resume: bool, going_on: int | None = None) -> Outcome:
        """Run it to its end.

        Parameters
        ----------
        going_on
            Flower's run to follow, instead of starting one.

        Raises
        ------
        RunError
            If the app failed, or crashed again and again.
        RunStoppedError
            If it was stopped from elsewhere.
        """
        crashes, finished = 0, self.finished_rounds
        while True:
            state = self._once(resume=resume, going_on=going_on)
            going_on = None
            if state.status == "completed":
                return Outcome(self.folder, self._results())
            if state.status == "stopped":
                raise RunStoppedError("the run was stopped")
            if state.details.startswith(_BY_ITSELF):
                raise RunError(state.details.removeprefix(_BY_ITSELF))
            crashes = 1 if self.finished_rounds > finished else crashes + 1
            finished = self.finished_rounds
            reason = state.details or "no reason given"
            if crashes > _RESTARTS:
                raise RunError(f"the ServerApp crashed {crashes} times without a round: {reason}")
            self.log("run", f"the ServerApp is gone ({reason}); going on", level="warning")
            resume = True
            self.sleep(_PATIENCE)

    def others(self, *, patient: bool) -> list[int]:
        """Flower's runs that are going on; waits for a server that was just started.

        Parameters
        ----------
        patient
            Wait for their end, too, for as long as Flower takes a ServerApp to be alive that went
            down with its machine; not where one :meth:`is_alive`.
        """
        deadline, told = self.clock() + _MOURNING, False
        while others := self._patiently(self.control.unfinished):
            if not patient or self.clock() > deadline or self.is_alive(others):
                break
            if not told:
                self.log(
                    "run", "an earlier run is not over; if it died, Flower notes that in a minute"
                )
                told = True
            self.sleep(1.0)
        return others

    def is_alive(self, others: list[int]) -> bool:
        """Whether the only run that is going on is this: a ServerApp is at work in its folder."""
        if self.folder is None or len(others) != 1:
            return False
        return _is_at_work(self.folder / "history" / "lock")

    def stop(self) -> None:
        """Stop the run that is going on, if any."""
        from quancrypt_fl.flower.control import ControlError

        if self.run is None:
            return
        try:
            self.control.stop(self.run)
        except ControlError as error:
            self.log("run", f"the run could not be stopped: {error}", level="warning")

    @property
    def finished_rounds(self) -> int:
        """Rounds that the run's folder says are finished."""
        if self.folder is None:
            return 0
        try:
            status = json.loads((self.folder / "status.json").read_bytes())
            return int(status["finished"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    def _once(self, *, resume: bool, going_on: int | None = None) -> RunState:
        """One of Flower's runs, from its start, or from where it is, to its end."""
        if going_on is None:
            self.run = self._patiently(
                lambda: self.control.start(self.bundle, self.settings(resume))
            )
            self.log("run", f"started, Flower's run {self.run}", level="debug", run=str(self.run))
        else:
            self.run = going_on
            self.log("run", "the training is going on; following it", run=str(going_on))
        run = self.run
        over = threading.Event()
        reader = threading.Thread(target=self._follow, args=(run, over), daemon=True)
        reader.start()
        try:
            while True:
                state = self._patiently(lambda: self.control.state(run))
                if state.over:
                    self.run = None
                    return state
                self.sleep(_POLL)
        finally:
            over.set()
            reader.join(3.0)  # the last lines

    def _follow(self, run: int, over: threading.Event) -> None:
        after, rest = 0.0, ""

        def take(text: str) -> None:
            nonlocal rest
            *lines, rest = (rest + text).split("\n")
            for line in lines:
                level, said = flower_line(line)
                if said:
                    self.log("run", said, level="debug" if _NOISE.search(said) else level)

        while True:
            last = over.is_set()
            after = self.control.logs(run, after, take)
            if last:
                return
            over.wait(_LOGS_AGAIN)

    def _patiently(self, ask: Callable[[], T]) -> T:
        """Ask a SuperLink that may just be starting again."""
        from quancrypt_fl.flower.control import ControlUnavailableError

        deadline = self.clock() + (_START if self.run is None else _AWAY)
        told = False
        while True:
            try:
                return ask()
            except ControlUnavailableError as error:
                if self.clock() > deadline:
                    raise
                if not told:
                    self.log("run", f"{error}; waiting for it", level="warning")
                    told = True
                self.sleep(1.0)

    def _results(self) -> dict[str, Any] | None:
        if self.folder is None:
            return None
        try:
            document = json.loads((self.folder / "results.json").read_bytes())
        except (OSError, ValueError) as error:
            raise RunError(f"{self.folder / 'results.json'}: cannot be read: {error}") from error
        if not isinstance(document, dict):
            raise RunError(f"{self.folder / 'results.json'}: is no document of results")
        return document


def runs_of(state: Path) -> list[Path]:
    """Folders of a server's runs, the oldest first."""
    folder = state / RUNS
    found = [
        (int(name[1]), path)
        for path in (folder.iterdir() if folder.is_dir() else ())
        if (name := _NAME.fullmatch(path.name))
    ]
    return [path for _, path in sorted(found)]


def run_folder(state: Path, *, resume: bool) -> Path:
    """Folder of the last run, to go on with, or of the next.

    Raises
    ------
    RunError
        If there is no run to go on with.
    """
    runs = runs_of(state)
    if not resume:
        number = int(runs[-1].name.removeprefix("run-")) + 1 if runs else 1
        return state / RUNS / f"run-{number}"
    if not runs:
        raise RunError(f"{state / RUNS}: there is no run to go on with; leave out --resume")
    return runs[-1]


def prune_runs(state: Path, keep: int) -> list[Path]:
    """Remove folders of old runs; returns them.

    The last ``keep`` runs stay, and the last ``keep`` that were completed, if those are others. A
    run that a ServerApp is at work on stays too. Nobody but the caller may be about to begin one.

    Parameters
    ----------
    state
        The server's state.
    keep
        How many, at least 1: ``--resume`` goes on with the last one.

    Raises
    ------
    RunError
        Naming the folder, if one cannot be removed.
    """
    runs = runs_of(state)
    completed = [path for path in runs if (path / "results.json").is_file()]
    kept = {*runs[-keep:], *completed[-keep:]}
    removed = []
    for path in runs:
        if path in kept or path.is_symlink() or _is_at_work(path / "history" / "lock"):
            continue
        try:
            shutil.rmtree(path)
        except OSError as error:
            raise RunError(
                f"{path}: an old run that cannot be removed: {error.strerror or error}"
            ) from error
        removed.append(path)
    return removed


def _is_at_work(lock: Path) -> bool:
    """Whether a ServerApp holds the lock of a training's history."""
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True  # or nobody can tell
    finally:
        os.close(descriptor)
    return False


def builtin_settings(
    kit: ServerKit,
    name: str,
    *,
    rounds: int | None,
    timeout: float,
    wait: float,
    snapshot_every: int,
) -> dict[str, Any]:
    """Settings of the built-in app, as its ``RunSettings`` reads them.

    Raises
    ------
    KitError
        If the kit is for an app of one's own.
    """
    if kit.app == "own":
        raise KitError(
            f"{kit.folder}: was made with --no-model, for an app of your own; name it with --app"
        )
    config = run_table(kit.config, kit.app)
    config.pop("app")
    if rounds is not None:
        config["rounds"] = rounds
    images: dict[str, Any] = {}
    if isinstance(kit.config, QuanCryptConfig):
        shape, classes = IMAGES[kit.config.dataset]
        images = {"image_shape": shape, "classes": classes}
    drawn = kit.config.participants < kit.config.clients
    return {
        "app": kit.app,
        "config": config,
        **images,
        "name": name,
        "timeout": timeout,
        "wait": wait,
        "snapshot_every": snapshot_every,
        "key_id": kit.key_id,
        "names": list(kit.names) if drawn else [],
    }


def copy_results(outcome: Outcome, out: Path) -> None:
    """Copy what a run left for people into a folder."""
    if outcome.folder is None:
        return
    out.mkdir(parents=True, exist_ok=True)
    for name in ("results.json", "status.json", "events.jsonl", "final-model.sealed"):
        if (outcome.folder / name).is_file():
            shutil.copyfile(outcome.folder / name, out / name)
