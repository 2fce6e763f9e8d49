"""A federated run in one process: clients take turns, the server sees only what they upload."""

from __future__ import annotations

import math
from typing import Any

from quancrypt_fl.checkpoint import Checkpoint, Checkpoints
from quancrypt_fl.config import QuanCryptConfig
from quancrypt_fl.data import ImageDataset, Samples, load_dataset, split
from quancrypt_fl.engines.parties import Client, Parties, encrypted_parties, plain_parties
from quancrypt_fl.errors import CheckpointError, MethodError
from quancrypt_fl.method.meter import RoundMeter
from quancrypt_fl.method.rounds import GlobalState, federated_round
from quancrypt_fl.observer import Observer
from quancrypt_fl.protect import native_environment
from quancrypt_fl.receipts import encrypted_receipt, plaintext_receipt
from quancrypt_fl.results import results_document, round_record, write_results
from quancrypt_fl.training import Trainer, TrainingOptions, torch_threads

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
        self._trainer = _trainer(self.config, dataset)
        self.state = GlobalState(0, self._trainer.weights())
        self._parties = _parties(self.config, self.state)
        self.server = self._parties.server
        self._clients, self._validation = self._divide(dataset)
        self._test = dataset.test
        self._records: list[dict[str, Any]] = []
        self._keys: list[dict[str, Any]] = []
        self.saved_rounds = 0

    def run(self) -> dict[str, Any]:
        """Run all rounds that are left and return the document of ``results.json``.

        With ``config.out``, also writes ``results.json``, ``plot.png`` and a checkpoint per round.
        """
        checkpoints = self._checkpoints()
        self._note_key()
        self._parties.check_server()
        self._observer.started(self.config, finished_rounds=self.state.round)
        with torch_threads(self.config.threads or 1):
            while self.state.round < self.config.rounds:
                self._records.append(self._round())
                if checkpoints:
                    checkpoints.save(Checkpoint(self.state, self._records, self._keys))
                    self.saved_rounds = self.state.round
                self._observer.round_finished(self._records[-1])
            validation = self._trainer.evaluate(self.state.weights, self._validation)
        self._parties.check_server()
        document = results_document(
            self.config,
            self._records,
            parameters=sum(tensor.size for tensor in self.state.weights.values()),
            validation=validation,
            receipt=self._receipt(),
            native=native_environment(),
        )
        self._write(document)
        self._observer.finished(document)
        return document

    def _round(self) -> dict[str, Any]:
        meter = RoundMeter()
        t = self.state.round
        method = self._parties.method
        self.state = federated_round(self.state, self._clients, self.server, method, meter)
        with meter.phase("evaluate"):
            test = self._trainer.evaluate(self.state.weights, self._test)
        if not math.isfinite(test.loss):
            raise MethodError(f"round {t + 1}: test loss is {test.loss}: training diverged")
        return round_record(t, method.pruning_rate(t), meter, test)

    def _divide(self, dataset: ImageDataset) -> tuple[list[Client], Samples]:
        parts = split(
            dataset.train.labels,
            self.config.clients,
            self.config.partition,
            self.config.seed,
            shards_per_client=self.config.shards_per_client,
            dirichlet_alpha=self.config.dirichlet_alpha,
        )
        clients = [
            Client(
                index,
                dataset.train.take(indices),
                self._trainer,
                self._parties.side(index),
                self._observer.client_trained,
            )
            for index, indices in enumerate(parts.clients)
        ]
        return clients, dataset.train.take(parts.validation)

    def _checkpoints(self) -> Checkpoints | None:
        """Where checkpoints go; with ``resume``, what the last one holds is taken over."""
        if self.config.out is None:
            return None
        checkpoints = Checkpoints(self.config.out / "checkpoints", self.config.identity())
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
        return checkpoints

    def _note_key(self) -> None:
        """A fresh key serves from the next round on; no key if no round is left."""
        key_id = self._parties.key_id
        if key_id is not None and self.state.round < self.config.rounds:
            self._keys.append({"fingerprint": key_id, "from_round": self.state.round + 1})

    def _receipt(self) -> dict[str, Any]:
        if self._parties.key_id is None:
            return plaintext_receipt()
        return encrypted_receipt(self._parties.facts, self._keys, self._records)

    def _write(self, document: dict[str, Any]) -> None:
        if self.config.out is None:
            return
        from quancrypt_fl.plots import plot_run

        self.config.out.mkdir(parents=True, exist_ok=True)
        write_results(self.config.out / "results.json", document)
        plot_run(document, self.config.out / "plot.png")


def _trainer(config: QuanCryptConfig, dataset: ImageDataset) -> Trainer:
    assert config.batch_size is not None
    assert config.local_epochs is not None
    options = TrainingOptions(
        config.lr, config.weight_decay, config.batch_size, config.local_epochs
    )
    return Trainer(config.model, dataset, options, config.seed)


def _parties(config: QuanCryptConfig, state: GlobalState) -> Parties:
    if config.method == "vanilla":
        return plain_parties()
    return encrypted_parties(config, state.weights)
