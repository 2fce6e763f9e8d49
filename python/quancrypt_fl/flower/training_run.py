"""A training from the first round to the last, as the server runs it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result

from quancrypt_fl.errors import ConfigError, FederatedError
from quancrypt_fl.flower.ceremony import NOTE, CeremonyRun, Reasons
from quancrypt_fl.flower.chain import digest, next_link
from quancrypt_fl.flower.collector import Collector
from quancrypt_fl.flower.exchanges import Exchanges
from quancrypt_fl.flower.history import History, RoundSum
from quancrypt_fl.flower.model import model_from_bytes
from quancrypt_fl.flower.nodes import NodeBook
from quancrypt_fl.flower.observing import RunObservers
from quancrypt_fl.flower.opening import JointKey, was_opening
from quancrypt_fl.flower.outcome import Outcome
from quancrypt_fl.flower.records import deployed_record, with_evaluation
from quancrypt_fl.flower.reply_gate import ReplyGate
from quancrypt_fl.flower.requests import Writer
from quancrypt_fl.flower.server_round import ServerRound, averaged
from quancrypt_fl.joint.ceremony import ceremony_of

if TYPE_CHECKING:
    from quancrypt_fl.flower.strategy import QuanCryptStrategy

__all__ = ["SNAPSHOT", "TrainingRun"]

SNAPSHOT = "quancrypt.snapshot"
"""Name of the array in ``Result.arrays`` that holds the final model, sealed by a client."""


class TrainingRun:
    """One call of ``start``: rounds, evaluations, and the end."""

    def __init__(
        self,
        strategy: QuanCryptStrategy,
        grid: Grid,
        history: History,
        timeout: float,
        train_config: ConfigRecord | None,
        evaluate_config: ConfigRecord | None,
    ) -> None:
        self._s = strategy
        self._grid = grid
        self._history = history
        self._train_config = train_config or ConfigRecord()
        self._evaluate_config = evaluate_config or ConfigRecord()
        self._reasons = Reasons()
        self._observer = RunObservers(strategy.observer, self._reasons)
        noted = history.read("nodes")
        self._book = NodeBook.from_document(noted) if noted else NodeBook()
        if strategy.key_id and self._book.key_id not in (None, strategy.key_id):
            raise ConfigError(
                f"the training to resume is under the key {self._book.key_id}, not "
                f"{strategy.key_id}"
            )
        self._book.key_id = strategy.key_id or self._book.key_id
        for record in history.records[-1:]:
            self._book.count(record)  # the note is from before that round's end
        model = model_from_bytes(history.initial)
        floats = {name: tensor for name, tensor in model.items() if tensor.dtype.kind == "f"}
        self._gate: ReplyGate | None = None
        if strategy.members is not None and strategy.key_id is not None:
            self._gate = ReplyGate(
                strategy.members,
                training=history.training,
                params=strategy.params.fingerprint,
                key_id=strategy.key_id,
                source=strategy.members_file,
            )
        joint = strategy.joint
        self._ceremony = None if joint is None else ceremony_of(joint, strategy.params)
        self._timeout = timeout
        self._exchanges = exchanges = Exchanges(
            history=history,
            book=self._book,
            writer=Writer(
                history,
                strategy.params,
                strategy.agreement,
                model,
                arrays_key=strategy.arrayrecord_key,
                config_key=strategy.configrecord_key,
                count_key=strategy.weighted_by_key,
                regions=strategy.regions,
                key_id=strategy.key_id,
                ceremony=None if self._ceremony is None else self._ceremony.fingerprint,
            ),
            collector=Collector(
                grid,
                self._observer,
                self._book.name,
                poll=strategy.poll,
                clock=strategy.clock,
                sleep=strategy.sleep,
            ),
            observer=self._observer,
            params=strategy.params.fingerprint,
            timeout=timeout,
            gate=self._gate,
        )
        self._round = ServerRound(
            history=history,
            book=self._book,
            exchanges=exchanges,
            observer=self._observer,
            params=strategy.params,
            agreement=strategy.agreement,
            shapes={name: tensor.shape for name, tensor in floats.items()},
            min_arrivals=strategy.min_arrivals,
            key_id=strategy.key_id,
            count_key=strategy.weighted_by_key,
            regions=strategy.regions,
        )
        self._result = Result()
        self.joint_key: str | None = None

    @property
    def records(self) -> list[dict[str, Any]]:
        """Records of the finished rounds, with their evaluations."""
        return self._history.records

    def run(self, num_rounds: int) -> Result:
        history = self._history
        self._observer.run_started(
            training=history.training,
            rounds=num_rounds,
            finished=history.finished,
            facts=self._s.facts(),
        )
        self._have_joint_key()
        if history.finished and "metrics" not in history.records[-1]:
            self._evaluate()  # the server was stopped between a sum and its evaluation
        if history.finished < num_rounds and was_opening(history):
            self._give_up_round()
            self._evaluate()
        while history.finished < num_rounds:
            self._one_round()
            self._evaluate()
        self._require_success()
        self._finish()
        return self._result

    def _have_joint_key(self) -> None:
        """With a joint key: that of the training, or one that the clients make now."""
        joint, ceremony, history = self._s.joint, self._ceremony, self._history
        if joint is None or ceremony is None:
            return
        noted = history.read(NOTE)
        if noted is None:
            key_id = CeremonyRun(
                self._grid,
                self._exchanges,
                self._reasons,
                joint,
                ceremony,
                self._train_config,
                self._timeout,
                self._s.poll,
                self._s.clock,
                self._s.sleep,
            ).complete()
            history.note("nodes", self._book.to_document())
            history.note(NOTE, {"ceremony": ceremony.fingerprint, "key": key_id})
        elif noted["ceremony"] != ceremony.fingerprint:
            raise ConfigError(
                f"the training to resume has the joint key of the ceremony {noted['ceremony']}, "
                f"not of {ceremony.fingerprint}: it needs the kits with which it began"
            )
        else:
            key_id = noted["key"]
        self.joint_key = key_id
        self._exchanges.writer.joint_key = key_id
        self._round.joint = JointKey(key_id, joint.threshold, self._connected)

    def _connected(self) -> set[int]:
        """Nodes that are there now; none while the SuperLink is out of reach."""
        try:
            return set(self._grid.get_node_ids())
        except (httpx.HTTPError, OSError):
            return set()

    def _require_success(self) -> None:
        records = self._history.records
        if records and all(record["failed"] for record in records):
            raise FederatedError(
                f"no round succeeded: {len(records)} of {len(records)} failed, the last one: "
                f"{records[-1]['failed']}"
            )

    # --- a round ---

    def _one_round(self) -> None:
        t, started = self._history.finished, time.perf_counter()
        nodes, config = self._asked(self._s.configure_train, self._train_config)
        nodes = self._as_many_as_may(nodes)
        self._observer.round_started(
            round=t + 1, asked={node: self._book.name(node) for node in nodes}
        )
        due = self._history.wants_snapshot(self._s.snapshot_every)
        outcome = self._round.run(
            nodes, config, snapshot_from=nodes[t % len(nodes)] if due else None
        )
        self._close(outcome, nodes, time.perf_counter() - started)

    def _give_up_round(self) -> None:
        """End a round without a sum: one of it may have been opened, and any other would differ."""
        t = self._history.finished
        self._observer.round_started(round=t + 1, asked={})
        reason = "the server was stopped while clients opened the sum of this round"
        self._close(Outcome(failed=reason), [], 0.0)

    def _as_many_as_may(self, nodes: list[int]) -> list[int]:
        """All nodes; of those who joined beyond what the parameters allow, some in each round."""
        most = self._s.params.max_weight
        clients = sum(self._s.regions.get(node, 1) for node in nodes)
        if clients <= most:
            return nodes
        text = (
            f"{clients} clients in a round; the encryption parameters allow a total weight "
            f"of {most}, and each counts at least 1"
        )
        if not self._history.finished or self._s.regions:
            raise ConfigError(text)
        self._observer.note(f"{text}: {most} of them, chosen at random, take part")
        return sorted(random.sample(nodes, most))

    def _close(self, outcome: Outcome, nodes: list[int], seconds: float) -> None:
        history, t, total = self._history, self._history.finished, outcome.total
        if outcome.snapshot is not None:
            history.keep_snapshot(t, history.chain, outcome.snapshot)
        sums = outcome.sums()
        sum_digest = digest(sums) if sums else ""
        weight = total.weight if total else 0
        link = RoundSum(
            round=t,
            chain=next_link(
                history.chain,
                round=t,
                weight=weight,
                scale=outcome.scale,
                sum_digest=sum_digest,
            ),
            weight=weight,
            scale=outcome.scale,
            size=len(sums),
            digest=sum_digest,
            failed=outcome.failed,
        )
        record = deployed_record(
            t, self._round.method.pruning_rate(t), outcome, self._book, len(nodes), seconds
        )
        if self._gate is not None:
            record["envelopes"] = {
                "members": self._gate.members.fingerprint,
                "refused": self._gate.newly_refused(),
            }
        history.note("nodes", self._book.to_document())
        history.append(link, sums, record)
        self._book.count(record)
        metrics = averaged(
            {node: answer.metrics for node, answer in outcome.answers.items()},
            self._s.train_metrics_aggr_fn,
            self._s.weighted_by_key,
        )
        if metrics is not None:
            self._result.train_metrics_clientapp[t + 1] = metrics

    def _evaluate(self) -> None:
        """Clients evaluate the model after the round; the server learns their metrics."""
        t, started = self._history.finished - 1, time.perf_counter()
        nodes, config = self._asked(self._s.configure_evaluate, self._evaluate_config)
        metrics = None
        if nodes:
            replies = self._round.evaluate(nodes, config)
            metrics = averaged(replies, self._s.evaluate_metrics_aggr_fn, self._s.weighted_by_key)
        if metrics is not None:
            self._result.evaluate_metrics_clientapp[t + 1] = metrics
        record = with_evaluation(
            self._history.records[t],
            metrics,
            time.perf_counter() - started,
            self._round.evaluation_seconds if nodes else {},
        )
        self._history.amend(t, record)
        self._history.note("nodes", self._book.to_document())
        self._observer.round_finished(record)

    def _finish(self) -> None:
        """Every client holds the final model; one of them seals it for the result."""
        nodes = sorted(self._grid.get_node_ids())
        sealed = self._round.finish(nodes, self._train_config)
        self._history.note("nodes", self._book.to_document())
        if sealed is None:
            self._observer.note("no client sealed the final model: Result.arrays is empty")
            return
        self._history.keep_snapshot(self._history.finished, self._history.chain, sealed)
        self._result.arrays = ArrayRecord({SNAPSHOT: Array(np.frombuffer(sealed, dtype=np.uint8))})

    def _asked(
        self, configure: Callable[..., Iterable[Message]], config: ConfigRecord
    ) -> tuple[list[int], ConfigRecord]:
        """Nodes and configuration, as FedAvg (or a subclass of ours) chooses them."""
        number = self._history.finished + (1 if configure == self._s.configure_train else 0)
        messages = list(configure(number, ArrayRecord(), config, self._grid))
        if messages:
            config = messages[0].content.config_records.get(self._s.configrecord_key, config)
        return sorted(message.metadata.dst_node_id for message in messages), config
