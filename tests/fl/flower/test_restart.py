"""The server is killed at every place where it matters, and goes on: nothing is lost or redone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.fl.flower import numpy_app
from tests.fl.flower.faults import Killed, killing
from tests.fl.flower.federation import NO_EVALUATION, Federation, Reference, assert_equal, final

import quancrypt_native as qn
from quancrypt_fl.errors import ConfigError, FederatedError
from quancrypt_fl.flower.exchanges import Exchanges
from quancrypt_fl.flower.history import History, HistoryDamageError, HistoryError
from quancrypt_fl.flower.history_files import Folder
from quancrypt_fl.flower.ledger import Ledger
from quancrypt_fl.flower.server_round import ServerRound
from quancrypt_fl.method.pruning import PruningSchedule


def acknowledged(federation: Federation, server: Path) -> list[Any]:
    """What the server's folder says is finished."""
    if not History.exists(server):
        return []
    with History.resume(server) as history:
        return history.rounds


def killed(federation: Federation, target: Any, attribute: str, call: int, at: Any) -> bool:
    """Kill the server at a call, and have another go on; False if there is no such call."""
    server = federation.folder.parent / "server"  # type: ignore[union-attr]
    with killing(target, attribute, call=call, at=at):
        try:
            federation.train(state=server, resume=True, snapshot_every=1, error_feedback=True)
        except Killed:
            pass
        else:
            return False
    federation.last = None  # type: ignore[assignment]
    before = acknowledged(federation, server)
    federation.result = federation.go_on(  # type: ignore[attr-defined]
        state=server, snapshot_every=1, error_feedback=True
    )
    assert acknowledged(federation, server)[: len(before)] == before
    return True


@pytest.fixture(scope="module")
def reference(params: qn.Parameters) -> dict[str, Any]:
    return Reference(params, error_feedback=True).train()


PLACES = [
    (History, "append", 3),
    (History, "note", 7),
    (History, "amend", 3),
    (History, "keep_snapshot", 3),
    (Folder, "write", 18),
    (Folder, "extend", 6),
    (Folder, "sync", 16),
    (Ledger, "add", 16),
    (Ledger, "close", 4),
    (ServerRound, "evaluate", 3),
    (ServerRound, "finish", 1),
    (Exchanges, "run", 8),
]


