"""Any federated run in one process: clients take turns, the server sees only their uploads."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from quancrypt_fl.checkpoint import Checkpoint, Checkpoints
from quancrypt_fl.engines.arrangements import arrange
from quancrypt_fl.engines.parties import Client
from quancrypt_fl.engines.task import Task
from quancrypt_fl.errors import CheckpointError, FederatedError, MethodError
from quancrypt_fl.federation_config import FederationConfig
from quancrypt_fl.method.grouped import Groups
from quancrypt_fl.method.groups import by_group
from quancrypt_fl.method.meter import RoundMeter
from quancrypt_fl.method.participation import choose, lose
from quancrypt_fl.method.roles import GlobalState, Tensors
from quancrypt_fl.method.rounds import federated_round
from quancrypt_fl.method.spool import spooled
from quancrypt_fl.method.stopping import EarlyStopping
from quancrypt_fl.method.variances import possible
from quancrypt_fl.observer import Observer
from quancrypt_fl.protect import UNREADABLE, native_environment
from quancrypt_fl.receipts import receipt
from quancrypt_fl.results import results_document, round_record, write_results
from quancrypt_fl.seeds import generator
from quancrypt_fl.training import Evaluation, torch_threads

__all__ = ["FederatedRun"]


class FederatedRun:
    """One federated run, whatever its :class:`~quancrypt_fl.engines.task.Task` is.

    Parameters
    ----------
    config
        What to run, its defaults filled in.
    task
        What is learned.
    resume
        Go on from the last checkpoint in ``config.out``; the result is that of a run that was never
        interrupted. ``rounds`` may be larger than then, so a finished run can be prolonged.
    observer
        Told about progress; see :class:`~quancrypt_fl.observer.Observer`.

    Attributes
    ----------
    config, task
        As given.
    state
        Global state: after :meth:`run`, that of the last round.
    saved_rounds
        Rounds that the last checkpoint holds; 0 if there is none.
    server
        The summing side. It holds public parameters and, within a round, a sum of ciphertexts.
    """

    def __init__(
        self,
        config: FederationConfig,
        task: Task,
        *,
        resume: bool = False,
        observer: Observer | None = None,
    ) -> None:
        self.config = config
        self.task = task
        self._resume = resume
        self._observer = observer or Observer()
        self.state = GlobalState(0, task.weights)
        self._parties = arrange(config, task.weights, task.turns)
        self.server = self._parties.server
        self._clients = [
            Client(
                index,
                part,
                task.trainer,
                self._parties.sides(index),
                task.own_buffers,
                self._observer.client_trained,
            )
            for index, part in enumerate(task.parts)
        ]
        self._stopping = EarlyStopping(config.patience, task.judged_by) if config.patience else None
        self._records: list[dict[str, Any]] = []
        self._keys: list[dict[str, Any]] = []
        self.saved_rounds = 0
        self._begun = False

    @property
    def model(self) -> Tensors:
        """Weights of the result: the last round's, or the best one's with ``patience``."""
        best = self._stopping and self._stopping.best
        return best.weights if best else self.state.weights

    def identity(self) -> dict[str, Any]:
        """What must be equal for this run to go on from another's checkpoint."""
        return {**self.config.identity(), **self.task.fingerprints}

    def run(self) -> dict[str, Any]:
        """Run all rounds that are left and return the document of ``results.json``; once.

        With ``config.out``, also writes ``results.json``, ``plot.png``, the model and a checkpoint
        per round.
        """
        if self._begun:
            raise FederatedError(
                f"this {type(self).__name__} has run; make another one, with resume=True to go on "
                "from a checkpoint"
            )
        self._begun = True
        try:
            return self._run()
        finally:
            self._parties.close()

    def _run(self) -> dict[str, Any]:
        checkpoints = self._checkpoints()
        self._note_key()
        self._parties.check_server()
        self._observer.started(self.config, finished_rounds=self.state.round)
        with torch_threads(self.config.threads or 1):
            self.task.trainer.warm_up()
            while not self._finished():
                self._records.append(self._round())
                if checkpoints:
                    checkpoints.save(self._checkpoint())
                    self.saved_rounds = self.state.round
                self._observer.round_finished(self._records[-1])
            validation = self._final_validation()
        self._parties.check_server()
        parameters, exchanged = self.task.sizes()
        document = results_document(
            self.config,
            self.task.about(),
            self._records,
            final_round=self._final_round(),
            parameters=parameters,
            exchanged=exchanged,
            validation=validation,
            receipt=receipt(self._parties.facts, self._keys, self._records),
            native=native_environment(),
        )
        self._write(document)
        self._observer.finished(document)
        return document

    def _final_validation(self) -> Evaluation:
        best = self._stopping and self._stopping.best
        if best:
            return Evaluation(best.accuracy, best.loss)
        return self._evaluate("validation")

    def _finished(self) -> bool:
        """No round is left, or validation has not improved for long enough."""
        if self.state.round >= self.config.rounds:
            return True
        return self._stopping is not None and self._stopping.should_stop(self.state.round)

    def _final_round(self) -> int:
        best = self._stopping and self._stopping.best
        return best.round if best else self.state.round

    def _round(self) -> dict[str, Any]:
        meter = RoundMeter()
        t, seed = self.state.round, self.config.seed
        chosen = choose(
            len(self._clients), self.config.participants, generator(seed, "participation", t)
        )
        lost = lose(chosen, self.config.dropout, generator(seed, "dropout", t))
        chosen, groups = self._grouped(chosen, t)
        clients = [self._clients[index] for index in chosen]
        self.task.round_begins(t, lambda: self._parts_of_the_mean(clients, lost))
        method = self._parties.method
        if self.task.trained_by:
            method = replace(
                method,
                factors=self._factors(clients, lost),
                report_factors=self._factors(clients, ()),
            )
        self.state = federated_round(
            self.state,
            clients,
            self.server,
            method,
            meter,
            lost=lost,
            min_arrivals=max(self.config.min_arrivals, self._parties.least_arrivals),
            hold=spooled,
            opening=self._parties.opening,
            groups=groups,
        )
        self.state = replace(self.state, weights=possible(self.state.weights))
        with meter.phase("evaluate"):
            test = self._evaluate("test")
        if not math.isfinite(test.loss):
            raise MethodError(f"round {t + 1}: test loss is {test.loss}: training diverged")
        record = round_record(t, method.pruning_rate(t), meter, test)
        record |= self.task.record(test)
        if self._parties.spent:
            spent = self._parties.spent(t + 1)
            record["privacy"] = {"epsilon": spent, "delta": self.config.dp_delta}
        if self._stopping:
            validation = self._evaluate("validation")
            self._stopping.note(
                self.state.round, validation.accuracy, validation.loss, self.state.weights
            )
            record["validation_accuracy"] = validation.accuracy
        return record

    def _grouped(self, chosen: list[int], t: int) -> tuple[list[int], Groups | None]:
        """The participants of a round group by group, where groups are summed apart."""
        if self.config.aggregation == "mean":
            return chosen, None
        draw = generator(self.config.seed, "groups", t)
        parts = by_group(len(chosen), self.config.groups, draw)
        ordered = [chosen[place] for part in parts for place in part]
        return ordered, Groups([len(part) for part in parts], UNREADABLE)

    def _parts_of_the_mean(
        self, clients: Sequence[Client], lost: Collection[int]
    ) -> dict[int, float]:
        """How much each client counts whose update will arrive; see :class:`.Task`."""
        shares = self._parties.method.shares([client.samples for client in clients])
        counted = {
            client.index: share.weight * share.scale
            for client, share in zip(clients, shares, strict=True)
            if client.index not in lost
        }
        total = sum(counted.values())
        return {index: part / total for index, part in counted.items()}

    def _factors(self, clients: Sequence[Client], lost: Collection[int]) -> dict[str, float]:
        """See :attr:`quancrypt_fl.method.fedavg.FedAvg.factors`."""
        parts = self._parts_of_the_mean(clients, lost)
        fewest = max(2, self.config.min_arrivals)  # the mean of one is that one's update
        able = {
            name: [parts[index] for index in sorted(indices) if index in parts]
            for name, indices in self.task.trained_by.items()
        }
        return {n: 1.0 / sum(found) if len(found) >= fewest else 0.0 for n, found in able.items()}

    def _evaluate(self, part: str) -> Evaluation:
        return self.task.evaluate(part, self.state.weights, self._clients)

    def _checkpoint(self) -> Checkpoint:
        return Checkpoint(
            self.state,
            self._records,
            self._keys,
            self._stopping.best if self._stopping else None,
            {client.index: client.memory for client in self._clients},
        )

    def _checkpoints(self) -> Checkpoints | None:
        """Where checkpoints go; with ``resume``, what the last one holds is taken over."""
        if self.config.out is None:
            if self._resume:
                raise CheckpointError("resume = True needs out: the folder with the checkpoints")
            return None
        checkpoints = Checkpoints(self.config.out / "checkpoints", self.identity())
        if not self._resume:
            checkpoints.clear()
            return checkpoints
        last = checkpoints.load()
        done = last.state.round
        if done > self.config.rounds:
            raise CheckpointError(
                f"{self.config.out}: {done} rounds are done already, --rounds is "
                f"{self.config.rounds}; allowed with --resume: {done} or more"
            )
        self.saved_rounds = done
        self.state, self._records, self._keys = last.state, last.records, last.keys
        if self._stopping:
            self._stopping.best = last.best
        for index, memory in last.memories.items():
            if index not in range(len(self._clients)):
                raise CheckpointError(f"{self.config.out}: a checkpoint of client {index}; no such")
            self._clients[index].memory = memory
        return checkpoints

    def _note_key(self) -> None:
        """A fresh key serves from the next round on; no key if no round is left."""
        parties = self._parties
        if parties.key_id is None or self._finished():
            return
        key: dict[str, Any] = {
            "fingerprint": parties.key_id,
            "from_round": self.state.round + 1,
            "ceremony": parties.ceremony,
        }
        if self._parties.method.must_agree(self.state):
            key["reports"] = parties.report_key_id
            key["reports_ceremony"] = parties.report_ceremony
        self._keys.append({name: value for name, value in key.items() if value is not None})

    def _write(self, document: dict[str, Any]) -> None:
        if self.config.out is None:
            return
        from quancrypt_fl.plots import plot_run

        self.config.out.mkdir(parents=True, exist_ok=True)
        self.task.write(self.config.out, self.model)
        write_results(self.config.out / "results.json", document)
        plot_run(document, self.config.out / "plot.png")
