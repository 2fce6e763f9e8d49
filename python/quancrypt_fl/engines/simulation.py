"""A federated run in one process: clients take turns, the server sees only what they upload."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from typing import Any

import numpy as np

from quancrypt_fl.atomic_files import write_atomically
from quancrypt_fl.checkpoint import Checkpoint, Checkpoints
from quancrypt_fl.config import QuanCryptConfig
from quancrypt_fl.data import ImageDataset, Samples, load_dataset, split
from quancrypt_fl.engines.arrangements import arrange
from quancrypt_fl.engines.parties import Client
from quancrypt_fl.errors import CheckpointError, FederatedError, MethodError
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
from quancrypt_fl.training import Evaluation, torch_threads, trainer_of

__all__ = ["Simulation"]


class Simulation:
    """One federated run.

    Parameters
    ----------
    config
        What to run.
    resume
        Go on from the last checkpoint in ``config.out``; the result is that of a run that was never
        interrupted. ``rounds`` may be larger than then, so a finished run can be prolonged.
    observer
        Told about progress; see :class:`~quancrypt_fl.observer.Observer`.

    Attributes
    ----------
    config
        The configuration with its defaults filled in.
    state
        Global state: after :meth:`run`, that of the last round.
    saved_rounds
        Rounds that the last checkpoint holds; 0 if there is none.
    server
        The summing side. It holds public parameters and, within a round, a sum of ciphertexts.

    Examples
    --------
    >>> from quancrypt_fl import QuanCryptConfig, Simulation
    >>> results = Simulation(QuanCryptConfig(dataset="digits", rounds=1)).run()
    >>> results["receipt"]["aggregator_held_secret_key"]
    False
    """

    def __init__(
        self, config: QuanCryptConfig, *, resume: bool = False, observer: Observer | None = None
    ) -> None:
        self.config = config.resolved()
        self._resume = resume
        self._observer = observer or Observer()
        dataset = load_dataset(self.config.dataset, self.config.data_dir, self.config.seed)
        dataset = dataset.limited(self.config.max_train_samples, self.config.max_test_samples)
        self._trainer = trainer_of(self.config, dataset)
        weights = self._trainer.weights()
        local = self._trainer.buffer_names if self.config.batch_norm == "local" else frozenset()
        self._own_buffers: Tensors = {name: weights.pop(name) for name in sorted(local)}
        self.state = GlobalState(0, weights)
        self._parties = arrange(self.config, weights)
        self.server = self._parties.server
        self._clients, self._validation = self._divide(dataset)
        self._test, self._data = dataset.test, _fingerprint(dataset)
        self._stopping = EarlyStopping(self.config.patience) if self.config.patience else None
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
        return {**self.config.identity(), "data": self._data}

    def run(self) -> dict[str, Any]:
        """Run all rounds that are left and return the document of ``results.json``; once.

        With ``config.out``, also writes ``results.json``, ``plot.png``, ``model.safetensors`` and a
        checkpoint per round.
        """
        if self._begun:
            raise FederatedError(
                "this Simulation has run; make another one, with resume=True to go on from a "
                "checkpoint"
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
            self._trainer.warm_up()
            while not self._finished():
                self._records.append(self._round())
                if checkpoints:
                    checkpoints.save(self._checkpoint())
                    self.saved_rounds = self.state.round
                self._observer.round_finished(self._records[-1])
            validation = self._final_validation()
        self._parties.check_server()
        document = results_document(
            self.config,
            self._records,
            final_round=self._final_round(),
            parameters=sum(tensor.size for tensor in self._trainer.weights().values()),
            exchanged=sum(tensor.size for tensor in self.state.weights.values()),
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
        return self._evaluate(self.state.weights, self._validation)

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
        method = self._parties.method
        chosen = choose(
            len(self._clients), self.config.participants, generator(seed, "participation", t)
        )
        lost = lose(chosen, self.config.dropout, generator(seed, "dropout", t))
        chosen, groups = self._grouped(chosen, t)
        self.state = federated_round(
            self.state,
            [self._clients[index] for index in chosen],
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
            test = self._evaluate(self.state.weights, self._test)
        if not math.isfinite(test.loss):
            raise MethodError(f"round {t + 1}: test loss is {test.loss}: training diverged")
        record = round_record(t, method.pruning_rate(t), meter, test)
        if self._parties.spent:
            spent = self._parties.spent(t + 1)
            record["privacy"] = {"epsilon": spent, "delta": self.config.dp_delta}
        if self._stopping:
            validation = self._evaluate(self.state.weights, self._validation)
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

    def _evaluate(self, weights: Tensors, samples: Samples) -> Evaluation:
        """Evaluate global weights. Where clients keep their own batch-norm statistics, each of them
        evaluates every so manieth sample.
        """
        if not self._own_buffers:
            return self._trainer.evaluate(weights, samples)
        correct = loss = 0.0
        step = min(len(self._clients), len(samples))
        for client in self._clients[:step]:
            part = samples.take(np.arange(client.index, len(samples), step))
            evaluation = self._trainer.evaluate(client.model(weights), part)
            correct += evaluation.accuracy * len(part)
            loss += evaluation.loss * len(part)
        return Evaluation(correct / len(samples), loss / len(samples))

    def _divide(self, dataset: ImageDataset) -> tuple[list[Client], Samples]:
        parts = split(
            dataset.train.labels,
            self.config.clients,
            self.config.partition,
            self.config.seed,
            shards_per_client=self.config.shards_per_client,
            dirichlet_alpha=self.config.dirichlet_alpha,
            groups=dataset.train.groups,
        )
        clients = [
            Client(
                index,
                dataset.train.take(indices),
                self._trainer,
                self._parties.sides(index),
                self._own_buffers,
                self._observer.client_trained,
            )
            for index, indices in enumerate(parts.clients)
        ]
        return clients, dataset.train.take(parts.validation)

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
        if self.state.bounds is None:
            key["reports"] = parties.report_key_id
            key["reports_ceremony"] = parties.report_ceremony
        self._keys.append({name: value for name, value in key.items() if value is not None})

    def _write(self, document: dict[str, Any]) -> None:
        if self.config.out is None:
            return
        from safetensors.numpy import save

        from quancrypt_fl.plots import plot_run

        self.config.out.mkdir(parents=True, exist_ok=True)
        write_atomically(self.config.out / "model.safetensors", save(dict(self.model)))
        write_results(self.config.out / "results.json", document)
        plot_run(document, self.config.out / "plot.png")


def _fingerprint(dataset: ImageDataset) -> str:
    """Of sizes and labels: other files under the same name would be split in another way."""
    digest = hashlib.sha256()
    for part in (dataset.train, dataset.test):
        digest.update(repr(part.images.shape).encode())
        digest.update(np.ascontiguousarray(part.labels).tobytes())
    return digest.hexdigest()
