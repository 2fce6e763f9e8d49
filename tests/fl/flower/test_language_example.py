"""``examples/flower-lora``: an adapter in an app of one's own."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read once, when its library is imported
pytest.importorskip("transformers", reason="needs the [lm] extra")
pytest.importorskip("peft", reason="needs the [lm] extra")

from flwr.app import Array, ArrayRecord, Context, RecordDict
from tests.fl.flower.local_grid import LocalGrid, contexts_for
from tests.fl.lm import tiny

import quancrypt_native as qn
from quancrypt_fl.envelopes import Members
from quancrypt_fl.envelopes.signer import Signer
from quancrypt_fl.flower import open_model
from quancrypt_native import sealing

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "flower-lora"
NODES = (11, 12)
PASSPHRASE = "correct horse"


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The example's modules."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    names = ("task", "client_app", "server_app")
    yield SimpleNamespace(**{n: importlib.import_module(f"lora_app.{n}") for n in names})
    for name in [name for name in sys.modules if name.partition(".")[0] == "lora_app"]:
        del sys.modules[name]


def test_it_tunes_an_adapter(
    app: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = qn.Parameters.for_aggregation(bits=8, max_weight=4)
    keys = qn.keygen(params)
    signers = [Signer.generate(f"client-{number}") for number in (1, 2)]
    with mock.patch.object(sealing, "_SCRYPT_N", 16):  # opened for each message
        for signer in signers:
            data = signer.to_bytes(passphrase=PASSPHRASE.encode())
            (tmp_path / f"{signer.member.name}.key").write_bytes(data)
        secret = keys.secret.to_bytes(passphrase=PASSPHRASE.encode())
        (tmp_path / "secret.qck").write_bytes(secret)
    (tmp_path / "params.qcp").write_bytes(params.to_bytes())
    (tmp_path / "members.toml").write_text(Members(s.member for s in signers).to_toml())
    for name, value in (
        ("QUANCRYPT_PARAMS", str(tmp_path / "params.qcp")),
        ("QUANCRYPT_MEMBERS", str(tmp_path / "members.toml")),
        ("QUANCRYPT_KEY_ID", keys.secret.key_id),
        ("QUANCRYPT_PASSPHRASE", PASSPHRASE),
    ):
        monkeypatch.setenv(name, value)
    for number in (1, 2):
        place = tmp_path / f"data-{number}"
        place.mkdir()
        tiny.gpt2(place / "model", tokenizer=False, vocabulary=256)
        tiny.text(place / "text.txt", words=200 * number)

    def node(index: int, _: int) -> dict[str, Any]:
        return {
            "quancrypt-key": str(tmp_path / "secret.qck"),
            "quancrypt-signing-key": str(tmp_path / f"client-{index + 1}.key"),
            "data-dir": str(tmp_path / f"data-{index + 1}"),
        }

    config: dict[str, Any] = {
        "num-server-rounds": 3, "rank": 4, "local-steps": 6, "learning-rate": 0.02,
        "config-json": str(tmp_path / "data-1" / "model" / "config.json"),
    }  # fmt: skip
    contexts = contexts_for(NODES, node_config=node, run_config=config)
    grid = LocalGrid(lambda _: app.client_app.app, contexts)
    monkeypatch.chdir(tmp_path)
    app.server_app.app(grid, Context(1, 0, {}, RecordDict(), config))
    sealed = np.frombuffer((tmp_path / "final-adapter.sealed").read_bytes(), np.uint8)
    held = open_model(ArrayRecord({"quancrypt.snapshot": Array(sealed)}), keys.secret)
    assert held.state.round == 3
    assert all("lora_B" in name and tensor.any() for name, tensor in held.state.weights.items())
    # The adapter has learned: with it every client's text is likelier than without.
    for number in (1, 2):
        place = tmp_path / f"data-{number}"
        adapter = app.task.adapted(app.task.base_model(place / "model"), 4)
        _, rows = app.task.load_rows(place / "text.txt")
        before = app.task.test(adapter, rows)
        loaded = dict(adapter.named_parameters())
        for name, tensor in held.state.weights.items():
            whole = name.replace("lora_B.weight", "lora_B.default.weight")
            loaded[whole].data = app.task.torch.from_numpy(tensor)
        assert app.task.test(adapter, rows) < before - 0.1
