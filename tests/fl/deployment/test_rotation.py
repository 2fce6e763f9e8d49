"""``quancrypt rotate`` in a deployment: every site gets the new key, and the run goes on."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("flwr", reason="needs the [flower] extra")

from tests.fl.deployment.dying import Dying
from tests.fl.flower.federation import Federation, assert_equal, final

import quancrypt_native as qn
from quancrypt_fl.cli import app as commands
from quancrypt_fl.deployment import rotation as steps
from quancrypt_fl.deployment.kits import ClientKit, ServerKit
from quancrypt_fl.deployment.rotation import Rotation
from quancrypt_fl.deployment.sites import in_use
from quancrypt_fl.envelopes.signer import Signer
from quancrypt_fl.flower.training_run import SNAPSHOT
from quancrypt_native import sealing, wire

OURS, TRAVELS = "correct horse battery", "only for the way"
NAMES = ("client-1", "client-2")

Command = Callable[..., str]


@pytest.fixture(autouse=True)
def passphrases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "_SCRYPT_N", 16)
    monkeypatch.setenv("QUANCRYPT_PASSPHRASE", OURS)
    monkeypatch.setenv("QUANCRYPT_NEW_PASSPHRASE", TRAVELS)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command and return its output; with ``fails`` the one line of its error."""

    def invoke(*arguments: object, fails: bool = False) -> str:
        capsys.readouterr()
        status = commands.run([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        assert status == (2 if fails else 0), printed.err
        assert OURS not in printed.out + printed.err
        assert TRAVELS not in printed.out + printed.err
        if fails:
            assert printed.err.count("\n") == 1
            return printed.err
        assert printed.err == ""
        return printed.out

    return invoke


@pytest.fixture
def kits(command: Command, tmp_path: Path) -> Path:
    folder = tmp_path / "kits"
    command("provision", "--out", folder, "--clients", len(NAMES), "--model", "mlp")
    return folder


def key_of(kit: ClientKit, passphrase: str = OURS) -> qn.SecretKey:
    params = qn.Parameters.from_bytes(kit.params.read_bytes())
    data = kit.secret_key.read_bytes()
    return qn.SecretKey.from_bytes(data, params, passphrase=passphrase.encode())


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class Run:
    """A training under the key of kits, in the folders in which a deployment has it."""

    def __init__(self, kits: Path) -> None:
        client = ClientKit.load(kits / NAMES[0])
        params = qn.Parameters.from_bytes(client.params.read_bytes())
        self.kits = kits
        self.folder = kits / "server" / "state" / "runs" / "run-1"
        nodes = {11 + index: kits / name / "secret.key" for index, name in enumerate(NAMES)}
        self.federation = Federation(
            params, client.secret_key, kits / "states", nodes=list(nodes), key_files=nodes
        )

    def go_on(self, rounds: int) -> Any:
        key_id = ServerKit.load(self.kits / "server").key_id
        state = self.folder / "history"
        result = self.federation.go_on(rounds, state=state, key_id=key_id)
        assert result.arrays is not None
        sealed = result.arrays[SNAPSHOT].numpy().tobytes()
        (self.folder / "final-model.sealed").write_bytes(sealed)
        return result


@pytest.fixture
def run(kits: Path, fast_disk: None) -> Run:
    return Run(kits)


@pytest.fixture
def fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", os.fstat)


def test_a_run_goes_on_under_the_new_key(
    run: Run, kits: Path, command: Command, tmp_path: Path
) -> None:
    run.go_on(2)
    old = ServerKit.load(kits / "server").key_id
    before = key_of(ClientKit.load(kits / NAMES[0]))
    new, model = tmp_path / "new", run.folder / "final-model.sealed"
    made = json.loads(command("rotate", kits / NAMES[0], "--out", new, "--model", model, "--json"))
    assert made["old_key"] == old != made["key"]
    assert {str(path.relative_to(new)) for path in new.rglob("*") if path.is_file()} == {
        "clients/rotation.toml", "clients/secret.key", "server/rotation.toml",
        "server/model.sealed",
    }  # fmt: skip
    assert stat.S_IMODE((new / "clients" / "secret.key").stat().st_mode) == 0o600
    assert ServerKit.load(kits / "server").key_id == old  # nothing is installed yet
    for name in NAMES:
        command("rotate", kits / name, "--install", new / "clients")
    shown = command("rotate", kits / "server", "--install", new / "server")
    assert "quancrypt run --resume goes on after round 2" in shown
    for name in NAMES:
        kit = ClientKit.load(kits / name)
        assert kit.key_id == key_of(kit).key_id == made["key"]
        assert stat.S_IMODE(kit.secret_key.stat().st_mode) == 0o600
        kept = kits / name / f"secret-{old}.key"
        params = qn.Parameters.from_bytes(kit.params.read_bytes())
        assert qn.SecretKey.from_bytes(kept.read_bytes(), params, passphrase=OURS.encode()).derive(
            b"x"
        ) == before.derive(b"x")
    shutil.rmtree(run.federation.state_of(11))  # it catches up with what was carried over
    found = final(run.go_on(4), qn.KeyPair(key_of(ClientKit.load(kits / NAMES[1])), None))  # type: ignore[arg-type]
    assert_equal(found, run.federation.expected())
    assert [key["from_round"] for key in run.federation.last.keys] == [1, 3]
    for path, data in contents(kits / "server").items():
        if data.startswith(wire.MAGIC):  # ours: public parameters, and no sealed key
            assert path.name == "params.qcp"


def test_without_a_model_the_next_run_starts_anew(
    kits: Path, command: Command, tmp_path: Path
) -> None:
    made = json.loads(command("rotate", kits / NAMES[1], "--out", tmp_path / "new", "--json"))
    shown = command("rotate", kits / "server", "--install", tmp_path / "new" / "server")
    assert "the next quancrypt run starts anew" in shown
    assert ServerKit.load(kits / "server").key_id == made["key"]


def test_what_people_wrote_into_the_settings_stays(
    kits: Path, command: Command, tmp_path: Path
) -> None:
    path = kits / NAMES[0] / "node.toml"
    text = (
        path.read_text().replace("[run]\n", "# ours\n[run]\n").replace("port = 8000", "port=8001")
    )
    old = ClientKit.load(kits / NAMES[0]).key_id
    path.write_text(text + f"# was {old}\n")
    made = json.loads(command("rotate", kits / NAMES[0], "--out", tmp_path / "new", "--json"))
    command("rotate", kits / NAMES[0], "--install", tmp_path / "new" / "clients")
    assert path.read_text() == text.replace(old, made["key"]) + f"# was {old}\n"
    assert ClientKit.load(kits / NAMES[0]).port == 8001


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("survives", range(3))
def test_an_installation_that_was_interrupted_is_finished(
    kits: Path, command: Command, tmp_path: Path, survives: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between any two of its steps: keeping the old key, the new key, the settings."""
    made = json.loads(command("rotate", kits / NAMES[0], "--out", tmp_path / "new", "--json"))
    install = ("rotate", kits / NAMES[1], "--install", tmp_path / "new" / "clients")

    dying = Dying(survives, Killed)
    with monkeypatch.context() as patch:
        for name in ("keep_as", "write_atomically"):
            patch.setattr(steps, name, dying.step(getattr(steps, name)))
        with pytest.raises(Killed):
            command(*install)
    command(*install)
    kit = ClientKit.load(kits / NAMES[1])
    assert kit.key_id == key_of(kit).key_id == made["key"]
    assert (kit.folder / f"secret-{made['old_key']}.key").is_file()
    before = contents(kit.folder)
    command(*install)  # once more changes nothing
    assert contents(kit.folder) == before


def test_what_it_refuses_changes_nothing(
    kits: Path, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, kit, server = tmp_path / "new", kits / NAMES[0], kits / "server"
    command("rotate", kit, "--out", new)
    other = tmp_path / "others"
    command("provision", "--out", other, "--clients", 2, "--model", "mlp")
    before = contents(tmp_path)

    def refused(*arguments: object) -> str:
        message = command("rotate", *arguments, fails=True)
        assert {p: d for p, d in contents(tmp_path).items() if p.name != "process.lock"} == before
        return message

    assert "allowed: --out or --install, one of them" in refused(kit)
    assert "one of them" in refused(kit, "--out", new, "--install", new)
    assert "--model: allowed with --out" in refused(kit, "--install", new, "--model", new)
    assert "--params: allowed with secret.qck" in refused(kit, "--out", "x", "--params", "y")
    assert "is not empty" in refused(kit, "--out", new)
    assert "it is the server's: quancrypt server" in refused(server, "--out", tmp_path / "x")
    assert "has no rotation.toml; allowed: the folder clients" in refused(kit, "--install", new)
    assert "is to take the place of" in refused(other / NAMES[0], "--install", new / "clients")
    assert "is to take the place of" in refused(other / "server", "--install", new / "server")
    assert "secret.key: cannot be read" in refused(kit, "--install", new / "server")
    assert "params.qcp: " in refused(kit, "--out", tmp_path / "x", "--model", kit / "params.qcp")
    assert "clients: these are the clients' files; they do not belong on the server" in refused(
        server, "--install", new / "clients"
    )
    with monkeypatch.context() as patch:
        patch.setenv("QUANCRYPT_NEW_PASSPHRASE", OURS)
        assert "the new key's passphrase is that of" in refused(kit, "--out", tmp_path / "x")
    with monkeypatch.context() as patch:
        patch.setenv("QUANCRYPT_NEW_PASSPHRASE", "wrong")
        assert "clients/secret.key: the key file does not open" in refused(
            kit, "--install", new / "clients"
        )
    with monkeypatch.context() as patch:
        patch.setenv("QUANCRYPT_PASSPHRASE", "wrong")
        assert "does not open" in refused(kit, "--install", new / "clients")
        assert "does not open" in refused(kit, "--out", tmp_path / "x")


def test_a_kit_in_use_is_left_alone(kits: Path, command: Command, tmp_path: Path) -> None:
    new = tmp_path / "new"
    command("rotate", kits / NAMES[0], "--out", new)
    for name, part in ((NAMES[0], "clients"), ("server", "server")):
        kit = kits / name
        with in_use(kit / "state", "quancrypt test"):
            message = command("rotate", kit, "--install", new / part, fails=True)
        assert "is in use by quancrypt test" in message


def test_a_model_needs_a_run(run: Run, kits: Path, command: Command, tmp_path: Path) -> None:
    run.go_on(1)
    new = tmp_path / "new"
    model = run.folder / "final-model.sealed"
    command("rotate", kits / NAMES[0], "--out", new, "--model", model)
    run.go_on(2)
    message = command("rotate", kits / "server", "--install", new / "server", fails=True)
    assert "seal the model after that round" in message
    shutil.rmtree(run.folder)
    message = command("rotate", kits / "server", "--install", new / "server", fails=True)
    assert "there is no run of the built-in app" in message


def test_the_ids_are_checked(tmp_path: Path) -> None:
    rotation = Rotation("0" * 32, "1" * 32, "2" * 32)
    (tmp_path / "rotation.toml").write_text(rotation.to_text())
    assert Rotation.read(tmp_path) == rotation
    (tmp_path / "rotation.toml").write_text(rotation.to_text().replace("1" * 32, "x"))
    with pytest.raises(ValueError, match="new_key = 'x'; allowed: 32 hexadecimal digits"):
        Rotation.read(tmp_path)


def test_passphrases_of_a_kit_after_a_rotation(
    kits: Path, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signing key follows the key in use, and not one that was kept."""
    made = json.loads(command("rotate", kits / NAMES[0], "--out", tmp_path / "new", "--json"))
    command("rotate", kits / NAMES[0], "--install", tmp_path / "new" / "clients")
    kit = ClientKit.load(kits / NAMES[0])
    monkeypatch.setenv("QUANCRYPT_NEW_PASSPHRASE", "of the kept one")
    command("passwd", kit.folder / f"secret-{made['old_key']}.key")
    assert Signer.from_bytes(kit.signing_key.read_bytes(), passphrase=OURS.encode())
    monkeypatch.setenv("QUANCRYPT_NEW_PASSPHRASE", "of both in use")
    command("passwd", kit.secret_key)
    assert key_of(kit, "of both in use").key_id == made["key"]
    assert Signer.from_bytes(kit.signing_key.read_bytes(), passphrase=b"of both in use")
