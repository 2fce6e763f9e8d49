"""``quancrypt run``: a training on a deployment, from its start to its results."""

from __future__ import annotations

import json
import signal
import threading
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quancrypt_fl.cli.errors import CommandError, CommandFailedError, CommandInterruptedError
from quancrypt_fl.cli.interrupts import MESSAGE, interruptible_imports
from quancrypt_fl.cli.options import JsonOnly
from quancrypt_fl.cli.server import require_flower
from quancrypt_fl.cli.service_options import LogJson, Verbose
from quancrypt_fl.cli.storage import check_folder
from quancrypt_fl.cli.text import aligned, print_json

if TYPE_CHECKING:
    from quancrypt_fl.deployment.kits import ServerKit
    from quancrypt_fl.deployment.runs import Outcome, Training

__all__ = ["run"]

_ROUNDS_KEYS = ("num-server-rounds", "rounds")
_RESUME_KEY = "resume"


def run(
    kit: Annotated[Path, typer.Argument(metavar="KIT", help="The server's kit: KITS/server.")],
    app: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="A Flower app of your own; clients must have it too (quancrypt client --app).",
            show_default="the built-in app, on the kit's data set and model",
        ),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="With --app: a value of its run configuration, in TOML; repeatable.",
        ),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Rounds.", show_default="the kit's")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the last run; a larger --rounds prolongs it."),
    ] = False,
    timeout: Annotated[
        float,
        typer.Option(
            min=1.0, help="Seconds for a client's answer; the round then goes on without it."
        ),
    ] = 3600.0,
    wait: Annotated[
        float,
        typer.Option(
            min=0.0,
            help="Seconds to wait for clients that are not connected at the start; then as many "
            "as a round needs are enough.",
        ),
    ] = 600.0,
    snapshot_every: Annotated[
        int, typer.Option(min=1, help="Rounds between two snapshots for clients that lost theirs.")
    ] = 10,
    keep_runs: Annotated[
        int,
        typer.Option(
            min=1,
            help="Old runs of which KIT/state/runs keeps the folder, when a new one begins: the "
            "last ones, and the last that were completed.",
        ),
    ] = 5,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Copy the results here; not with --app.",
            show_default="KIT/state/runs/run-N alone",
        ),
    ] = None,
    json_only: JsonOnly = False,
    log_json: LogJson = False,
    verbose: Verbose = False,
) -> None:
    """Run a training on a deployment; quancrypt server must be running on this machine.

    Follows it to its end, also over a restart of the server, and writes results.json. The model
    stays with the clients; the server keeps a copy that they sealed. Ctrl-C stops the training;
    --resume goes on with it, or follows it where only this command was killed. The exit status is 0
    only if the training was completed; it is 1 if it failed, as one without a successful round has.
    """
    with interruptible_imports():
        from quancrypt_fl.deployment.events import EventLog
        from quancrypt_fl.deployment.kits import ServerKit
        from quancrypt_fl.deployment.runs import copy_results, prune_runs

        require_flower()
        from quancrypt_fl.flower.control import Control

    if setting and app is None:
        raise CommandError("--set goes with --app; the built-in app is set up by the kit")
    if out is not None and app is not None:
        raise CommandError(
            "--out goes with the built-in app; one of your own writes its results itself, in "
            "KIT/state unless it says otherwise"
        )
    if out is not None:
        check_folder(out)
    loaded = ServerKit.load(kit)
    log = EventLog(json_lines=log_json, verbose=verbose)
    with Control(loaded.local_address, loaded.ca) as control:
        options = _Options(rounds, timeout, wait, snapshot_every)
        training = (
            _builtin(control, loaded, log, options, resume=resume)
            if app is None
            else _own(control, app, log, _values(setting or []), rounds)
        )
        with _terminated_as_interrupted():
            others = training.others(patient=resume)
            going_on = others[0] if resume and training.is_alive(others) else None
            if others and going_on is None:
                raise CommandError(
                    f"{loaded.folder}: a run is going on already; stop it, wait for its end, or "
                    "follow it with --resume"
                )
            if training.folder is not None and not resume:
                for old in prune_runs(loaded.state, keep_runs):
                    log("run", f"removed {old}: only the last runs are kept", folder=str(old))
            outcome = _complete(training, resume=resume, going_on=going_on)
    if out is not None:
        copy_results(outcome, out)
    _show(outcome, out, json_only=json_only)


