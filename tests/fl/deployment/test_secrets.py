"""No secret of the clients is at the server: in no file of its, and in no process's memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

import quancrypt_native as qn
from quancrypt_native import seal

pytest.importorskip("flwr", reason="needs the [flower] extra")

from tests.fl.deployment.deployment import PASSPHRASE, START, Deployment
from tests.fl.deployment.memory import (
    CHUNK,
    Needles,
    Search,
    frozen,
    processes,
    search_files,
    search_processes,
    spellings,
    why_not_readable,
    windows,
)

from quancrypt_fl.deployment.trees import descendants
from quancrypt_fl.envelopes.signer import Signer
from quancrypt_fl.flower.snapshot import _LABEL
from quancrypt_fl.flower.snapshot_prefix import said_by

ROUNDS = 2
WINDOWS = 6  # of 32 bytes, from each form of the key that a client holds
OTHER_WINDOWS = 2  # of 64 coefficients, from each form that it could be turned into
READ_AT_LEAST = 1 << 20  # bytes of a process: less is no process of Python
SERVER = ("server", "superlink", "superexec")

HOLDER = """
import sys
from pathlib import Path
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from quancrypt_fl.envelopes.signer import Signer
import quancrypt_native as qn

kit, passphrase = Path(sys.argv[1]), sys.stdin.buffer.readline().strip()
params = qn.Parameters.from_bytes((kit / "params.qcp").read_bytes())
key = qn.SecretKey.from_bytes((kit / "secret.key").read_bytes(), params, passphrase=passphrase)
packed = key._core.save()
text = (kit / "supernode.key").read_bytes()
login = load_ssh_private_key(text, None)
number = login.private_numbers().private_value.to_bytes(48, "big")
signer = Signer.from_bytes((kit / "signing.key").read_bytes(), passphrase=passphrase)
seed = signer._key.private_bytes_raw()
print("ready", flush=True)
sys.stdin.read()
"""
"""Holds what a client's processes hold, until its standard input is closed."""


# --- what is sought ---


def opened_key(kit: Path) -> qn.SecretKey:
    params = qn.Parameters.from_bytes((kit / "params.qcp").read_bytes())
    data = (kit / "secret.key").read_bytes()
    return qn.SecretKey.from_bytes(data, params, passphrase=PASSPHRASE.encode())


def key_forms(secret: qn.SecretKey) -> dict[str, bytes]:
    """The clients' key in each form in which a client has it.

    ``packed``: two bits a coefficient, what a key file seals. ``coefficients``: int8. ``residues``:
    NTT form, 64-bit words, prime after prime; a stream for SEAL ends with them.
    """
    size = 8 * len(secret.params.coeff_modulus) * secret.params.poly_degree
    return {
        "packed": bytes(secret._core.save()),
        "coefficients": key_coefficients(secret).tobytes(),
        "residues": seal.export_secret_key(secret)[-size:],
    }


def key_coefficients(secret: qn.SecretKey) -> np.ndarray:
    """-1, 0 and 1, int8."""
    packed = bytes(secret._core.save())
    codes = np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little").reshape(-1, 2)
    coefficients: np.ndarray = (codes[:, 0] + 2 * codes[:, 1]).astype(np.int8) - np.int8(1)
    return coefficients


def other_forms(secret: qn.SecretKey) -> dict[str, np.ndarray]:
    """The key as other programs would hold it: wider numbers, and residues before the NTT."""
    coefficients = key_coefficients(secret)
    forms = {str(np.dtype(t)): coefficients.astype(t) for t in ("i2", "i4", "i8", "f4")}
    for prime in secret.params.coeff_modulus:
        forms[f"modulo {prime}"] = np.mod(coefficients.astype(np.int64), prime)
    return forms


