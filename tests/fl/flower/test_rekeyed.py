"""A training goes on under another key: the model is that of one key all along."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="needs the [flower] extra")

from tests.fl.flower.federation import Federation, assert_equal, final
from tests.fl.flower.histories import begun, core, files, grown, sealed, sealed_of, ways

import quancrypt_native as qn
from quancrypt_fl.errors import ConfigError
from quancrypt_fl.flower.final import resealed
from quancrypt_fl.flower.history import History, HistoryError
from quancrypt_fl.flower.rekeyed_history import KEYS, rekey_history
from quancrypt_fl.flower.snapshot import SnapshotError
from quancrypt_fl.flower.training_run import SNAPSHOT

BEFORE, AFTER = 2, 4  # rounds


@dataclass
class Stopped:
    """A training that has ended, and its model under the old key and the new."""

    federation: Federation
    key: Path
    server: Path
    model: bytes
    resealed: bytes


@pytest.fixture
def stopped(
    params: qn.Parameters,
    keys: qn.KeyPair,
    other_keys: qn.KeyPair,
    key_file: Path,
    tmp_path: Path,
    fast_disk: None,
) -> Stopped:
    server, key = tmp_path / "server", tmp_path / "secret.key"
    shutil.copy(key_file, key)
    federation = Federation(params, key, tmp_path / "clients")
    result = federation.train(BEFORE, state=server, key_id=keys.key_id)
    model = result.arrays[SNAPSHOT].numpy().tobytes()  # type: ignore[index]
    again = resealed(model, keys.secret, other_keys.secret)
    return Stopped(federation, key, server, model, again)


def test_the_model_is_that_of_one_key_all_along(
    stopped: Stopped,
    keys: qn.KeyPair,
    other_keys: qn.KeyPair,
    other_key_file: Path,
) -> None:
    federation = stopped.federation
    assert rekey_history(stopped.server, stopped.resealed, keys.key_id, other_keys.key_id) == BEFORE
    shutil.copy(other_key_file, stopped.key)
    shutil.rmtree(federation.state_of(federation.nodes[0]))  # it has to catch up from the server
    result = federation.go_on(AFTER, state=stopped.server, key_id=other_keys.key_id)
    assert federation.last.keys == [
        {"fingerprint": keys.key_id, "from_round": 1},
        {"fingerprint": other_keys.key_id, "from_round": BEFORE + 1},
    ]
    assert not federation.failed
    found = final(result, other_keys)
    assert_equal(found, federation.expected())
    with pytest.raises(SnapshotError, match="another secret key"):
        final(result, keys)
    for node in federation.nodes:
        assert_equal(dict(federation.held(node).state.weights), found)


def test_without_it_the_server_names_both_keys(
    stopped: Stopped, other_keys: qn.KeyPair, keys: qn.KeyPair, other_key_file: Path
) -> None:
    shutil.copy(other_key_file, stopped.key)
    expected = f"under the key {keys.key_id}, not {other_keys.key_id}"
    with pytest.raises(ConfigError, match=expected):
        stopped.federation.go_on(AFTER, state=stopped.server, key_id=other_keys.key_id)


def test_it_may_be_repeated(stopped: Stopped, keys: qn.KeyPair, other_keys: qn.KeyPair) -> None:
    for _ in range(2):
        rekey_history(stopped.server, stopped.resealed, keys.key_id, other_keys.key_id)
        with History.resume(stopped.server) as history:
            assert [key["from_round"] for key in history.read(KEYS)] == [1, BEFORE + 1]
            assert history.read("nodes")["key_id"] == other_keys.key_id
    assert files(stopped.server, "sum-*.bin") == set()


def test_keys_that_served_no_round_are_not_listed(
    stopped: Stopped, keys: qn.KeyPair, other_keys: qn.KeyPair, params: qn.Parameters
) -> None:
    third = qn.keygen(params)
    rekey_history(stopped.server, stopped.resealed, keys.key_id, other_keys.key_id)
    again = resealed(stopped.resealed, other_keys.secret, third.secret)
    rekey_history(stopped.server, again, other_keys.key_id, third.key_id)
    with History.resume(stopped.server) as history:
        found = [key["fingerprint"] for key in history.read(KEYS)]
    assert found == [keys.key_id, third.key_id]


def test_what_does_not_fit_changes_nothing(
    stopped: Stopped, keys: qn.KeyPair, other_keys: qn.KeyPair, tmp_path: Path
) -> None:
    server, old, new = stopped.server, keys.key_id, other_keys.key_id
    with History.resume(server) as history:
        before = core(history), ways(history)
    with pytest.raises(ConfigError, match="which is neither the old one"):
        rekey_history(server, stopped.resealed, "0" * 32, new)
    with pytest.raises(SnapshotError, match="truncated"):
        rekey_history(server, b"", old, new)
    with pytest.raises(SnapshotError, match="another secret key"):
        resealed(stopped.model, other_keys.secret, keys.secret)
    stopped.federation.grid.new_run()
    other = stopped.federation.train(1, state=tmp_path / "other", key_id=keys.key_id)
    model = resealed(final_bytes(other), keys.secret, other_keys.secret)
    with pytest.raises(ConfigError, match="the model is of the training "):
        rekey_history(server, model, old, new)
    with History.resume(server) as history:
        assert (core(history), ways(history)) == before


def final_bytes(result: object) -> bytes:
    return bytes(result.arrays[SNAPSHOT].numpy().tobytes())  # type: ignore[attr-defined]


def test_a_model_of_an_earlier_round_is_refused(
    stopped: Stopped, keys: qn.KeyPair, other_keys: qn.KeyPair
) -> None:
    stopped.federation.go_on(BEFORE + 1, state=stopped.server, key_id=keys.key_id)
    expected = "after round 2, and the training has finished 3: seal the model after that round"
    with pytest.raises(ConfigError, match=expected):
        rekey_history(stopped.server, stopped.resealed, keys.key_id, other_keys.key_id)


# --- the history ---


def test_nothing_under_the_old_key_stays(tmp_path: Path) -> None:
    with grown(begun(tmp_path), 100, 0, 120) as history:
        sealed(history, 1)
        sealed(history, 3)
        data = sealed_of(3, 70)
        history.rekey(history.chain, data)
        assert files(tmp_path, "*.bin") == {"snapshot-00003.bin"}
        for have in (None, 0, 2):
            path = history.catch_up(have)
            assert path.snapshot is not None
            assert path.snapshot[0] == 3
            assert path.snapshot[2].load() == data
            assert not path.sums
        assert history.catch_up(3).snapshot is None
        grown(history, 90)
        assert history.catch_up(3).snapshot is None
        assert history.catch_up(2).snapshot is not None
    with History.resume(tmp_path) as history:
        assert history.finished == 4
        assert history.catch_up(None).snapshot is not None


def test_there_must_be_a_state_and_it_must_be_the_last(tmp_path: Path) -> None:
    with begun(tmp_path) as history:
        with pytest.raises(HistoryError, match="no round is finished"):
            history.rekey(history.chain, b"x")
        grown(history, 100, 100)
        with pytest.raises(HistoryError, match="not of the state after round 2"):
            history.rekey(str(history.chain_at(1)), b"x")
        assert history.catch_up(0).sums
