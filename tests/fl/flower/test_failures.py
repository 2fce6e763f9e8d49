"""Clients and disks that fail: the round goes on with the others, or fails with a reason."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord
from flwr.clientapp.typing import ClientAppCallable
from tests.fl.flower import hostile
from tests.fl.flower.fake_clock import FakeClock
from tests.fl.flower.faults import (
    Damage,
    FailAt,
    Hang,
    Kill,
    KillAt,
    Lose,
    Raises,
    Repeat,
    killing,
)
from tests.fl.flower.federation import (
    NO_EVALUATION,
    NODES,
    TIMEOUT,
    Federation,
    Reference,
    assert_equal,
    final,
)

import quancrypt_native as qn
from quancrypt_fl.errors import ConfigError, FederatedError
from quancrypt_fl.flower.client import ClientRound
from quancrypt_fl.flower.history import HistoryError
from quancrypt_fl.flower.history_files import Folder
from quancrypt_fl.flower.ledger import Ledger, Total
from quancrypt_fl.flower.status import StatusFile
from quancrypt_fl.flower.stores import FolderStore
from quancrypt_fl.flower.training_run import TrainingRun
from quancrypt_fl.protect import Protector
from quancrypt_fl.watching.source import StatusSource

VICTIM = 13
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def one_is_missing(federation: Federation, keys: qn.KeyPair, result: Any, **choices: Any) -> None:
    """The victim is not in round 2, and all is as if its update had been lost."""
    in_sum = [VICTIM in federation.counted(record) for record in federation.last.records]
    assert in_sum == [True, False, True]
    model = final(result, keys)
    assert_equal(model, federation.expected(**choices))
    lost = {1: {federation.index(VICTIM)}}
    assert_equal(model, Reference(federation.params, **choices).train(lost=lost))
    assert max(federation.trained.values()) == 1


CLIENT_DEATHS: dict[str, Callable[[], Any]] = {
    "before": lambda: Kill("before"),
    "after": lambda: Kill("after"),
    "training": lambda: KillAt(ClientRound, "train"),
    "trained": lambda: KillAt(ClientRound, "train", at="after"),
    "keeping": lambda: KillAt(FolderStore, "keep_pending"),
    "holding": lambda: KillAt(FolderStore, "hold"),
    "held": lambda: KillAt(FolderStore, "hold", at="after"),
    "encrypting": lambda: KillAt(Protector, "protect"),
    "encrypted": lambda: KillAt(Protector, "protect", at="after"),
    "opening": lambda: KillAt(Protector, "unprotect", at="after"),
    "replacing": lambda: KillAt(Path, "replace"),
    "replaced": lambda: KillAt(Path, "replace", at="after"),
}


@pytest.mark.parametrize("choices", [{}, {"error_feedback": True}], ids=["", "feedback"])
@pytest.mark.parametrize("death", CLIENT_DEATHS)
def test_a_client_that_dies(
    federation: Federation, keys: qn.KeyPair, death: str, choices: dict[str, Any]
) -> None:
    fault = federation.grid.inject(CLIENT_DEATHS[death](), node=VICTIM, round=1, asks="upload")
    result = federation.train(**choices, **NO_EVALUATION)
    assert fault.fired
    one_is_missing(federation, keys, result, **choices)
    ((number, phase, node, reason),) = federation.watcher.losses
    assert (number, phase, node) == (2, "train+upload", VICTIM)
    assert reason == f"no answer within {TIMEOUT:g} s"


@pytest.mark.parametrize("death", ["training", "encrypting", "replaced"])
def test_a_client_that_dies_in_the_first_round(
    federation: Federation, keys: qn.KeyPair, death: str
) -> None:
    """Bounds are agreed on among those who reported."""
    federation.grid.inject(CLIENT_DEATHS[death](), node=VICTIM, round=0, times=1)
    result = federation.train(**NO_EVALUATION)
    assert [r["participants"] for r in federation.last.records] == [4, 5, 5]
    assert_equal(final(result, keys), federation.expected())


def test_a_client_that_dies_between_report_and_upload(
    federation: Federation, keys: qn.KeyPair
) -> None:
    federation.grid.inject(Kill("before"), node=VICTIM, round=0, asks="upload")
    result = federation.train(**NO_EVALUATION)
    assert [r["participants"] for r in federation.last.records] == [4, 5, 5]
    assert_equal(final(result, keys), Reference(federation.params).train(lost={0: {2}}))


def test_a_client_that_hangs_is_named(federation: Federation, keys: qn.KeyPair) -> None:
    federation.grid.inject(Hang(), node=VICTIM, round=1, times=1)
    start = federation.clock()
    result = federation.train(**NO_EVALUATION)
    one_is_missing(federation, keys, result)
    assert federation.watcher.losses == [
        (2, "train+upload", VICTIM, f"no answer within {TIMEOUT:g} s")
    ]
    assert federation.watcher.texts.count("client-3") >= 1
    assert TIMEOUT <= federation.clock() - start < 2 * TIMEOUT


def test_a_late_upload_is_ignored(
    params: qn.Parameters, keys: qn.KeyPair, key_file: Path, tmp_path: Path, fast_disk: None
) -> None:
    """It arrives in the middle of the next round, and counts for nothing."""
    seconds = dict.fromkeys(NODES, 1.0)
    federation = Federation(
        params, key_file, tmp_path, clock=FakeClock(), grid_options={"seconds": seconds}
    )
    federation.grid.inject(Hang(seconds=TIMEOUT), node=VICTIM, round=1, times=1)
    result = federation.train(error_feedback=True, **NO_EVALUATION)
    one_is_missing(federation, keys, result, error_feedback=True)
    assert federation.watcher.ignorings == [(3, VICTIM, "late: the time for it is over")]


@pytest.mark.parametrize("how", ["together", "later", "rerun"])
def test_a_repeated_upload_is_ignored(federation: Federation, keys: qn.KeyPair, how: Any) -> None:
    fault = federation.grid.inject(Repeat(how), node=VICTIM, asks="upload")
    result = federation.train(**NO_EVALUATION)
    assert fault.fired == 3
    assert_equal(final(result, keys), Reference(federation.params).train())
    assert [r["participants"] for r in federation.last.records] == [5, 5, 5]
    told = [text for _, node, text in federation.watcher.ignorings if node == VICTIM]
    assert told
    assert set(told) == {"repeated: it has answered already"}
    assert max(federation.trained.values()) == 1


def test_an_app_that_raises_is_named(federation: Federation, keys: qn.KeyPair) -> None:
    error = RuntimeError("no data on\nthis \x1b[31mmachine")
    federation.grid.inject(Raises(error), node=VICTIM, round=1)
    result = federation.train(**NO_EVALUATION)
    one_is_missing(federation, keys, result)
    (reason,) = federation.watcher.reasons(VICTIM)
    assert "machine" in reason
    assert reason.isprintable()


@pytest.mark.parametrize("call", range(1, 5))
def test_a_full_disk_at_a_client(
    federation: Federation, keys: qn.KeyPair, tmp_path: Path, call: int
) -> None:
    """Whatever it cannot write: it says so, with the folder, and the next round has it again."""
    fault = FailAt(Path, "replace", FULL, call=1)
    if call > 1:
        fault = FailAt(os, "fsync", FULL, call=call)
    federation.grid.inject(fault, node=VICTIM, round=1, times=1)
    result = federation.train(**NO_EVALUATION)
    one_is_missing(federation, keys, result)
    (reason,) = federation.watcher.reasons(VICTIM)
    assert "no space left for the client's state" in reason
    assert str(federation.state_of(VICTIM)) in reason


@pytest.mark.parametrize("attribute", ["write", "extend", "sync"])
@pytest.mark.parametrize("nth", [1, 4])
def test_a_full_disk_at_the_server(
    federation: Federation, keys: qn.KeyPair, tmp_path: Path, attribute: str, nth: int
) -> None:
    """The training ends with an error that names the place; with room again it goes on."""
    error = HistoryError(f"{tmp_path / 'server'}: no space left on the disk")
    options = {"state": tmp_path / "server", "resume": True, **NO_EVALUATION}
    with (
        killing(Folder, attribute, call=nth, error=error),
        pytest.raises(HistoryError, match="no space left"),
    ):
        federation.train(**options)
    # Where not even the beginning could be written, there was no training to tell of.
    began = nth > 1 or attribute == "extend"
    assert ["no space left" in str(e) for e in federation.watcher.errors] == [True] * began
    federation.grid.new_run()
    result = federation.train(**options)
    assert_equal(final(result, keys), Reference(federation.params).train())
    assert max(federation.trained.values()) == 1


@pytest.mark.parametrize("what", ["request", "reply"])
def test_a_lost_message(federation: Federation, keys: qn.KeyPair, what: Any) -> None:
    federation.grid.inject(Lose(what), node=VICTIM, round=1)
    result = federation.train(**NO_EVALUATION)
    one_is_missing(federation, keys, result)


def test_a_connection_lost_in_mid_message(federation: Federation, keys: qn.KeyPair) -> None:
    """Parts of the reply never reached the SuperLink: the client is asked again."""
    federation.grid.inject(Damage(hostile.refused()), node=VICTIM, round=1, times=1)
    result = federation.train(error_feedback=True, **NO_EVALUATION)
    assert_equal(final(result, keys), Reference(federation.params, error_feedback=True).train())
    assert any("client-3 is asked again" in note for note in federation.watcher.notes)
    assert max(federation.trained.values()) == 1


@pytest.mark.parametrize(
    "error", [httpx.ConnectError("down"), ConnectionResetError("reset"), httpx.ReadTimeout("slow")]
)
def test_a_superlink_that_does_not_answer_for_a_while(
    federation: Federation, keys: qn.KeyPair, error: Exception
) -> None:
    for nth in (2, 9, 14):
        federation.grid.break_connection("pull_messages", error, nth=nth)
    result = federation.train(**NO_EVALUATION)
    assert_equal(final(result, keys), Reference(federation.params).train())
    assert (
        federation.watcher.notes.count(
            f"the SuperLink does not answer ({type(error).__name__}); trying again"
        )
        == 3
    )


def test_a_node_that_leaves_for_good(federation: Federation, keys: qn.KeyPair) -> None:
    federation.grid.inject(Kill("before", comes_back=False), node=VICTIM, round=1)
    result = federation.train(4, **NO_EVALUATION)
    assert [VICTIM in federation.counted(r) for r in federation.last.records] == [
        True,
        False,
        False,
        False,
    ]
    assert_equal(final(result, keys), federation.expected())
    ((_, _, node, reason),) = federation.watcher.losses
    assert node == VICTIM
    assert reason.startswith("error 5")


@pytest.mark.parametrize("round", [0, 1])
def test_too_few_arrivals(federation: Federation, keys: qn.KeyPair, round: int) -> None:
    """One upload is opened by nobody; the round says why, and the next one is as ever."""
    for node in NODES[1:]:
        federation.grid.inject(Lose("reply"), node=node, round=round, asks="upload")
    result = federation.train(error_feedback=True, **NO_EVALUATION)
    assert list(federation.failed) == [round + 1]
    assert federation.failed[round + 1] == (
        f"1 clients answered ({'upload' if round == 0 else 'train+upload'}); allowed: 2 or more"
    )
    assert federation.last.records[round]["weight"] == 0
    assert_equal(final(result, keys), federation.expected(error_feedback=True))


def test_as_many_as_are_asked_for(federation: Federation, keys: qn.KeyPair) -> None:
    federation.grid.inject(Lose("reply"), node=VICTIM, round=1)
    result = federation.train(min_arrivals=5, **NO_EVALUATION)
    assert list(federation.failed) == [2]
    assert "4 clients" in federation.failed[2]
    assert_equal(final(result, keys), federation.expected())


def test_nobody_ever_answers(federation: Federation) -> None:
    """Each round fails with a reason, and the training with them: Flower's run fails."""
    for node in NODES:
        federation.grid.inject(Raises(), node=node)
    with pytest.raises(FederatedError, match=r"no round succeeded: 2 of 2 failed, .*0 clients"):
        federation.train(2)
    assert set(federation.failed) == {1, 2}


