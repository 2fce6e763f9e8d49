"""The server: seconds of a round, and those in which it waits or is in Flower's hands."""

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from quancrypt_fl.flower.app import server_app as built_in
from quancrypt_fl.flower.app.sampling import SampledStrategy
from quancrypt_fl.flower.app.settings import RunSettings
from quancrypt_fl.flower.app.trainer import first_model
from quancrypt_fl.flower.observing import RunObserver, RunObservers

POLL = 0.25  # seconds, that of QuanCryptStrategy: Flower's own 3 s would only slow FedAvg down

app = ServerApp()


class Clock(RunObserver):
    """Writes a line at the start and after every round, with the time so far."""

    def __init__(self) -> None:
        self.away = 0.0  # seconds asleep, or in Flower's functions

    def timed(self, call: Callable[..., Any], *arguments: Any) -> Any:
        begin = time.perf_counter()
        try:
            return call(*arguments)
        finally:
            self.away += time.perf_counter() - begin

    def sleep(self, seconds: float) -> None:
        self.timed(time.sleep, seconds)

    def mark(self, record: Mapping[str, Any]) -> None:
        line = {"at": time.perf_counter(), "away": self.away, **record}
        with (Path(os.environ["DEPLOYED_ROUND"]) / "server.jsonl").open("a") as stream:
            stream.write(json.dumps(line) + "\n")

    def run_started(self, **_: Any) -> None:
        self.mark({"round": 0})

    def round_finished(self, record: Mapping[str, Any]) -> None:
        names = ("round", "seconds", "bytes", "participants", "failed")
        self.mark({name: record[name] for name in names})


class TimedGrid:
    """Flower's grid under a clock."""

    def __init__(self, grid: Grid, clock: Clock) -> None:
        self._grid = grid
        self._clock = clock

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._grid, name)
        if not callable(found):
            return found
        return lambda *arguments: self._clock.timed(lambda: _done(found(*arguments)))

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float) -> list[Message]:
        """Flower's own, with our time between two looks."""
        waiting = set(self.push_messages(messages))
        replies: list[Message] = []
        until = time.monotonic() + timeout
        while waiting and time.monotonic() < until:
            for reply in self.pull_messages(sorted(waiting)):
                waiting.discard(reply.metadata.reply_to_message_id)
                replies.append(reply)
            if waiting:
                self._clock.sleep(POLL)
        return replies


def _done(found: Any) -> Any:
    """A generator's work is done here, and not where nobody measures it."""
    return found if isinstance(found, (type(None), str, int, list, tuple)) else list(found)


class PlainFedAvg(FedAvg):
    """FedAvg, with a mark after every round."""

    def __init__(self, clock: Clock, **options: Any) -> None:
        super().__init__(**options)
        self._mark = clock
        self._bytes = {"upload": 0, "download": 0}
        self._started = 0.0

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        self._bytes["download"] = sum(len(array.data) for array in arrays.values())
        if server_round == 1:
            self._mark.mark({"round": 0})
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        replies = list(replies)
        (record,) = replies[0].content.array_records.values()
        self._bytes["upload"] = sum(len(array.data) for array in record.values())
        return super().aggregate_train(server_round, replies)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> Any:
        replies = list(replies)
        metrics = super().aggregate_evaluate(server_round, replies)
        self._mark.mark(
            {"round": server_round, "seconds": {}, "bytes": self._bytes, "failed": None,
             "participants": len(replies)}
        )  # fmt: skip
        return metrics


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train as the built-in app does, or in the clear."""
    clock = Clock()
    timed: Any = TimedGrid(grid, clock)
    if context.run_config["plain"]:
        plain(timed, RunSettings.of(context.run_config), clock)
        return

    def strategy(*arguments: Any, observer: RunObserver, **options: Any) -> SampledStrategy:
        both = RunObservers(observer, clock)
        return SampledStrategy(*arguments, observer=both, sleep=clock.sleep, **options)

    place: Any = built_in
    place.SampledStrategy = strategy
    built_in.main(timed, context)


def plain(grid: Grid, settings: RunSettings, clock: Clock) -> None:
    """The same clients, data and model under FedAvg."""
    config = settings.configuration()
    weights, _ = first_model(settings, config)
    built_in._wait_for_clients(grid, settings, config, RunObserver())
    everybody = {"min_train_nodes": config.clients, "min_available_nodes": config.clients}
    PlainFedAvg(clock, min_evaluate_nodes=config.clients, **everybody).start(
        grid,
        ArrayRecord({name: Array(tensor) for name, tensor in weights.items()}),
        num_rounds=config.rounds,
        timeout=settings.timeout,
    )