def every_call() -> list[Any]:
    """Calls of each place; of those that are often called, a spread."""
    found = []
    for target, attribute, calls in PLACES:
        step = max(1, calls // 5)
        found += [
            pytest.param(target, attribute, call, id=f"{target.__name__}.{attribute}-{call}")
            for call in range(1, calls + 1, step)
        ]
    return found


@pytest.mark.parametrize(("target", "attribute", "call"), every_call())
def test_killed_at(
    federation: Federation,
    keys: qn.KeyPair,
    reference: dict[str, Any],
    target: Any,
    attribute: str,
    call: int,
) -> None:
    """Before the call for odd ones, after it for even ones."""
    at = "before" if call % 2 else "after"
    assert killed(federation, target, attribute, call, at), "it was not called so often"
    result = federation.result  # type: ignore[attr-defined]
    assert_equal(final(result, keys), reference)
    assert set(federation.trained.values()) == {1}
    assert len(federation.trained) == 3 * 5
    assert [record["participants"] for record in federation.last.records] == [5, 5, 5]
    assert all(record["test_accuracy"] for record in federation.last.records)


@pytest.mark.parametrize("call", ["push_messages", "pull_messages", "get_node_ids"])
@pytest.mark.parametrize("nth", [1, 3, 6])
def test_killed_between_messages(
    federation: Federation,
    keys: qn.KeyPair,
    reference: dict[str, Any],
    tmp_path: Path,
    call: str,
    nth: int,
) -> None:
    """A reply that was pulled and not stored is gone: it is asked for again."""
    options = {"state": tmp_path / "server", "error_feedback": True}
    federation.grid.break_connection(call, Killed(), nth=nth)
    with pytest.raises(Killed):
        federation.train(**options)
    result = federation.go_on(**options)
    assert_equal(final(result, keys), reference)
    assert set(federation.trained.values()) == {1}


def test_killed_again_and_again(
    federation: Federation, keys: qn.KeyPair, reference: dict[str, Any], tmp_path: Path
) -> None:
    """Each server process gets a little further."""
    options = {"state": tmp_path / "server", "error_feedback": True, "snapshot_every": 1}
    lives = 0
    for nth in range(4, 40, 3):
        federation.grid.new_run()
        federation.grid.break_connection("pull_messages", Killed(), nth=nth)
        lives += 1
        try:
            result = federation.train(resume=True, **options)
        except Killed:
            continue
        break
    assert lives > 3
    assert_equal(final(result, keys), reference)
    assert set(federation.trained.values()) == {1}


def test_other_choices_are_refused_by_name(
    federation: Federation, keys: qn.KeyPair, tmp_path: Path
) -> None:
    server = tmp_path / "server"
    federation.train(1, state=server, **NO_EVALUATION)
    for choice, value in (
        ("smoothing", 0.5),
        ("weighting", "uniform"),
        ("clip_factor", 2.0),
        ("pruning", PruningSchedule(0.1, 0.5, 0, 3)),
        ("error_feedback", True),
        ("seed", 4),
    ):
        with pytest.raises(FederatedError, match=choice):
            federation.go_on(2, state=server, **{choice: value}, **NO_EVALUATION)
    with pytest.raises(FederatedError, match="a training is there already; resume it"):
        federation.train(2, state=server, **NO_EVALUATION)
    # A refusal leaves everything as it was, and lets go of the folder.
    result = federation.go_on(2, state=server, **NO_EVALUATION)
    assert_equal(final(result, keys), federation.expected())


def test_other_parameters_are_refused(
    federation: Federation, key_file: Path, tmp_path: Path
) -> None:
    federation.train(1, state=tmp_path / "server", **NO_EVALUATION)
    other = qn.Parameters.for_aggregation(bits=6, max_weight=64, key_mode="symmetric", values=700)
    federation.params = other
    with pytest.raises(FederatedError, match="params"):
        federation.go_on(2, state=tmp_path / "server", **NO_EVALUATION)


def test_another_key_is_refused_by_name(
    federation: Federation, other_keys: qn.KeyPair, keys: qn.KeyPair, tmp_path: Path
) -> None:
    """With a key that no client has the rest of the training would be nothing but refusals."""
    server = tmp_path / "server"
    federation.train(1, state=server, **NO_EVALUATION)
    wrong = other_keys.secret.key_id
    with pytest.raises(ConfigError, match=f"{keys.secret.key_id}.*{wrong}"):
        federation.go_on(2, state=server, key_id=wrong, **NO_EVALUATION)


def test_another_model_is_refused_by_name(federation: Federation, tmp_path: Path) -> None:
    federation.train(1, state=tmp_path / "server", **NO_EVALUATION)
    strategy = federation.strategy(state=tmp_path / "server", resume=True)
    arrays = numpy_app.arrays_of({"other": numpy_app.np.zeros(3, "float32")})
    with pytest.raises(ConfigError, match=r"'linear\.bias' was float32"):
        strategy.start(federation.grid, arrays, num_rounds=2, timeout=60)


def test_a_finished_training_is_finished(
    federation: Federation, keys: qn.KeyPair, reference: dict[str, Any], tmp_path: Path
) -> None:
    """It can be asked for again, with clients that have everything or nothing."""
    options = {"state": tmp_path / "server", "error_feedback": True}
    federation.train(**options)
    records = federation.last.records
    for path in federation.state_of(13).glob("*/held"):
        path.unlink()
    result = federation.go_on(**options)
    assert_equal(final(result, keys), reference)
    assert_equal(dict(federation.held(13).state.weights), reference)
    assert federation.last.records == records
    assert set(federation.trained.values()) == {1}


def test_more_rounds_than_before(
    federation: Federation, keys: qn.KeyPair, reference: dict[str, Any], tmp_path: Path
) -> None:
    options = {"state": tmp_path / "server", "error_feedback": True}
    federation.train(1, **options)
    federation.go_on(2, **options)
    result = federation.go_on(3, **options)
    assert_equal(final(result, keys), reference)
    assert set(federation.trained.values()) == {1}


def test_a_folder_in_use(federation: Federation, tmp_path: Path) -> None:
    server = tmp_path / "server"
    federation.train(1, state=server, **NO_EVALUATION)
    with (
        History.resume(server),
        pytest.raises(HistoryError, match="another server is using this folder"),
    ):
        federation.go_on(2, state=server, **NO_EVALUATION)


@pytest.mark.parametrize("name", ["history.json", "rounds.jsonl", "initial.safetensors"])
def test_damage_is_named_and_nothing_begins_anew(
    federation: Federation, tmp_path: Path, name: str
) -> None:
    server = tmp_path / "server"
    federation.train(1, state=server, **NO_EVALUATION)
    (server / name).unlink()
    with pytest.raises(HistoryDamageError, match=name):
        federation.go_on(2, state=server, **NO_EVALUATION)


def test_a_damaged_note_is_named(federation: Federation, tmp_path: Path) -> None:
    server = tmp_path / "server"
    federation.train(1, state=server, **NO_EVALUATION)
    note = server / "note-nodes.json"
    note.write_bytes(note.read_bytes()[:-9])
    with pytest.raises(HistoryDamageError, match=r"note-nodes\.json"):
        federation.go_on(2, state=server, **NO_EVALUATION)


def test_without_a_folder_a_restart_is_a_new_training(
    federation: Federation, keys: qn.KeyPair
) -> None:
    """In memory: the second server knows nothing, and clients begin from its model."""
    federation.grid.break_connection("pull_messages", Killed(), nth=12)
    with pytest.raises(Killed):
        federation.train(2, **NO_EVALUATION)
    result = federation.go_on(2, **NO_EVALUATION)
    assert_equal(final(result, keys), federation.expected())
