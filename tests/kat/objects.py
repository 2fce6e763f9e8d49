"""The known-answer files of one format version: which there are, and how each is read.

``FORMATS / formatN / NAME.bin`` holds one serialized object, as it goes over a network or onto a
disk; ``expected.json`` beside them says what each means. Anybody's reader can be checked with them:
no file is wrapped in anything.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import quancrypt_native as qn
from quancrypt_fl.flower.history import History
from quancrypt_fl.flower.history_files import Memory
from quancrypt_fl.flower.history_state import read_state
from quancrypt_fl.flower.snapshot import open_snapshot
from quancrypt_fl.flower.sums import Sums
from quancrypt_fl.flower.tensors_file import unpack

FORMATS = Path(__file__).resolve().parent
PASSPHRASE = b"known answer"
RANDOM_PASSPHRASE = bytes(range(32))
TRAINING = "0123456789abcdef" * 2
CHAIN = hashlib.sha256(b"known answer").hexdigest()
ROUND = 3
HISTORY = ("history.json", "rounds.jsonl", "initial.safetensors")


@dataclass(frozen=True)
class Format:
    """The files of one version, and their keys."""

    folder: Path

    def data(self, name: str) -> bytes:
        """Bytes of a file."""
        return (self.folder / name).read_bytes()

    @property
    def expected(self) -> dict[str, Any]:
        """What the files mean, by name."""
        found: dict[str, Any] = json.loads(self.data("expected.json"))
        return found

    @property
    def params(self) -> qn.Parameters:
        """Packed encoding, public key mode, N = 1024."""
        return qn.Parameters.from_bytes(self.data("parameters.bin"))

    @property
    def slots(self) -> qn.Parameters:
        """Standard slots, N = 1024."""
        return qn.Parameters.from_bytes(self.data("parameters-slots.bin"))

    @property
    def secret(self) -> qn.SecretKey:
        """Of ``params``."""
        data = self.data("secret-key.bin")
        return qn.SecretKey.from_bytes(data, self.params, passphrase=PASSPHRASE)

    @property
    def slots_secret(self) -> qn.SecretKey:
        """Of ``slots``."""
        data = self.data("secret-key-slots.bin")
        return qn.SecretKey.from_bytes(data, self.slots, passphrase=RANDOM_PASSPHRASE)

    def update(self, name: str) -> qn.EncryptedUpdate:
        """An update or a sum."""
        return qn.EncryptedUpdate.from_bytes(
            self.data(name), self.slots if "slots" in name else self.params
        )


def parameters_facts(params: qn.Parameters) -> dict[str, Any]:
    """What a set of parameters means."""
    return {
        "fingerprint": params.fingerprint,
        "encoding": params.encoding,
        "poly_degree": params.poly_degree,
        "coeff_modulus": list(params.coeff_modulus),
        "max_weight": params.max_weight,
        "values_per_ciphertext": params.values_per_ciphertext,
    }


def key_facts(key: qn.SecretKey) -> dict[str, Any]:
    """What a secret key means: its identity, and a subkey that only its secret gives."""
    return {"key_id": key.key_id, "subkey": key.derive(b"kat").hex()}


def update_facts(update: qn.EncryptedUpdate, key: qn.SecretKey) -> dict[str, Any]:
    """What an update means, decrypted."""
    decryptor = qn.Decryptor(update.params, key)
    packed = update.params.encoding == "packed"
    result: Any = (decryptor.decrypt_integers if packed else decryptor.decrypt_sum)(update)
    tensors = result if isinstance(result, dict) else {"": result}
    return {
        "key_id": update.key_id,
        "weight": update.weight,
        "seeded": update.seeded,
        "shapes": {name: list(tensor.shape) for name, tensor in tensors.items()},
        "clips": {tensor.name: tensor.clip for tensor in update.layout.tensors},
        "sums": {name: tensor.ravel().tolist() for name, tensor in tensors.items()},
    }


def tensors_facts(data: bytes) -> dict[str, Any]:
    """What a file of tensors means."""
    document, tensors = unpack(bytearray(data))
    return {
        "document": document,
        "tensors": {n: [list(t.shape), t.ravel().tolist()] for n, t in tensors.items()},
    }


def snapshot_facts(data: bytes, key: qn.SecretKey) -> dict[str, Any]:
    """What a sealed snapshot holds."""
    held = open_snapshot(data, TRAINING, key, round=ROUND, chain=CHAIN)
    assert held.state.bounds is not None
    return {
        "round": held.state.round,
        "chain": held.chain,
        "bounds": dict(held.state.bounds),
        "weights": {n: t.ravel().tolist() for n, t in held.state.weights.items()},
    }


def history_facts(read: Callable[[str], bytes]) -> dict[str, Any]:
    """What a server's history remembers."""
    files = Memory()
    for name in HISTORY:
        files.write(name, read(name))
    state = read_state(files, *HISTORY)
    return {
        "training": state.training,
        "facts": state.facts,
        "chain": state.chain,
        "weights": [past.weight for past in state.rounds],
        "records": list(state.records),
        "first": state.first,
        "snapshots": [snapshot.round for snapshot in state.snapshots],
    }


