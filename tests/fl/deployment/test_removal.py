"""Clients that leave: what the server still takes from them after a new key, and after removal."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("flwr", reason="needs the [flower] extra")

from tests.fl.deployment.dying import Dying
from tests.fl.deployment.test_joining import Control

from quancrypt_fl.cli import app as commands
from quancrypt_fl.cli.client import opened_signer
from quancrypt_fl.deployment import removal
from quancrypt_fl.deployment import superlink as superlinks
from quancrypt_fl.deployment.admission import Admission, AdmissionError, admit
from quancrypt_fl.deployment.events import EventLog
from quancrypt_fl.deployment.kits import ClientKit, KitError, ServerKit
from quancrypt_fl.deployment.removal import RemovalError, remove
from quancrypt_fl.deployment.runs import builtin_settings
from quancrypt_fl.deployment.superlink import SuperLink
from quancrypt_fl.envelopes import EnvelopeError, Gate, Members, Purpose, Refusal
from quancrypt_fl.envelopes.signer import Signer
from quancrypt_fl.flower import control as controls
from quancrypt_native import sealing

PASSPHRASE = "correct horse battery"
RUN, ROUND = "01" * 16, 5

Command = Callable[..., str]


@pytest.fixture(autouse=True)
def passphrases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "_SCRYPT_N", 16)
    monkeypatch.setenv("QUANCRYPT_PASSPHRASE", PASSPHRASE)
    monkeypatch.setenv("QUANCRYPT_NEW_PASSPHRASE", "only for the way")


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command and return its output; with ``fails`` the one line of its error."""

    def invoke(*arguments: object, fails: bool = False) -> str:
        capsys.readouterr()
        status = commands.run([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        assert status == (2 if fails else 0), printed.err
        assert printed.err.count("\n") == fails
        return printed.err if fails else printed.out

    return invoke


@pytest.fixture
def kits(command: Command, tmp_path: Path) -> Path:
    """Kits of three clients, of whom a round needs two, with no room for a fourth."""
    out = tmp_path / "kits"
    options = ("--model", "mlp", "--max-weight", 3)
    command("provision", "--out", out, "--clients", 3, *options)
    return out


def signer_of(kits: Path, name: str) -> Signer:
    return opened_signer(ClientKit.load(kits / name), PASSPHRASE.encode())


def upload(server: ServerKit, signer: Signer) -> str:
    """What the server's gate says of an upload, bound to all that the server goes by now."""
    bound: dict[str, Any] = {"run": RUN, "params": server.parameters_id, "key": server.key_id}
    gate = Gate(Members.load(server.members), **bound)
    envelope = signer.envelope(b"an update", purpose=Purpose.UPLOAD, round=ROUND, **bound)
    try:
        return gate.open(envelope, round=ROUND).member.name
    except EnvelopeError as error:
        return error.reason


def test_a_new_key_stops_reading_and_removal_stops_writing(
    command: Command, kits: Path, tmp_path: Path
) -> None:
    leaver, stays, new = signer_of(kits, "client-2"), signer_of(kits, "client-3"), tmp_path / "new"
    old = ServerKit.load(kits / "server").key_id
    command("rotate", kits / "client-1", "--out", new)
    command("rotate", kits / "server", "--install", new / "server")
    server = ServerKit.load(kits / "server")
    assert server.key_id != old
    # The header's key is the new one, whatever the update was encrypted with: it is signed.
    assert upload(server, leaver) == "client-2"
    shown = command("server", kits / "server", "--remove", "client-2")
    assert "client-2: may no longer connect or upload" in shown
    server = ServerKit.load(kits / "server")
    assert upload(server, leaver) is Refusal.STRANGER
    assert upload(server, stays) == "client-3"


def test_nobody_elses_place_changes(kits: Path) -> None:
    server = kits / "server"
    before = ServerKit.load(server)
    loaded = remove(server, "client-2")
    assert loaded == ServerKit.load(server)  # the next start
    assert [(site.name, site.partition) for site in loaded.sites] == [
        ("client-1", 0), ("client-3", 2),
    ]  # fmt: skip
    assert loaded.names == ("client-1", "", "client-3")
    assert loaded.config == before.config  # clients = 3: data are divided as before
    how: dict[str, Any] = {"rounds": None, "timeout": 5.0, "wait": 1.0, "snapshot_every": 2}
    assert builtin_settings(loaded, "run-1", **how) == builtin_settings(before, "run-1", **how)
    assert [member.name for member in Members.load(loaded.members)] == ["client-1", "client-3"]
    assert sorted(path.name for path in (server / "supernodes").iterdir()) == [
        "client-1.pub", "client-3.pub",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("places = 3", "places = 1", "places = 1; allowed: 2 to 65536"),
        ("places = 3", "", "partition = 2; allowed: 1 to 1"),
        ("places = 3", "places = 2", "partition = 2; allowed: 1 to 1"),
        ("partition = 2", "partition = 3", "partition = 3; allowed: 1 to 2"),
        ("partition = 2", "partition = 0", "partition = 0; allowed: 1 to 2"),
        ("partition = 0", "partition = 2", "partition = 2; allowed: 0 to 1"),
    ],
)
def test_a_list_with_wrong_places(kits: Path, old: str, new: str, message: str) -> None:
    remove(kits / "server", "client-2")
    path = kits / "server" / "clients.toml"
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    with pytest.raises(KitError, match=message):
        ServerKit.load(kits / "server")


def test_the_last_place_stays_too(kits: Path) -> None:
    loaded = remove(kits / "server", "client-3")
    assert loaded.names == ("client-1", "client-2", "")
    assert loaded.config.clients == 3


def test_a_site_with_new_keys_in_its_place(command: Command, kits: Path, tmp_path: Path) -> None:
    """A kit was copied: the site gets another login and signing key, and its part of the data."""
    server, old, more = kits / "server", signer_of(kits, "client-2"), tmp_path / "more"
    add = ("provision", "--add", 1, "--like", kits / "client-1")
    command(*add, "--place", 2, "--out", more)
    told = Admission.read(more / "admission.toml")
    with pytest.raises(AdmissionError, match="there is a client client-2 already"):
        admit(server, told)
    remove(server, "client-2")
    command("server", server, "--admit", more / "admission.toml")
    loaded = ServerKit.load(server)
    assert loaded.names == ("client-1", "client-2", "client-3")
    assert "places" not in (server / "clients.toml").read_text()
    kit = ClientKit.load(more / "client-2")
    assert (kit.partition, kit.partitions) == (1, 3)
    assert loaded.sites[1].public_key.read_bytes() == kit.auth_public_key.read_bytes()
    assert upload(loaded, old) is Refusal.STRANGER
    assert upload(loaded, signer_of(more, "client-2")) == "client-2"
    # The kit of the first place can be replaced as well.
    remove(server, "client-1")
    command(
        "provision", "--add", 1, "--like", kits / "client-3", "--place", 1,
        "--name", "porto", "--out", tmp_path / "first",
    )  # fmt: skip
    admit(server, Admission.read(tmp_path / "first" / "admission.toml"))
    assert ServerKit.load(server).names == ("porto", "client-2", "client-3")


def test_what_a_newcomer_is_told_of_free_places(
    command: Command, kits: Path, tmp_path: Path
) -> None:
    remove(kits / "server", "client-2")
    add = ("provision", "--add", 1, "--like", kits / "client-1", "--out", tmp_path / "more")
    command(*add, "--place", 3)  # taken
    with pytest.raises(AdmissionError, match="there is a client client-3 already"):
        admit(kits / "server", Admission.read(tmp_path / "more" / "admission.toml"))
    command(*add[:-1], tmp_path / "x", "--place", 3, "--name", "x")
    with pytest.raises(AdmissionError, match=r"which has 3; .* --present 3 or --place 2"):
        admit(kits / "server", Admission.read(tmp_path / "x" / "admission.toml"))
    again = (*add[:-1], tmp_path / "y")
    for options in (["--place", 2, "--present", 3], ["--add", 2, "--place", 2]):
        assert "--place goes with --add 1" in command(*again, *options, fails=True)
    assert "is that of client-1" in command(*again, "--place", 1, fails=True)
    assert "--place goes with --add 1" in command(
        "provision", "--out", tmp_path / "y", "--place", 1, fails=True
    )


def test_who_cannot_be_removed(
    command: Command, kits: Path, files_below: Callable[[Path], dict[str, bytes]]
) -> None:
    server = kits / "server"
    with pytest.raises(RemovalError, match=r"no client client-9; allowed: client-1, client-2, cl"):
        remove(server, "client-9")
    for name in ("../client-1", "server"):
        assert "allowed: letters, digits" in command("server", server, "--remove", name, fails=True)
    remove(server, "client-2")
    before = files_below(server)
    with pytest.raises(RemovalError, match="there would be 1 of the 2 clients that a round needs"):
        remove(server, "client-3")
    assert "no client client-2" in command("server", server, "--remove", "client-2", fails=True)
    for option in ("--metrics", "--admit"):
        assert "--admit and --remove" in command(
            "server", server, "--remove", "client-1", option, 9100, fails=True
        )
    assert files_below(server) == before


def test_as_many_stay_as_the_run_asks_for(command: Command, tmp_path: Path) -> None:
    options = ("--clients", 3, "--model", "mlp", "--min-arrivals", 3)
    command("provision", "--out", tmp_path / "all", *options)
    with pytest.raises(RemovalError, match="2 of the 3 clients that a round needs"):
        remove(tmp_path / "all" / "server", "client-1")


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("survives", range(3))
@pytest.mark.parametrize("how", [Killed, OSError(28, os.strerror(28))], ids=["kill", "full"])
def test_a_removal_that_was_interrupted_is_finished(
    kits: Path, monkeypatch: pytest.MonkeyPatch, survives: int, how: Any
) -> None:
    """Between any two of its steps the kit is sound, and from the first on the login is gone."""
    server, dying = kits / "server", Dying(survives, how)
    with monkeypatch.context() as patch:
        patch.setattr(removal, "write_atomically", dying.step(removal.write_atomically))
        patch.setattr(Path, "unlink", dying.step(Path.unlink) if survives == 2 else Path.unlink)
        with pytest.raises((Killed, RemovalError)):
            remove(server, "client-2")
    found = ServerKit.load(server)
    assert ("client-2" in found.names) == (survives == 0)
    leaver = signer_of(kits, "client-2")
    assert upload(found, leaver) == ("client-2" if survives < 2 else Refusal.STRANGER)
    loaded = remove(server, "client-2")
    assert loaded.names == ("client-1", "", "client-3")
    assert upload(loaded, leaver) is Refusal.STRANGER
    assert not (server / "supernodes" / "client-2.pub").exists()


# --- a server that is running ---


class Refusing(Control):
    """A SuperLink that refuses or is away for some calls."""

    errors: list[Exception]

    def __init__(self) -> None:
        super().__init__()
        self.errors = []

    def register_only(self, keys: Any) -> dict[str, int]:
        if self.errors:
            raise self.errors.pop()
        return super().register_only(keys)


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch) -> Refusing:
    made = Refusing()
    monkeypatch.setattr(superlinks, "_NODES_EVERY", 0.0)
    monkeypatch.setattr(superlinks, "_answers", lambda url, ca: True)
    monkeypatch.setattr(controls, "Control", lambda address, ca: made)
    return made