class _Options:
    def __init__(
        self, rounds: int | None, timeout: float, wait: float, snapshot_every: int
    ) -> None:
        self.values: dict[str, Any] = {
            "rounds": rounds,
            "timeout": timeout,
            "wait": wait,
            "snapshot_every": snapshot_every,
        }


def _builtin(
    control: Any, kit: ServerKit, log: Any, options: _Options, *, resume: bool
) -> Training:
    from quancrypt_fl.deployment.runs import Training, builtin_settings, run_folder
    from quancrypt_fl.flower.app import SETTINGS_KEY
    from quancrypt_fl.flower.bundles import built_in_bundle

    folder = run_folder(kit.state, resume=resume)
    settings = builtin_settings(kit, folder.name, **options.values)
    log("run", f"{folder.name}: {settings['config']['rounds']} rounds", folder=str(folder))
    return Training(
        control,
        built_in_bundle(),
        lambda resume: {SETTINGS_KEY: json.dumps({**settings, "resume": resume})},
        log,
        folder,
    )


def _own(
    control: Any, app: Path, log: Any, values: Mapping[str, Any], rounds: int | None
) -> Training:
    from quancrypt_fl.deployment.runs import Training
    from quancrypt_fl.flower.bundles import bundle_of

    bundle = bundle_of(app)
    unknown = sorted(values.keys() - bundle.config.keys())
    if unknown:
        raise CommandError(
            f"--set {', '.join(unknown)}: not in the run configuration of {app}; there are "
            f"{', '.join(sorted(bundle.config)) or 'none'}"
        )
    settings = dict(values)
    if rounds is not None:
        key = next((key for key in _ROUNDS_KEYS if key in bundle.config), None)
        if key is None:
            raise CommandError(f"--rounds: {app} has no {' or '.join(_ROUNDS_KEYS)} to set")
        settings[key] = rounds

    def with_resume(resume: bool) -> dict[str, Any]:
        return {**settings, _RESUME_KEY: resume} if _RESUME_KEY in bundle.config else settings

    return Training(control, bundle, with_resume, log)


def _values(settings: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise CommandError(f"--set {setting}: allowed: KEY=VALUE")
        try:
            values[key.strip()] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            values[key.strip()] = text  # as people type a word
    return values


def _complete(training: Training, *, resume: bool, going_on: int | None = None) -> Outcome:
    from quancrypt_fl.deployment.runs import RunError, RunStoppedError

    try:
        return training.complete(resume=resume, going_on=going_on)
    except KeyboardInterrupt as error:
        training.stop()
        raise CommandInterruptedError(
            f"{MESSAGE} after round {training.finished_rounds}; go on with --resume"
        ) from error
    except RunStoppedError as error:
        raise CommandFailedError(str(error)) from error
    except RunError as error:
        raise CommandFailedError(f"the training failed: {error}") from error


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM stops the run as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise KeyboardInterrupt  # SIGINT may be ignored (nohup, &)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _show(outcome: Outcome, out: Path | None, *, json_only: bool) -> None:
    if json_only:
        print_json(outcome.results or {})
        return
    if outcome.results is None:
        print("completed")
        return
    totals = outcome.results["totals"]
    kept = "the folder adapter" if "metric" in outcome.results else "model.safetensors"
    rows: list[tuple[str, object]] = [
        ("Rounds", totals["rounds"]),
        ("Failed", totals["failed_rounds"]),
        _measured(outcome.results),
        ("Results", (out or outcome.folder or Path()) / "results.json"),
        ("Model", f"with the clients: {kept} in their kits' state"),
    ]
    print(aligned(rows))


def _measured(results: Mapping[str, Any]) -> tuple[str, str]:
    """What the final model was judged by."""
    totals = results["totals"]
    if results.get("metric") == "perplexity":
        value = totals["value"]
        return "Perplexity", "not measured" if value is None else f"{value:.2f}"
    accuracy = totals["test_accuracy"]
    return "Test accuracy", "not measured" if accuracy is None else f"{accuracy:.2%}"