def facts(files: Format) -> dict[str, Any]:
    """What every file of a version means to this version's code."""
    found: dict[str, Any] = {
        "parameters.bin": parameters_facts(files.params),
        "parameters-slots.bin": parameters_facts(files.slots),
        "secret-key.bin": {
            "key_id": files.secret.key_id,
            "subkey": files.secret.derive(b"kat").hex(),
        },
        "secret-key-slots.bin": {
            "key_id": files.slots_secret.key_id,
            "subkey": files.slots_secret.derive(b"kat").hex(),
        },
        "public-key.bin": {
            "key_id": qn.PublicKey.from_bytes(files.data("public-key.bin"), files.params).key_id
        },
    }
    for name in ("update-seeded", "update-public-key", "update-integers", "sum", "sum-deep"):
        found[f"{name}.bin"] = update_facts(files.update(f"{name}.bin"), files.secret)
    for name in ("update-slots", "sum-slots"):
        found[f"{name}.bin"] = update_facts(files.update(f"{name}.bin"), files.slots_secret)
    sums = Sums.from_bytes(files.data("round-sums.bin"))
    found["round-sums.bin"] = {
        "updates": hashlib.sha256(sums.updates).hexdigest(),
        "reports": sums.reports.hex(),
        "reports_weight": sums.reports_weight,
    }
    found["tensors.bin"] = tensors_facts(files.data("tensors.bin"))
    found["snapshot.bin"] = snapshot_facts(files.data("snapshot.bin"), files.secret)
    found["history"] = history_facts(files.data)
    return found


def example_history() -> dict[str, bytes]:
    """The files of a history of three rounds, one of them failed."""
    from quancrypt_fl.flower.chain import digest, next_link
    from quancrypt_fl.flower.history_state import RoundSum

    history = History.begin(
        None,
        training=TRAINING,
        facts={"agreement": {"bits": 8, "clip": 0.1}},
        chain=CHAIN,
        initial=b"initial model",
        limit_bytes=1000,
    )
    for t, data in enumerate((b"first sum", b"", b"third sum")):
        weight, sha = (2, digest(data)) if data else (0, "")
        chain = next_link(history.chain, round=t, weight=weight, scale=1.0, sum_digest=sha)
        failed = None if data else "too few clients answered"
        past = RoundSum(t, chain, weight, 1.0, len(data), sha, failed)
        history.append(past, data, {"round": t + 1, "train_loss": 0.5 / (t + 1)})
    history.amend(0, {"round": 1, "train_loss": 0.5, "test_accuracy": 0.75})
    history.keep_snapshot(2, history.chain_at(2) or "", b"sealed")
    return {name: history._files.read(name) for name in HISTORY}