def test_a_running_server_shuts_the_client_out(kits: Path, control: Refusing) -> None:
    output = io.StringIO()
    running = SuperLink(ServerKit.load(kits / "server"), EventLog(output))
    for _ in range(3):
        running.tick()
    assert control.registered[-1] == ["client-1", "client-2", "client-3"]
    remove(kits / "server", "client-2")
    # Refused, then away: it is tried until it is done, and one warning says why it was not.
    control.errors = [
        controls.ControlUnavailableError("away"), *[controls.ControlError("no")] * 2,
    ]  # fmt: skip
    for _ in range(6):
        running.tick()
    assert control.registered[-1] == ["client-1", "client-3"]
    assert output.getvalue().count("client-2 may no longer connect") == 1
    assert output.getvalue().count("the new list of clients is not in use: no") == 1


def test_removed_while_the_superlink_was_away(kits: Path, control: Refusing) -> None:
    """The list that the server started with names a public key that is gone."""
    running = SuperLink(ServerKit.load(kits / "server"), EventLog(io.StringIO()))
    running.tick()
    running._died(9)
    remove(kits / "server", "client-2")
    before = len(control.registered)
    for _ in range(3):
        running.tick()
    assert len(control.registered) > before
    assert all("client-2" not in names for names in control.registered[before:])


def test_a_public_key_that_goes_while_it_is_read(
    kits: Path, control: Refusing, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = SuperLink(ServerKit.load(kits / "server"), EventLog(io.StringIO()))
    running.tick()
    remove(kits / "server", "client-2")
    control.errors = [FileNotFoundError("client-2.pub")]
    for _ in range(3):
        running.tick()
    assert control.registered[-1] == ["client-1", "client-3"]