def test_a_training_of_which_a_round_succeeds_is_no_failure(federation: Federation) -> None:
    for node in NODES:
        federation.grid.inject(Raises(), node=node, round=1)
    federation.train(2, **NO_EVALUATION)
    assert set(federation.failed) == {2}


@pytest.mark.parametrize("end", [SystemExit(0), KeyboardInterrupt()])
def test_a_run_that_is_stopped_has_not_failed(
    federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: BaseException
) -> None:
    """Flower lets a ServerApp exit when somebody stops its run."""
    real = TrainingRun._one_round

    def one_round(run: TrainingRun) -> None:
        if len(run.records) == 2:
            raise end
        real(run)

    monkeypatch.setattr(TrainingRun, "_one_round", one_round)
    with pytest.raises(type(end)):
        federation.train(6, observer=StatusFile(tmp_path / "status"), **NO_EVALUATION)
    status = StatusSource(tmp_path / "status").read()
    assert status is not None
    assert status.over
    assert status.error is None
    assert status.heading() == "Stopped after 2 of 6 rounds; go on with quancrypt run --resume"


@pytest.mark.parametrize("weighting", ["integer", "prescaled", "uniform"])
def test_weights_with_lost_clients(
    federation: Federation, keys: qn.KeyPair, weighting: str
) -> None:
    choices = {"weighting": weighting, "error_feedback": True}
    for node, number in ((11, 0), (13, 1), (14, 1), (12, 2)):
        federation.grid.inject(Kill("before"), node=node, round=number, asks="upload")
    result = federation.train(4, **choices, **NO_EVALUATION)
    lost = {0: {0}, 1: {2, 3}, 2: {1}}
    assert_equal(final(result, keys), Reference(federation.params, **choices).train(4, lost=lost))


