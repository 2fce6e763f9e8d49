"""The server: starts from the simulation's first model, adds what it cannot read, keeps results."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp

import quancrypt_native as qn
from quancrypt_fl.atomic_files import write_atomically
from quancrypt_fl.envelopes import Members
from quancrypt_fl.errors import ConfigError
from quancrypt_fl.federation_config import FederationConfig
from quancrypt_fl.flower.app.document import deployed_document
from quancrypt_fl.flower.app.learning import LEARNING
from quancrypt_fl.flower.app.sampling import SampledStrategy
from quancrypt_fl.flower.app.settings import RunSettings
from quancrypt_fl.flower.observing import RunObserver, RunObservers
from quancrypt_fl.flower.status import StatusFile
from quancrypt_fl.flower.training_run import SNAPSHOT
from quancrypt_fl.results import write_results

__all__ = ["JOINT", "MEMBERS", "METRICS", "PARAMS", "RESULTS", "SEALED_MODEL", "STATE", "app"]

STATE = "QUANCRYPT_STATE"
"""Environment variable: folder in which runs have theirs."""
PARAMS = "QUANCRYPT_PARAMS"
"""Environment variable: file of the encryption parameters."""
MEMBERS = "QUANCRYPT_MEMBERS"
"""Environment variable: file of the clients whose signed replies are accepted."""
JOINT = "QUANCRYPT_JOINT"
"""Environment variable: file of the threshold key's public facts, where there is one."""
METRICS = "QUANCRYPT_METRICS"
"""Environment variable: ``HOST:PORT`` where metrics are served during a run, or empty."""

RESULTS, SEALED_MODEL = "results.json", "final-model.sealed"
_POLL = 0.5  # seconds

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run a training, or go on with it."""
    settings = RunSettings.of(context.run_config)
    config = settings.configuration()
    params = qn.Parameters.from_bytes(_setting(PARAMS).read_bytes())
    members = _setting(MEMBERS)
    folder = _setting(STATE) / "runs" / settings.name
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    start = LEARNING[settings.app].start(settings)
    initial = ArrayRecord({name: Array(tensor) for name, tensor in start.weights.items()})
    with _observer(folder) as observer:
        _wait_for_clients(grid, settings, config, observer)
        strategy = SampledStrategy(
            params,
            config,
            settings.names,
            members=members,
            turns=start.turns,
            **_arguments(settings, config, folder, observer),
        )
        result = strategy.start(grid, initial, num_rounds=config.rounds, timeout=settings.timeout)
    if SNAPSHOT in result.arrays:
        write_atomically(folder / SEALED_MODEL, result.arrays[SNAPSHOT].numpy().tobytes())
    document = deployed_document(
        config,
        strategy.records,
        params=params,
        keys=strategy.keys,
        joint=strategy.joint,
        parameters=start.parameters,
        exchanged=start.exchanged,
        about=start.about,
    )
    write_results(folder / RESULTS, document)


def _arguments(
    settings: RunSettings, config: FederationConfig, folder: Path, observer: RunObserver
) -> dict[str, Any]:
    agreed = (
        "clip_factor", "max_bound", "mask", "prune_global", "smoothing", "weighting", "rounding",
        "update",
    )  # fmt: skip
    least = config.least_arrivals
    return {
        **{name: getattr(config, name) for name in agreed},
        "error_feedback": config.error_feedback,
        "pruning": config.schedule() if config.pruning else None,
        "seed": config.seed,
        "key_id": settings.key_id,
        "state": folder / "history",
        "resume": settings.resume,
        "snapshot_every": settings.snapshot_every,
        "min_arrivals": least,
        "joint": None if config.threshold is None else _setting(JOINT),
        "observer": observer,
        "fraction_train": config.participation,
        "min_train_nodes": least,
        "min_available_nodes": max(least, config.threshold or 0),
        "min_evaluate_nodes": 1,
    }


def _wait_for_clients(
    grid: Grid, settings: RunSettings, config: FederationConfig, observer: RunObserver
) -> None:
    """Until all are connected; after ``settings.wait`` seconds, as many as a round needs.

    Sites that were removed are no members, and nobody waits for them.
    """
    sites = min(config.clients, len(Members.load(_setting(MEMBERS))))
    deadline = time.monotonic() + settings.wait
    before = -1
    while True:
        connected = len(list(grid.get_node_ids()))
        patient = time.monotonic() < deadline
        needed = sites if patient else config.least_arrivals
        if connected >= needed:
            return
        if connected != before:
            observer.waiting(connected=connected, needed=needed)
            observer.note(f"{connected} of {sites} clients are connected; waiting")
            before = connected
        time.sleep(_POLL)


@contextmanager
def _observer(folder: Path) -> Iterator[RunObserver]:
    with ExitStack() as stack:
        status = StatusFile(folder)
        stack.callback(status.close)
        observers: list[RunObserver] = [status]
        if place := os.environ.get(METRICS):
            from quancrypt_fl.flower.prometheus import PrometheusMetrics, PrometheusServer

            metrics = PrometheusMetrics()
            host, _, port = place.rpartition(":")
            stack.enter_context(PrometheusServer(metrics, int(port), host.strip("[]")))
            observers.append(metrics)
        yield RunObservers(*observers)


def _setting(name: str) -> Path:
    value = os.environ.get(name)
    if not value:
        raise ConfigError(f"{name} is not in the environment; quancrypt server sets it")
    return Path(value)