def login_number(path: Path) -> bytes:
    """The secret number of a SuperNode's key, 48 bytes."""
    key = serialization.load_ssh_private_key(path.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key.private_numbers().private_value.to_bytes(48, "big")


def login_lines(path: Path) -> list[bytes]:
    """Lines of the key file that hold 18 bytes or more of its secret number."""
    number = login_number(path)
    ends = {**spellings(number[:18]), **{f"end {n}": t for n, t in spellings(number[-18:]).items()}}
    texts = [text for name, text in ends.items() if "base64" in name]
    lines = [n for n in path.read_bytes().splitlines() if any(text in n for text in texts)]
    assert lines, f"{path}: holds its number in another way than expected"
    return lines


def signing_seed(path: Path) -> bytes:
    """The secret of a site's Ed25519 key, 32 bytes."""
    signer = Signer.from_bytes(path.read_bytes(), passphrase=PASSPHRASE.encode())
    return signer._key.private_bytes_raw()


def in_memory(deployment: Deployment, secret: qn.SecretKey) -> dict[str, bytes]:
    """Everything that the server must not have, as a process would hold it."""
    needles = {f"passphrase, {how}": text for how, text in spellings(PASSPHRASE.encode()).items()}
    for form, data in key_forms(secret).items():
        for count, piece in enumerate(windows(data, WINDOWS)):
            needles[f"key, {form} {count}"] = piece
    for form, numbers in other_forms(secret).items():
        for count, piece in enumerate(
            windows(numbers.tobytes(), OTHER_WINDOWS, 64 * numbers.itemsize)
        ):
            needles[f"other form of the key, {form} {count}"] = piece
    for name in deployment.names:
        for file in ("secret.key", "signing.key"):  # also sealed they have no place there
            needles[f"sealed {file} of {name}"] = (deployment.kits / name / file).read_bytes()[-64:]
        path = deployment.kits / name / "supernode.key"
        needles[f"login of {name}"] = login_number(path)
        needles[f"login of {name}, little-endian"] = login_number(path)[::-1]
        for count, line in enumerate(login_lines(path)):
            needles[f"login of {name}, line {count}"] = line
        needles[f"signing key of {name}"] = signing_seed(deployment.kits / name / "signing.key")
    return needles


def in_files(needles: Needles) -> dict[str, bytes]:
    """The same, and as a text would spell it."""
    spelled = {
        f"{name}, {how}": text
        for name, data in needles.items()
        if "passphrase" not in name and "line" not in name
        for how, text in spellings(data).items()
    }
    return {**needles, **spelled}


def snapshot_keys(deployment: Deployment, secret: qn.SecretKey) -> dict[str, bytes]:
    """Keys of the models that clients have sealed and the server keeps."""
    state = deployment.kits / "server/state"
    sealed = [*state.rglob("snapshot-*.bin"), *state.rglob("final-model.sealed")]
    found = {}
    for path in sealed:
        try:
            salt = said_by(path.read_bytes()).salt
        except FileNotFoundError:  # replaced by the next
            continue
        found[f"key of {path.name}"] = secret.derive(_LABEL + salt)
    return found


def session_passphrases(deployment: Deployment) -> dict[str, bytes]:
    """What opens the copy of the key that each client has sealed for its run."""
    name, found = b"QUANCRYPT_PASSPHRASE=", {}
    for client in deployment.names:
        for member in descendants(deployment.running[client].pid):
            try:
                values = Path(f"/proc/{member.pid}/environ").read_bytes().split(b"\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            for value in values:
                if value.startswith(name) and value != name + PASSPHRASE.encode():
                    found[f"passphrase of {client}'s session"] = value.removeprefix(name)
    return found


# --- where it is sought ---


def search_server(deployment: Deployment, needles: Needles) -> Search:
    """Search the memory of the server with all that it started, and of ``quancrypt run``.

    Those that end with the training come first, and wait meanwhile: they are read whole.
    """
    running = [deployment.running[name].pid for name in ("server", "run")
               if name in deployment.running]  # fmt: skip
    members = processes(*running)
    passing = {pid: what for pid, what in members.items() if what.endswith((" serverapp", " run"))}
    with frozen(passing):
        both = search_processes(passing, needles)
    lasting = {pid: what for pid, what in members.items() if pid not in passing}
    search = search_processes(lasting, needles)
    both.read |= search.read
    both.found |= search.found
    return both


def assert_clean(search: Search, *programs: str) -> None:
    """Nothing is found, and all of these programs were read."""
    assert search.found == {}
    for program in programs:
        sizes = [size for name, size in search.read.items() if f" {program} " in name]
        assert max(sizes, default=0) >= READ_AT_LEAST, f"{program} is not in {search.read}"


@contextmanager
def holder(kit: Path) -> Iterator[int]:
    """A process that holds a client's secrets, and its number."""
    command = [sys.executable, "-c", HOLDER, str(kit)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(PASSPHRASE.encode() + b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"ready\n"
        yield process.pid
        process.stdin.close()


def finished_rounds(deployment: Deployment) -> int:
    """Rounds that the server's status says are finished; -1 before clients are asked."""
    try:
        status = json.loads((deployment.run_folder / "status.json").read_bytes())
    except FileNotFoundError:
        return -1
    return int(status["finished"]) if status["phase"] or status["finished"] else -1


def start(deployment: Deployment) -> None:
    """Start server and clients. The server is not given the passphrase, as nobody would."""
    everything = deployment.environment
    server = {k: v for k, v in everything.items() if k != "QUANCRYPT_PASSPHRASE"}
    deployment.environment = server
    deployment.start("server")
    deployment.wait_for_port()
    deployment.environment = everything
    for name in deployment.names:
        deployment.start(name)
    deployment.environment = server  # for the run


def test_no_secret_of_the_clients_reaches_the_server(tmp_path: Path) -> None:
    if reason := why_not_readable():
        pytest.skip(reason)
    deployment = Deployment(tmp_path, 2, ["--rounds", str(ROUNDS), "--local-epochs", "1"])
    secret = opened_key(deployment.kits / "client-1")
    needles = in_memory(deployment, secret)
    sought = dict(needles)
    try:
        start(deployment)
        deployment.wait_for(
            lambda: len(session_passphrases(deployment)) == 2, "the clients to start", START
        )
        sought |= session_passphrases(deployment)
        assert_clean(search_server(deployment, sought), *SERVER)

        deployment.start_run("--snapshot-every", 1)
        for rounds in range(ROUNDS + 1):  # in the first round, in the second, and at the end
            deployment.wait_for(
                lambda least=rounds: finished_rounds(deployment) >= least,
                f"{rounds} rounds to be finished",
            )
            sought |= snapshot_keys(deployment, secret)
            assert_clean(search_server(deployment, sought), *SERVER, "serverapp", "run")
        deployment.finish_run()
        sought |= snapshot_keys(deployment, secret)
        assert "key of final-model.sealed" in sought
        assert_clean(search_server(deployment, sought), *SERVER)

        # What it would have looked like: the same search, where a client's secrets are.
        with holder(deployment.kits / "client-1") as process:
            control = search_processes(processes(process), needles)
        held = {name for name in needles if name.startswith("key, ")}
        assert control.found.keys() >= held | {
            "passphrase, bytes", "login of client-1", "signing key of client-1",
        }  # fmt: skip
        others = {name for name in needles if "client-2" in name}
        others.discard("sealed secret.key of client-2")  # one sealed file for all kits
        assert not others & control.found.keys()
    finally:
        deployment.end()

    assert deployment.results()["receipt"]["protected"]
    places = [tmp_path / "results", deployment.kits / "server", *tmp_path.glob("*.log")]
    kept = search_files(places, in_files(sought))
    assert kept.found == {}
    assert {Path(name).name for name in kept.read} >= {
        "flower.db", "server.key", "results.json", "final-model.sealed", "server.log", "run.log",
        "client-1.log", "client-2.log",
    }  # fmt: skip


def test_files_are_searched_across_the_blocks_in_which_they_are_read(tmp_path: Path) -> None:
    secret = np.random.default_rng(1).bytes(48)
    needles = in_files({"secret": secret})
    assert len(needles) == 7
    path = tmp_path / "below" / "file"
    path.parent.mkdir()
    for name, needle in needles.items():
        for start in (0, CHUNK - len(needle) // 2, 2 * CHUNK - 1):
            path.write_bytes(bytes(start) + needle + bytes(9))
            assert name in search_files([tmp_path], needles).found
    for name, spelled in spellings(secret).items():
        assert len(spelled) >= 48, name
    path.write_bytes(secret[1:] + bytes(CHUNK) + secret[:-1])
    assert not search_files([path], needles).found
