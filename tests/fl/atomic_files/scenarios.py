"""Every kind of file that this package keeps: how it is written, and what is there afterwards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tests.fl.atomic_files.joint_scenarios import STEPS
from tests.fl.flower.histories import begun, core, grown, sealed, sealed_of
from tests.fl.flower.states import TRAINING, bits, held, pending

import quancrypt_native as qn
from quancrypt_fl.checkpoint import Checkpoint, Checkpoints
from quancrypt_fl.cli import storage
from quancrypt_fl.cli.app import run
from quancrypt_fl.errors import CheckpointError, FederatedError
from quancrypt_fl.flower.history import History
from quancrypt_fl.flower.stores import FolderStore
from quancrypt_fl.method.roles import ClientMemory, GlobalState
from quancrypt_fl.results import write_results

__all__ = ["NEW_PASSPHRASE", "PASSPHRASE", "SCENARIOS", "Scenario", "template"]

PASSPHRASE, NEW_PASSPHRASE = "correct horse", "another horse"
LIMIT = 10_000

Where = Callable[[Path], None]


@dataclass(frozen=True)
class Scenario:
    """One change of files.

    Attributes
    ----------
    prepare
        Put the old state into an empty folder.
    act
        Change it; a no-op, or an error, where the new state is there already.
    read
        ``"old"`` or ``"new"``, or an exception: what is there is broken.
    """

    prepare: Where
    act: Where
    read: Callable[[Path], str]


class BrokenError(AssertionError):
    """Neither the old state nor the new."""


def command(*arguments: object) -> None:
    """A command line that must succeed; its error is on stderr."""
    if run([str(argument) for argument in arguments]):
        raise FederatedError("the command failed")


def template(folder: Path) -> None:
    """What scenarios on files copy: keys of both kinds, and two updates."""
    values = ("--max-weight", 8, "--values", 16)
    command("keygen", "--out", folder / "keys", *values)
    command("keygen", "--out", folder / "pair", *values, "--key-mode", "public")
    for number in range(2):
        tensors = {"w": np.full(16, 0.01 * (number + 1), np.float32)}
        save_file(tensors, folder / f"{number}.safetensors")
        key = ("--key", folder / "keys" / "secret.qck", "--clip", 0.05)
        command("encrypt", folder / f"{number}.safetensors", folder / f"{number}.qcu", *key)


def copied(folder: Path) -> None:
    shutil.copytree(folder.parents[1] / "template", folder, dirs_exist_ok=True)


def secret(folder: Path, name: str, passphrase: str) -> qn.SecretKey:
    params = qn.Parameters.from_bytes((folder / "params.qcp").read_bytes())
    data = (folder / name).read_bytes()
    return qn.SecretKey.from_bytes(data, params, passphrase=passphrase.encode())


# --- keys, parameters, updates and sums ---


def passwd(folder: Path) -> None:
    command("passwd", folder / "keys" / "secret.qck")


def read_passwd(folder: Path) -> str:
    original = secret(folder.parents[1] / "template" / "keys", "secret.qck", PASSPHRASE)
    for passphrase, state in ((PASSPHRASE, "old"), (NEW_PASSPHRASE, "new")):
        try:
            found = secret(folder / "keys", "secret.qck", passphrase)
        except qn.PassphraseError:
            continue
        if found.derive(b"test") != original.derive(b"test"):
            raise BrokenError("another key")
        return state
    raise BrokenError("no passphrase opens it")


def rotated(kind: str) -> Scenario:
    def act(folder: Path) -> None:
        if state(folder / kind) != "new":
            command("rotate", folder / kind / "secret.qck")

    def state(keys: Path) -> str:
        original = secret(keys.parents[2] / "template" / kind, "secret.qck", PASSPHRASE)
        present = secret(keys, "secret.qck", PASSPHRASE)
        public = original.key_id if kind == "keys" else _public(keys / "public.qck", present)
        if present.key_id == original.key_id:
            if public != original.key_id:
                raise BrokenError("a new public key without its secret")
            return "old"
        kept = secret(keys, f"secret-{original.key_id}.qck", PASSPHRASE)
        if kept.derive(b"test") != original.derive(b"test"):
            raise BrokenError("the old key is lost")
        if kind == "keys" or public == present.key_id:
            return "new"
        if _public(keys / "public.next.qck", present) != present.key_id:
            raise BrokenError("the new public key is lost")
        return "between"

    def read(folder: Path) -> str:
        if state(folder / kind) == "between":
            act(folder)
        return state(folder / kind)

    return Scenario(copied, act, read)


def _public(path: Path, owner: qn.SecretKey) -> str:
    return qn.PublicKey.from_bytes(path.read_bytes(), owner.params).key_id


def keygen(folder: Path) -> None:
    command("keygen", "--out", folder / "made", "--max-weight", 8, "--values", 16, "--force")


def read_keygen(folder: Path) -> str:
    if not (folder / "made" / "secret.qck").exists():
        return "old"
    secret(folder / "made", "secret.qck", PASSPHRASE)
    return "new"


def replaced(name: str, old: bytes, new: bytes) -> Scenario:
    """A file of the commands, by its bytes."""

    def read(folder: Path) -> str:
        found = (folder / name).read_bytes()
        if found not in (old, new):
            raise BrokenError(f"{len(found)} bytes")
        return "old" if found == old else "new"

    return Scenario(
        lambda folder: storage.write(folder / name, old),
        lambda folder: storage.write(folder / name, new, force=True),
        read,
    )


def parameters(max_weight: int) -> bytes:
    return qn.Parameters.for_aggregation(bits=8, max_weight=max_weight, values=16).to_bytes()


def aggregate(*options: str) -> Where:
    def act(folder: Path) -> None:
        out, params = folder / "sum.qcu", folder / "keys" / "params.qcp"
        if "--force" in options or not out.exists():
            updates = (folder / "0.qcu", folder / "1.qcu")
            command("aggregate", *updates, "--params", params, "--out", out, *options)

    return act


def with_sum(folder: Path) -> None:
    copied(folder)
    shutil.copy(folder / "0.qcu", folder / "sum.qcu")


def read_sum(folder: Path) -> str:
    if not (folder / "sum.qcu").exists():
        return "old"
    params = qn.Parameters.from_bytes((folder / "keys" / "params.qcp").read_bytes())
    found = qn.EncryptedUpdate.from_bytes((folder / "sum.qcu").read_bytes(), params)
    return {1: "old", 2: "new"}[found.weight]


# --- simulations ---


def checkpoint(number: int) -> Checkpoint:
    rng = np.random.default_rng(number)
    weights, own = ({"w": rng.normal(size=9).astype(np.float32)} for _ in range(2))
    records = [{"round": n + 1} for n in range(number)]
    return Checkpoint(GlobalState(number, weights), records, [], None, {0: ClientMemory(own, {})})


def checkpoints(folder: Path) -> Checkpoints:
    return Checkpoints(folder / "checkpoints", {"seed": 1})


def read_checkpoint(folder: Path) -> str:
    found = checkpoints(folder).load()
    expected = checkpoint(found.state.round)
    for one, two in (
        (found.state.weights, expected.state.weights),
        (found.memories[0].residual, expected.memories[0].residual),
    ):
        np.testing.assert_array_equal(one["w"], two["w"])
    return {1: "old", 2: "new"}[found.state.round]


def read_first_checkpoint(folder: Path) -> str:
    try:
        return {"new": "old", "old": "new"}[read_checkpoint(folder)]
    except CheckpointError as error:
        if "no checkpoint to resume from" not in str(error):
            raise
        return "old"


def read_results(folder: Path) -> str:
    return {1: "old", 2: "new"}[json.loads((folder / "results.json").read_bytes())["rounds"]]


# --- deployments ---


def keeping(action: Callable[[FolderStore, int], None]) -> Scenario:
    """Client states after rounds 3 and 4."""

    def at(number: int) -> Where:
        def act(folder: Path) -> None:
            with FolderStore(folder / "state", TRAINING) as store:
                action(store, number)

        return act

    def read(folder: Path) -> str:
        with FolderStore(folder / "state", TRAINING) as store:
            found: Any = store.held() or store.pending()
            number = found.state.round if hasattr(found, "state") else found.round
            if bits(found) not in (bits(held(number)), bits(pending(number))):
                raise BrokenError("another state")
        return {3: "old", 4: "new"}[number]

    return Scenario(at(3), at(4), read)


def history(change: Callable[[History], Any], is_new: Callable[[History], bool]) -> Scenario:
    """The server's files; ``change`` is made once."""

    def prepare(folder: Path) -> None:
        with begun(folder / "history", LIMIT) as made:
            grown(made, 100, 120)
            sealed(made, 2)
            made.note("nodes", {"1": "a"})

    def act(folder: Path) -> None:
        with History.resume(folder / "history") as found:
            if not is_new(found):
                change(found)

    def read(folder: Path) -> str:
        with History.resume(folder / "history") as found:
            core(found)
            path = found.catch_up(None)
            loaded = [data.load() for _, data in path.sums if data]
            loaded += [path.snapshot[2].load()] if path.snapshot else []
            if not loaded and not path.initial:
                raise BrokenError("a new client is led nowhere")
            return "new" if is_new(found) else "old"

    return Scenario(prepare, act, read)