def test_the_residual_counts_only_with_the_upload(federation: Federation, keys: qn.KeyPair) -> None:
    """Lost on the way, lost with the round, counted but the reply to it lost: each as it was."""
    choices = {"error_feedback": True, "weighting": "integer"}
    grid = federation.grid
    grid.inject(Lose("reply"), node=VICTIM, round=1, asks="upload")
    for node in NODES[:4]:
        grid.inject(Lose("reply"), node=node, round=2, asks="upload")
    grid.inject(KillAt(FolderStore, "remember"), node=VICTIM, round=4)
    grid.inject(KillAt(FolderStore, "remember", at="after"), node=14, round=4)
    result = federation.train(6, **choices, **NO_EVALUATION)
    assert list(federation.failed) == [3]
    assert_equal(final(result, keys), federation.expected(**choices))


class WrongLedger:
    """A ledger that loses count."""

    def __init__(self, round: int) -> None:
        self.round, self.closed = round, 0

    def __call__(self, real: Callable[[Ledger], Total]) -> Callable[[Ledger], Total]:
        def close(ledger: Ledger) -> Total:
            self.closed += 1
            if self.closed == self.round:
                first = next(iter(ledger.entries))
                ledger.entries[first] += 1
            return real(ledger)

        return close


@pytest.mark.parametrize("nth", [1, 2, 3], ids=["reports", "first", "second"])
def test_ciphertext_and_ledger_disagree(
    federation: Federation, keys: qn.KeyPair, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    """The round fails with a reason; its sum reaches no client."""
    monkeypatch.setattr(Ledger, "close", WrongLedger(nth)(Ledger.close))
    result = federation.train(4, error_feedback=True, **NO_EVALUATION)
    failed = 1 if nth < 3 else 2
    assert list(federation.failed) == [failed]
    assert "the sum has the weight" in federation.failed[failed]
    assert "add up to" in federation.failed[failed]
    assert_equal(final(result, keys), federation.expected(error_feedback=True))


def test_a_client_checks_the_weight_itself(
    federation: Federation, keys: qn.KeyPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server whose ledger lies about a sum is believed by nobody."""
    real = Ledger.close

    def close(ledger: Ledger) -> Total:
        total = real(ledger)
        return Total(total.data, total.weight - 1)

    monkeypatch.setattr(Ledger, "close", close)
    with pytest.raises(FederatedError, match="no round succeeded: 2 of 2 failed"):
        federation.train(2, **NO_EVALUATION)
    assert list(federation.failed) == [1, 2]
    assert all("ledger" in reason for node in NODES for reason in federation.watcher.reasons(node))
    assert federation.watcher.reasons(VICTIM)


def test_changed_sample_counts(
    params: qn.Parameters, keys: qn.KeyPair, key_file: Path, tmp_path: Path, fast_disk: None
) -> None:
    """A client's data grows: the weight follows in the round after."""

    def growing(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        number = int(message.content.config_records["config"]["server-round"])  # type: ignore[call-overload]
        reply = call_next(message, context)
        record = reply.content.metric_records["metrics"]
        if number >= 2:
            reply.content["metrics"] = MetricRecord({**record, "num-examples": 3000})
        return reply

    federation = Federation(params, key_file, tmp_path, mods={VICTIM: growing})
    result = federation.train(4, **NO_EVALUATION)
    weights = [federation.counted(r)[VICTIM] for r in federation.last.records]
    assert weights[0] == weights[1] < weights[2] == weights[3]
    counts = {3: {VICTIM: 3000}, 4: {VICTIM: 3000}}
    assert_equal(final(result, keys), federation.expected(counts))


def test_more_clients_than_weight(tmp_path: Path, fast_disk: None) -> None:
    """Told before anything is trained; who joins later takes turns."""
    params = qn.Parameters.for_aggregation(bits=8, max_weight=4, key_mode="symmetric", values=700)
    keys = qn.keygen(params)
    key_file = tmp_path / "key"
    key_file.write_bytes(keys.secret.to_bytes(passphrase=b"correct horse"))
    federation = Federation(params, key_file, tmp_path / "clients")
    with pytest.raises(ConfigError, match=r"5 clients in a round; .* total weight of 4"):
        federation.train(**NO_EVALUATION)
    assert not federation.trained
    federation.grid.leave(15)
    options = {"state": tmp_path / "server", **NO_EVALUATION}
    federation.train(1, **options)
    federation.grid.join(15)
    result = federation.go_on(4, **options)
    assert [r["participants"] for r in federation.last.records] == [4, 4, 4, 4]
    assert any("4 of them" in note for note in federation.watcher.notes)
    assert_equal(final(result, keys), federation.expected())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda arrays, metrics: (arrays, {}), "'num-examples' of the app's metrics is None"),
        (lambda arrays, metrics: (arrays, {"num-examples": 0}), "is 0; allowed"),
        (lambda arrays, metrics: (arrays, {"num-examples": float("nan")}), "is nan; allowed"),
        (lambda arrays, metrics: ({}, metrics), "lacks the tensors"),
        (
            lambda arrays, metrics: (
                {n: Array(a.numpy() * float("nan")) for n, a in arrays.items()},
                metrics,
            ),
            "NaN or infinity",
        ),
        (
            lambda arrays, metrics: (
                {n: Array(a.numpy()[:3]) for n, a in arrays.items()},
                metrics,
            ),
            "with the shape",
        ),
    ],
)
def test_an_app_that_gives_back_nonsense(
    params: qn.Parameters,
    keys: qn.KeyPair,
    key_file: Path,
    tmp_path: Path,
    fast_disk: None,
    change: Callable[..., Any],
    says: str,
) -> None:
    """The client itself says what is wrong; the others' round is unharmed."""

    def broken(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        reply = call_next(message, context)
        arrays, metrics = change(
            reply.content.array_records["arrays"], reply.content.metric_records["metrics"]
        )
        reply.content["arrays"] = ArrayRecord(dict(arrays))
        reply.content["metrics"] = MetricRecord(dict(metrics))
        return reply

    federation = Federation(params, key_file, tmp_path, mods={VICTIM: broken})
    result = federation.train(2, **NO_EVALUATION)
    assert [r["participants"] for r in federation.last.records] == [4, 4]
    assert all(says in reason for reason in federation.watcher.reasons(VICTIM))
    assert_equal(final(result, keys), federation.expected())
