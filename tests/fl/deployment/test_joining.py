"""Clients that come later: their kits, what the server is told, and a server that is running."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer

import quancrypt_native as qn
from quancrypt_fl.cli.errors import CommandError
from quancrypt_fl.cli.server import server
from quancrypt_fl.deployment import admission as admissions
from quancrypt_fl.deployment.admission import Admission, AdmissionError, admit
from quancrypt_fl.deployment.events import EventLog
from quancrypt_fl.deployment.kits import ClientKit, KitError, ServerKit
from quancrypt_fl.deployment.superlink import SuperLink

PASSPHRASE = "correct horse battery"

Run = Callable[..., str]
Below = Callable[[Path], dict[str, bytes]]

pytestmark = pytest.mark.usefixtures("provision_command")


@pytest.fixture
def deployment(run: Run, tmp_path: Path) -> Path:
    """Kits of two clients, with room for two more."""
    run("--out", tmp_path / "kits", "--clients", 2, "--max-weight", 4)
    return tmp_path / "kits"


def add(run: Run, kits: Path, count: int, out: Path, *options: object, **how: Any) -> str:
    return run("--add", count, "--like", kits / "client-1", "--out", out, *options, **how)


def edit(path: Path, old: str, new: str) -> Path:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


def serve(*arguments: object) -> None:
    app = typer.Typer()
    app.command()(server)
    app([str(argument) for argument in arguments], standalone_mode=False)


# --- the newcomers' kits ---


def test_newcomers_have_the_key_and_logins_of_their_own(
    run: Run, deployment: Path, tmp_path: Path, files_below: Below
) -> None:
    old = ClientKit.load(deployment / "client-1")
    before = files_below(deployment)
    document = json.loads(add(run, deployment, 2, tmp_path / "more", "--json"))
    assert [client["name"] for client in document["clients"]] == ["client-3", "client-4"]
    assert document["admission"] == str(tmp_path / "more" / "admission.toml")
    params = qn.Parameters.from_bytes(old.params.read_bytes())
    logins = {old.auth_key.read_bytes()}
    for partition, name in ((2, "client-3"), (3, "client-4")):
        kit = ClientKit.load(tmp_path / "more" / name)
        assert (kit.partition, kit.partitions, kit.address) == (partition, 4, old.address)
        assert kit.ca.read_bytes() == old.ca.read_bytes()
        assert kit.config == old.config.model_copy(update={"clients": 4})
        sealed = kit.secret_key.read_bytes()
        assert sealed != old.secret_key.read_bytes()  # sealed afresh
        key = qn.SecretKey.from_bytes(sealed, params, passphrase=PASSPHRASE.encode())
        assert key.key_id == old.key_id
        assert kit.exposed() == []
        logins.add(kit.auth_key.read_bytes())
    assert len(logins) == 3
    assert files_below(deployment) == before
    told = (tmp_path / "more" / "admission.toml").read_bytes()
    assert b"PRIVATE" not in told
    assert sealed[-64:] not in told


def test_passphrases_of_the_newcomers(
    run: Run, deployment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = tmp_path / "words"
    words.mkdir()
    (words / "porto").write_text("another\n")
    out = tmp_path / "more"
    add(run, deployment, 1, out, "--name", "porto", "--passphrase-dir", words)
    kit = ClientKit.load(out / "porto")
    params = qn.Parameters.from_bytes(kit.params.read_bytes())
    qn.SecretKey.from_bytes(kit.secret_key.read_bytes(), params, passphrase=b"another")
    monkeypatch.setenv("QUANCRYPT_PASSPHRASE", "wrong")
    assert "wrong passphrase" in add(run, deployment, 1, tmp_path / "no", fails=True)
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--add", 0], "--add"),
        (["--add", 1], "--add goes with --like KIT"),
        (["--like", "K"], "--like and --present go with --add"),
        (["--present", 2], "--like and --present go with --add"),
        (["--add", 1, "--like", "K", "--rounds", 4], "--rounds: not with --add"),
        (["--add", 1, "--like", "K", "--keep-ca", "x"], "--keep-ca: not with --add"),
        (["--add", 2, "--like", "K", "--name", "a"], "1 names for 2 newcomers"),
        (["--add", 1, "--like", "K", "--name", "server"], "'server'; allowed"),
        (["--add", 2, "--like", "K", "--name", "a", "--name", "A"], "more than one client is"),
        (["--add", 1, "--like", "S"], "it is the server's"),
        (["--add", 3, "--like", "K"], "5 clients do not fit: max_weight = 4 is below the 5"),
        (["--add", 1, "--like", "K", "--present", 4], "new kits for more clients"),
        (["--add", 1, "--like", "L", "--present", 1], "client-2 is client 2; allowed: 2 or more"),
    ],
)
def test_wrong_arguments(
    run: Run, deployment: Path, tmp_path: Path, options: list[Any], message: str
) -> None:
    places = {"K": "client-1", "L": "client-2", "S": "server"}
    given = [deployment / places[one] if one in places else one for one in options]
    assert message in run("--out", tmp_path / "more", *given, fails=True)
    assert not (tmp_path / "more").exists()


# --- the server's list ---


def test_newcomers_are_let_in(run: Run, deployment: Path, tmp_path: Path, capsys: Any) -> None:
    add(run, deployment, 1, tmp_path / "more")
    for _ in range(2):  # a second time changes nothing
        serve(deployment / "server", "--admit", tmp_path / "more" / "admission.toml")
        assert "client-3: known to" in capsys.readouterr().out
        kit = ServerKit.load(deployment / "server")
        assert [site.name for site in kit.sites] == ["client-1", "client-2", "client-3"]
        assert kit.config.clients == 3
    client = ClientKit.load(tmp_path / "more" / "client-3")
    assert kit.sites[2].public_key.read_bytes() == client.auth_public_key.read_bytes()
    # The next one: from the kit that came last, or with the number of those who are there.
    run("--add", 1, "--like", client.folder, "--out", tmp_path / "four")
    add(run, deployment, 1, tmp_path / "again", "--present", 3)
    for folder in ("four", "again"):
        assert ClientKit.load(tmp_path / folder / "client-4").partition == 3
    with pytest.raises(CommandError, match="not with --metrics"):
        serve(deployment / "server", "--admit", tmp_path / "x", "--metrics", 9100)


def test_who_is_not_let_in(run: Run, deployment: Path, tmp_path: Path, files_below: Below) -> None:
    before = files_below(deployment / "server")

    def refused(file: Path, message: str, error: type[Exception] = AdmissionError) -> None:
        with pytest.raises(error, match=message):
            admit(deployment / "server", Admission.read(file))
        assert files_below(deployment / "server") == before

    run("--out", tmp_path / "other", "--clients", 2, "--max-weight", 4)
    add(run, tmp_path / "other", 1, tmp_path / "theirs")
    refused(tmp_path / "theirs" / "admission.toml", "another deployment: their key")
    add(run, deployment, 1, tmp_path / "same", "--name", "Client-2")
    refused(tmp_path / "same" / "admission.toml", "there is a client client-2 already")
    add(run, deployment, 1, tmp_path / "late", "--present", 3)
    refused(tmp_path / "late" / "admission.toml", "which has 2; make its kit again with --present")
    add(run, deployment, 1, tmp_path / "copy")
    public = (deployment / "client-1" / "supernode.pub").read_text().split()[1]
    file = tmp_path / "copy" / "admission.toml"
    line = Admission.read(file).newcomers[0].public_key
    refused(edit(file, line.split()[1], public), "is that of another client")
    file = edit(file, "schema = 1", "schema = 9")
    refused(file, "schema = 9", KitError)
    refused(deployment / "server" / "clients.toml", r"no table \[key\]", KitError)
    with pytest.raises(KitError, match="no such folder"):
        admit(tmp_path / "nowhere", Admission("0" * 32, "0" * 32, ()))


def test_more_than_the_parameters_allow(run: Run, deployment: Path, tmp_path: Path) -> None:
    """The kit that was made last is the measure; an edited file gets no further."""
    edit(deployment / "server" / "deployment.toml", "max_weight = 4", "max_weight = 2")
    add(run, deployment, 1, tmp_path / "more")
    admission = Admission.read(tmp_path / "more" / "admission.toml")
    with pytest.raises(KitError, match="3 clients do not fit: max_weight = 2"):
        admit(deployment / "server", admission)


def test_an_admission_that_is_interrupted_changes_nothing(
    run: Run, deployment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(run, deployment, 2, tmp_path / "more")
    admission = Admission.read(tmp_path / "more" / "admission.toml")
    real, written = admissions.write_atomically, []

    def stop(path: Path, data: bytes, **options: Any) -> None:
        written.append(path)
        if path.name == "clients.toml":
            raise OSError(28, os.strerror(28))
        real(path, data, **options)

    monkeypatch.setattr(admissions, "write_atomically", stop)
    with pytest.raises(AdmissionError, match="cannot be written: No space left"):
        admit(deployment / "server", admission)
    assert written[-1].name == "clients.toml"  # the last step, after both newcomers' keys
    assert {"client-3.pub", "client-4.pub"} <= {path.name for path in written[:-1]}
    assert len(ServerKit.load(deployment / "server").sites) == 2
    monkeypatch.undo()
    assert len(admit(deployment / "server", admission).sites) == 4


# --- a server that is running ---


class Control:
    """What a SuperLink is asked to register."""

    def __init__(self) -> None:
        self.registered: list[list[str]] = []

    def register_only(self, keys: Mapping[str, Path]) -> dict[str, int]:
        assert all(path.is_file() for path in keys.values())
        self.registered.append(list(keys))
        return {name: number for number, name in enumerate(keys)}

    def nodes(self) -> list[Any]:
        return []

    def close(self) -> None:
        pass


def test_a_running_server_lets_newcomers_in(
    run: Run, deployment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("flwr", reason="needs the [flower] extra")
    from quancrypt_fl.deployment import superlink as module
    from quancrypt_fl.flower import control as controls

    control, output = Control(), io.StringIO()
    monkeypatch.setattr(module, "_NODES_EVERY", 0.0)
    monkeypatch.setattr(module, "_answers", lambda url, ca: True)
    monkeypatch.setattr(controls, "Control", lambda address, ca: control)
    running = SuperLink(ServerKit.load(deployment / "server"), EventLog(output))
    for _ in range(3):
        running.tick()
    before = len(control.registered)
    assert control.registered[-1] == ["client-1", "client-2"]
    add(run, deployment, 1, tmp_path / "more")
    admit(deployment / "server", Admission.read(tmp_path / "more" / "admission.toml"))
    for _ in range(3):
        running.tick()
    assert control.registered[before:] == [["client-1", "client-2", "client-3"]]
    assert "client-3 may connect from now on" in output.getvalue()
    edit(deployment / "server" / "clients.toml", '"client-3"', '"client-9"')
    for _ in range(3):
        running.tick()
    assert len(control.registered) == before + 1
    assert output.getvalue().count("the new list of clients is not in use") == 1