def rekeyed() -> Scenario:
    data = sealed_of(2, 70)

    def is_new(found: History) -> bool:
        path = found.catch_up(None)
        return path.snapshot is not None and path.snapshot[2].load() == data

    return history(lambda found: found.rekey(found.chain, data), is_new)


SCENARIOS: dict[str, Scenario] = {
    "key file: passwd": Scenario(copied, passwd, read_passwd),
    "key file: rotate": rotated("keys"),
    "key files: rotate a pair": rotated("pair"),
    "key files: keygen": Scenario(lambda folder: None, keygen, read_keygen),
    "parameters": replaced("params.qcp", parameters(4), parameters(8)),
    "sum: new": Scenario(copied, aggregate(), read_sum),
    "sum: replaced": Scenario(with_sum, aggregate("--force"), read_sum),
    "checkpoint: the first": Scenario(
        lambda folder: None,
        lambda folder: checkpoints(folder).save(checkpoint(1)),
        read_first_checkpoint,
    ),
    "checkpoint: the next": Scenario(
        lambda folder: checkpoints(folder).save(checkpoint(1)),
        lambda folder: checkpoints(folder).save(checkpoint(2)),
        read_checkpoint,
    ),
    "results": Scenario(
        lambda folder: write_results(folder / "results.json", {"rounds": 1}),
        lambda folder: write_results(folder / "results.json", {"rounds": 2}),
        read_results,
    ),
    "held model": keeping(lambda store, n: store.hold(held(n))),
    "held upload": keeping(lambda store, n: store.keep_pending(pending(n, residual=False))),
    "history: a round": history(lambda h: grown(h, 90), lambda h: h.finished == 3),
    "history: a note": history(
        lambda h: h.note("nodes", {"1": "b"}), lambda h: h.read("nodes") == {"1": "b"}
    ),
    "history: another key": rekeyed(),
    **{name: Scenario(step.prepare, step.act, step.read) for name, step in STEPS.items()},
}
