"""``QuanCryptStrategy``: Flower's FedAvg over updates that the server cannot read."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from logging import INFO
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.common import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Result
from numpy.typing import NDArray

import quancrypt_native as qn
from quancrypt_fl.envelopes import Members
from quancrypt_fl.errors import ConfigError, FederatedError
from quancrypt_fl.flower.chain import agreed_facts, first_link
from quancrypt_fl.flower.history import History
from quancrypt_fl.flower.model import initial_model, model_bytes, model_from_bytes
from quancrypt_fl.flower.observing import RunObserver, RunObservers
from quancrypt_fl.flower.rekeyed_history import KEYS, keys_of
from quancrypt_fl.flower.run_log import RunLog
from quancrypt_fl.flower.training_run import TrainingRun
from quancrypt_fl.joint.ceremony import ceremony_of
from quancrypt_fl.joint.facts import JointFacts
from quancrypt_fl.method.agreement import Agreement
from quancrypt_fl.method.pruning import PruningSchedule

__all__ = ["QuanCryptStrategy"]

_PRUNING = PruningSchedule()

Model = Mapping[str, NDArray[Any]]


class QuanCryptStrategy(FedAvg):
    """Encrypted federated averaging, for clients with ``quancrypt_mod``.

    Uploads are added as they arrive; the sum goes back to the clients, which alone can open it.
    After the initial model the server never holds one, so ``evaluate_fn`` is refused, and
    ``Result.arrays`` holds the final model sealed under the clients' key
    (:func:`quancrypt_fl.flower.open_model`).

    Parameters
    ----------
    params
        Encryption parameters, for the packed encoding and ``key_mode="symmetric"``, or
        ``"threshold"`` with ``joint``; ``bits`` and ``max_weight`` are theirs.
    clip_factor, max_bound, pruning, mask, prune_global, smoothing, weighting, rounding, update,
    error_feedback
        The method; see ``QuanCryptConfig``. ``pruning`` is a schedule, or None.
    turns
        Names of the tensors that travel, for one round after the other and again from the first;
        the others stay as they are in that round. Empty: all travel in every round.
    seed
        Makes clients' stochastic rounding repeatable, by their ``partition-id``.
    key_id
        Fingerprint of the clients' key; without it, that of most clients in the first round.
    members
        Who may reply: a list, or its file, which may change during a training. Each reply must then
        be signed by one of them, for this training, round, key and node
        (:mod:`quancrypt_fl.envelopes`); others are refused before anything of them is parsed. Needs
        ``key_id``. Without it replies are bound to training and round, and not signed.
    state
        Folder of what outlives the server process: encrypted sums, snapshot, ledger. Without it a
        training that is interrupted is lost.
    resume
        Go on with the training in ``state``.
    snapshot_every
        Rounds between two snapshots, from which clients catch up that have lost theirs.
    history_bytes
        Bytes of encrypted sums from which a snapshot is taken earlier.
    min_arrivals
        Uploads below which a round ends without opening the sum: the sum of one is that one's
        update.
    regions
        Nodes that add up the uploads of clients of their own, by node id, with the most clients of
        each: see :class:`quancrypt_fl.flower.region.Region`. Clients must count the same
        (``weighting="uniform"``), without error feedback.
    joint
        With a threshold key, which nobody holds: its public facts, or their file. All clients make
        the key before the first round; ``threshold`` of them open each sum together.
    observer
        Told what happens, beside Flower's log.
    poll
        Seconds between two looks for replies.
    clock, sleep
        Time, for tests.
    **fedavg
        The arguments of :class:`flwr.serverapp.strategy.FedAvg`.

    Attributes
    ----------
    records
        After :meth:`start`: one entry per round, as in ``results.json``.
    keys
        After :meth:`start`: which key of updates served from which round on, as in a receipt; empty
        without ``key_id`` or ``joint``.

    Raises
    ------
    ConfigError
        If the parameters are of another kind, or an argument is out of range.
    """

    def __init__(
        self,
        params: qn.Parameters,
        *,
        clip_factor: float = 3.0,
        max_bound: float | None = None,
        pruning: PruningSchedule | None = _PRUNING,
        mask: str = "shared",
        prune_global: bool = False,
        smoothing: float = 1.0,
        weighting: str = "integer",
        rounding: str = "nearest",
        update: str = "delta",
        error_feedback: bool = False,
        turns: Iterable[Iterable[str]] = (),
        seed: int | None = None,
        key_id: str | None = None,
        members: Members | str | Path | None = None,
        state: str | Path | None = None,
        resume: bool = False,
        snapshot_every: int = 10,
        history_bytes: int = 1 << 30,
        min_arrivals: int = 2,
        regions: Mapping[int, int] | None = None,
        joint: JointFacts | str | Path | None = None,
        observer: RunObserver | None = None,
        poll: float = 0.25,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        **fedavg: Any,
    ) -> None:
        super().__init__(**fedavg)
        self.joint = JointFacts.load(joint) if isinstance(joint, str | Path) else joint
        self.params = _checked(params, self.joint)
        self.agreement = _agreement(
            bits=params.bits,
            max_weight=params.max_weight,
            clip_factor=clip_factor,
            max_bound=max_bound,
            pruning=pruning,
            mask=mask,
            prune_global=prune_global,
            smoothing=smoothing,
            weighting=weighting,
            rounding=rounding,
            update=update,
            error_feedback=error_feedback,
            turns=tuple(tuple(sorted(turn)) for turn in turns),
            seed=seed,
        )
        for name, value in (("snapshot_every", snapshot_every), ("min_arrivals", min_arrivals)):
            if value < 1:
                raise ConfigError(f"{name} = {value}; allowed: 1 or more")
        self.regions = _checked_regions(regions or {}, self.agreement)
        if self.joint is not None and self.regions:
            raise ConfigError("joint with regions; allowed: one of them")
        self.key_id = key_id
        self.members = _checked_members(members, key_id, self.regions)
        self.members_file = Path(members) if isinstance(members, str | Path) else None
        self._state = None if state is None else Path(state)
        self._resume = resume
        self.snapshot_every = snapshot_every
        self._history_bytes = history_bytes
        self.min_arrivals = min_arrivals
        self.observer = RunObservers(RunLog(), *([observer] if observer else []))
        self.poll = poll
        self.clock = clock
        self.sleep = sleep
        self.records: list[dict[str, Any]] = []
        self.keys: list[dict[str, Any]] = []

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Run the training; see :meth:`flwr.serverapp.strategy.Strategy.start`.

        Parameters
        ----------
        timeout
            Seconds for each exchange of messages. Clients that have not answered by then are
            named, and the round goes on without them.
        evaluate_fn
            Must be None: the server has no model to evaluate.

        Raises
        ------
        ConfigError
            If ``evaluate_fn`` is given, or the model has no tensors of floats.
        HistoryError
            If the state folder is not usable, or holds another training.
        FederatedError
            After the last round, if no round of the training succeeded: the model is the initial
            one. ``records`` say why.
        """
        if evaluate_fn is not None:
            raise ConfigError(
                "evaluate_fn needs a model, and the server has none after the initial one; "
                "evaluate on clients (fraction_evaluate), or open the final model with the key"
            )
        model = initial_model(initial_arrays)
        with self._open_history(model) as history:
            run = TrainingRun(self, grid, history, timeout, train_config, evaluate_config)
            try:
                result = run.run(num_rounds)
            except BaseException as error:
                if _is_a_stop(error):
                    self.observer.run_stopped()
                else:
                    self.observer.run_finished(None, str(error) or type(error).__name__)
                raise
            finally:
                self.records = run.records
            self.keys = keys_of(history.read(KEYS), self.key_id)
            if self.joint is not None:
                ceremony = ceremony_of(self.joint, self.params).fingerprint
                self.keys = [{"fingerprint": run.joint_key, "from_round": 1, "ceremony": ceremony}]
            self.observer.run_finished({"rounds": self.records}, None)
            return result

    def summary(self) -> None:
        """Log the strategy's configuration."""
        super().summary()
        log(INFO, "\t└──> Encryption: %s", self.params)
        log(INFO, "\t└──> Method: %s", self.agreement)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Not used: uploads are added one by one as they arrive."""
        raise NotImplementedError("QuanCryptStrategy adds uploads as they arrive, in start()")

    def facts(self) -> dict[str, Any]:
        """What the parties agree on, as JSON has it: it is part of every chain id."""
        return agreed_facts(self.agreement, self.params.fingerprint)

    def _open_history(self, model: Model) -> History:
        facts, initial = self.facts(), model_bytes(model)
        if self._resume and self._state is not None and History.exists(self._state):
            history = History.resume(self._state, limit_bytes=self._history_bytes)
            try:
                _require_same(history, facts, model)
            except FederatedError:
                history.close()
                raise
            return history
        training = secrets.token_hex(16)
        return History.begin(
            self._state,
            training=training,
            facts=facts,
            chain=first_link(training, facts, model),
            initial=initial,
            limit_bytes=self._history_bytes,
        )


def _is_a_stop(error: BaseException) -> bool:
    """Whether somebody stopped the run: Flower lets its ServerApp exit then, with status 0."""
    return isinstance(error, KeyboardInterrupt) or (
        isinstance(error, SystemExit) and not error.code
    )


def _require_same(history: History, facts: Mapping[str, Any], model: Model) -> None:
    """The same choices and tensors; a ServerApp that starts again may make other initial values."""
    history.require(facts=facts)
    before = model_from_bytes(history.initial)
    for name in sorted({*before, *model}):
        then, now = (
            f"{m[name].dtype} {m[name].shape}" if name in m else "absent" for m in (before, model)
        )
        if then != now:
            raise ConfigError(
                f"the training to resume has another model: {name!r} was {then}, it is {now}"
            )
    if list(before) != list(model):
        raise ConfigError("the training to resume has the model's tensors in another order")


def _checked(params: qn.Parameters, joint: JointFacts | None) -> qn.Parameters:
    if not isinstance(params, qn.Parameters):
        raise ConfigError(
            f"params is a {type(params).__name__}; allowed: quancrypt_native.Parameters"
        )
    mode = "symmetric" if joint is None else "threshold"
    if params.encoding != "packed" or params.key_mode != mode:
        raise ConfigError(
            f"params are for the {params.encoding} encoding and key_mode {params.key_mode!r}; "
            f"allowed: Parameters.for_aggregation(..., key_mode='symmetric'), or 'threshold' with "
            "joint="
        )
    if joint is not None:
        ceremony_of(joint, params)  # as many parties as the parameters are for
    return params


def _checked_regions(regions: Mapping[int, int], agreement: Agreement) -> dict[int, int]:
    if not regions:
        return {}
    if agreement.weighting != "uniform" or agreement.error_feedback:
        raise ConfigError(
            f"regions with weighting={agreement.weighting!r}, "
            f"error_feedback={agreement.error_feedback}; allowed: 'uniform', False"
        )
    total = sum(regions.values())
    if min(regions.values()) < 1 or total > agreement.max_weight:
        raise ConfigError(
            f"regions of {sorted(regions.values())} clients, {total} in all; allowed: at least 1 "
            f"each, and max_weight = {agreement.max_weight} in all"
        )
    return dict(regions)


def _checked_members(
    members: Members | str | Path | None, key_id: str | None, regions: Mapping[int, int]
) -> Members | None:
    if members is None:
        return None
    if key_id is None:
        raise ConfigError("members without key_id; their envelopes are bound to the clients' key")
    if regions:
        raise ConfigError("members with regions; allowed: one of them, for regions do not sign")
    return members if isinstance(members, Members) else Members.load(members)


def _agreement(**choices: Any) -> Agreement:
    from pydantic import ValidationError

    from quancrypt_fl.config import describe_errors

    try:
        return Agreement(**choices)
    except ValidationError as error:
        raise ConfigError(describe_errors(error)) from None
