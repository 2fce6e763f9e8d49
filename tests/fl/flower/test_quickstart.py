"""``examples/flower-quickstart``: the app that a reader copies."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, RecordDict
from tests.fl.flower.local_grid import LocalGrid, contexts_for

import quancrypt_native as qn
from quancrypt_fl.envelopes import Members
from quancrypt_fl.envelopes.signer import Signer
from quancrypt_fl.flower import QuanCryptStrategy

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "flower-quickstart"
NODES = (11, 12)
CONFIG: dict[str, Any] = {
    "num-server-rounds": 1,
    "fraction-evaluate": 1.0,
    "local-epochs": 1,
    "learning-rate": 0.1,
    "batch-size": 32,
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The example's module of the server."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    for name in ("QUANCRYPT_PARAMS", "QUANCRYPT_MEMBERS", "QUANCRYPT_KEY_ID"):
        monkeypatch.delenv(name, raising=False)
    yield importlib.import_module("digits_app.server_app")
    for name in [name for name in sys.modules if name.partition(".")[0] == "digits_app"]:
        del sys.modules[name]


def test_it_uses_the_parameters_of_the_deployment(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_readme = qn.Parameters.for_aggregation(bits=8, max_weight=16)
    assert server.parameters() == of_readme
    others = qn.Parameters.for_aggregation(bits=4, max_weight=4)
    (tmp_path / "params.qcp").write_bytes(others.to_bytes())
    monkeypatch.setenv("QUANCRYPT_PARAMS", str(tmp_path / "params.qcp"))
    assert server.parameters() == others


def test_it_takes_signed_replies_in_a_deployment(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert server.signed_replies() == {}
    members = Members([Signer.generate("client-1").member])
    (tmp_path / "members.toml").write_text(members.to_toml())
    monkeypatch.setenv("QUANCRYPT_MEMBERS", str(tmp_path / "members.toml"))
    monkeypatch.setenv("QUANCRYPT_KEY_ID", "ab" * 16)
    strategy = QuanCryptStrategy(server.parameters(), **server.signed_replies())
    assert strategy.key_id == "ab" * 16
    assert strategy.members is not None
    assert strategy.members.fingerprint == members.fingerprint
    monkeypatch.delenv("QUANCRYPT_KEY_ID")  # half of it is no reason to take unsigned ones
    with pytest.raises(KeyError, match="QUANCRYPT_KEY_ID"):
        server.signed_replies()


def test_a_model_that_nobody_sealed(server: Any, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no client has sealed the final model"):
        server.keep(ArrayRecord(), tmp_path / "model")
    assert not (tmp_path / "model").exists()
    sealed = np.arange(5, dtype=np.uint8)
    server.keep(ArrayRecord({"quancrypt.snapshot": Array(sealed)}), tmp_path / "model")
    assert (tmp_path / "model").read_bytes() == bytes(range(5))


def test_it_trains(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Server and two clients, with a passphrase that is no UTF-8, as a descriptor may give it."""
    from quancrypt_fl.flower import open_model

    passphrase = b"na\xefve"
    params = qn.Parameters.for_aggregation(bits=8, max_weight=4)
    keys = qn.keygen(params)
    (tmp_path / "params.qcp").write_bytes(params.to_bytes())
    (tmp_path / "secret.qck").write_bytes(keys.secret.to_bytes(passphrase=passphrase))
    monkeypatch.setenv("QUANCRYPT_PARAMS", str(tmp_path / "params.qcp"))
    monkeypatch.setenv("QUANCRYPT_PASSPHRASE", passphrase.decode("utf-8", "surrogateescape"))
    monkeypatch.chdir(tmp_path)
    clients = importlib.import_module("digits_app.client_app")
    node = {"quancrypt-key": str(tmp_path / "secret.qck")}
    contexts = contexts_for(NODES, node_config=lambda index, _: node, run_config=CONFIG)
    grid = LocalGrid(lambda _: clients.app, contexts)
    state = RecordDict()
    server.app(grid, Context(run_id=1, node_id=0, node_config={}, state=state, run_config=CONFIG))
    sealed = np.frombuffer((tmp_path / "final-model.sealed").read_bytes(), np.uint8)
    held = open_model(ArrayRecord({"quancrypt.snapshot": Array(sealed)}), keys.secret)
    assert held.state.round == 1
    assert set(held.state.weights) >= {"conv1.weight", "fc.bias"}
