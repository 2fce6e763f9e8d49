"""A deployed fine-tuning in memory: files of kits, the ServerApp and ClientApps, no processes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from flwr.app import Context, RecordDict
from tests.fl.flower.local_grid import LocalGrid, contexts_for

import quancrypt_native as qn
from quancrypt_fl.deployment import kits, toml
from quancrypt_fl.deployment.tuning import APP, Tuning
from quancrypt_fl.envelopes import Members
from quancrypt_fl.envelopes.signer import Signer
from quancrypt_fl.flower.app import SETTINGS_KEY, client_app, server_app
from quancrypt_fl.lm.config import FinetuneConfig
from quancrypt_native import sealing

PASSPHRASE = "correct horse"
NODES = (11, 12, 13)


@dataclass
class LanguageFederation:
    """Three clients that tune an adapter.

    Attributes
    ----------
    folder
        Of all files.
    config
        The run, as a file for ``quancrypt provision --finetune`` says it.
    node_settings
        More of the node configuration, by node.
    server_says
        Fields of the run's configuration that the server changes.
    """

    folder: Path
    config: FinetuneConfig
    node_settings: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    server_says: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        tuning = Tuning.of(self.config)
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, data in {**tuning.server_files, **tuning.client_files}.items():
            (self.folder / name).write_bytes(data)
        run, assumed = tuning.config, tuning.config.resolved()
        assert assumed.max_weight is not None
        params = qn.Parameters.for_aggregation(
            bits=run.bits, max_weight=assumed.max_weight, values=tuning.values
        )
        self.params = params
        self.keys = qn.keygen(params)
        signers = [Signer.generate(f"client-{index + 1}") for index in range(len(NODES))]
        secret = PASSPHRASE.encode()
        with mock.patch.object(sealing, "_SCRYPT_N", 16):  # opened for each message
            self._write("secret.key", self.keys.secret.to_bytes(passphrase=secret))
            for signer in signers:
                self._write(f"{signer.member.name}.key", signer.to_bytes(passphrase=secret))
        self._write("params.qcp", params.to_bytes())
        self._write("members.toml", Members(s.member for s in signers).to_toml().encode())
        config = kits.run_table(run, APP)
        self._write(kits.NODE, toml.table(config, "[run]").encode())
        config.pop("app")
        config |= self.server_says
        settings = {"app": APP, "config": config, "key_id": self.keys.secret.key_id, "wait": 0.0}
        self.run_config = {SETTINGS_KEY: json.dumps(settings)}
        self.grid = LocalGrid(
            lambda _: client_app.app,
            contexts_for(NODES, node_config=self._node, run_config=self.run_config),
        )

    def _write(self, name: str, data: bytes) -> None:
        (self.folder / name).write_bytes(data)

    def _node(self, index: int, node: int) -> dict[str, Any]:
        name = f"client-{index + 1}"
        return {
            "quancrypt-key": str(self.folder / "secret.key"),
            "quancrypt-signing-key": str(self.folder / f"{name}.key"),
            "quancrypt-state": str(self.folder / name),
            "quancrypt-name": name,
            "quancrypt-kit": str(self.folder / kits.NODE),
            "quancrypt-frozen": str(self.folder / kits.FROZEN),
            "model": str(self.config.model),
            "data": str(self.config.data),
            **self.node_settings.get(node, {}),
        }

    def train(self) -> dict[str, Any]:
        """Run the ServerApp to its end; the document of ``results.json``."""
        environment = {
            "QUANCRYPT_STATE": str(self.folder / "server"),
            "QUANCRYPT_PARAMS": str(self.folder / "params.qcp"),
            "QUANCRYPT_MEMBERS": str(self.folder / "members.toml"),
            "QUANCRYPT_INITIAL": str(self.folder / kits.INITIAL),
            "QUANCRYPT_PASSPHRASE": PASSPHRASE,
        }
        context = Context(1, 0, {}, RecordDict(), self.run_config)
        with mock.patch.dict(os.environ, environment):
            server_app.app(self.grid, context)
        path = self.folder / "server/runs/run-1/results.json"
        document: dict[str, Any] = json.loads(path.read_bytes())
        return document

    def adapters(self) -> list[Path]:
        """The folder of the final adapter of each client."""
        return [next((self.folder / f"client-{n}").glob("*/adapter")) for n in (1, 2, 3)]
