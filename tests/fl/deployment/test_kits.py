"""Kits as they are loaded: damaged, incomplete, mistaken, moved."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from quancrypt_fl.deployment import tables
from quancrypt_fl.deployment.kits import ClientKit, KitError, ServerKit

Run = Callable[..., str]
Below = Callable[[Path], dict[str, bytes]]

pytestmark = pytest.mark.usefixtures("provision_command")


@pytest.fixture
def kits_copy(run: Run, tmp_path: Path) -> Path:
    run("--out", tmp_path / "kits", "--clients", 2)
    return tmp_path / "kits"


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("deployment.toml", "port = 8000", "port = 0", "port = 0; allowed: 1 to 65535"),
        ("deployment.toml", "port = 8000", "port = true", "port = True; allowed"),
        ("deployment.toml", "port = 8000", "", "port is missing"),
        ("deployment.toml", "port = 8000", "port = 8000\nprot = 1", "unknown: 'prot'"),
        ("deployment.toml", "schema = 1", "schema = 2", "schema = 2; this version reads 1"),
        ("deployment.toml", "schema = 1", "schema = ", "is no TOML file"),
        ("deployment.toml", "[server]", "[sever]", "there is no table [server]"),
        ("deployment.toml", "bits = 8", "bits = 99", "bits = 99"),
        ("deployment.toml", "bits = 8", 'method = "vanilla"', "method: not allowed here"),
        ("deployment.toml", "bits = 8", 'dp = "discrete-gaussian"', "dp: not allowed here"),
        ("deployment.toml", "bits = 8", "groups = 3", "groups: not allowed here; it belongs to s"),
        ("deployment.toml", "bits = 8", 'data_dir = "/x"', "data_dir: not allowed here"),
        ("deployment.toml", "bits = 8", "colour = 1", "colour"),
        ("deployment.toml", 'app = "builtin"', 'app = "x"', "allowed: builtin, finetune, own"),
        ("clients.toml", '[[client]]\nname = "client-2"\npartition = 1\n', "", "1 clients; "),
        ("deployment.toml", "parameters = ", 'parameters = "z" #', "32 hexadecimal digits"),
        ("clients.toml", "partition = 1", "partition = 0", "partition = 0; allowed: 1 to 1"),
        ("clients.toml", '"client-2"', '"client-1"', "more than once: client-1"),
        ("clients.toml", '"client-2"', '"../client-1/x"', "allowed: letters"),
        ("clients.toml", '"client-2"', '"client-9"', "client-9.pub: the file is missing"),
        ("supernodes/client-1.pub", "ecdsa-sha2-nistp384", "ssh-rsa", "public key of ECDSA"),
    ],
)
def test_a_damaged_kit_of_the_server(
    kits_copy: Path, file: str, old: str, new: str, message: str
) -> None:
    path = kits_copy / "server" / file
    edit(path, old, new)
    with pytest.raises(KitError) as caught:
        ServerKit.load(kits_copy / "server")
    assert message in str(caught.value)
    if "missing from" not in message and "the file" not in message:
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("partition = 1", "partition = 2", "partition = 2; allowed: 0 to 1"),
        ("partitions = 2", "partitions = 3", "clients = 2 in [run]"),
        ('name = "client-2"', 'name = "a/b"', "'a/b'; allowed: letters"),
        ('name = "client-2"', "name = 2", "name = 2; allowed: text"),
        ("[node]", "[nodes]", "there is no table [node]"),
    ],
)
def test_a_damaged_kit_of_a_client(kits_copy: Path, old: str, new: str, message: str) -> None:
    path = kits_copy / "client-2" / "node.toml"
    edit(path, old, new)
    with pytest.raises(KitError, match=re.escape(message)) as caught:
        ClientKit.load(kits_copy / "client-2")
    assert str(path) in str(caught.value)


def test_incomplete_and_mistaken_folders(
    kits_copy: Path, tmp_path: Path, files_below: Below
) -> None:
    with pytest.raises(KitError, match="it is a client's: quancrypt client takes it"):
        ServerKit.load(kits_copy / "client-1")
    with pytest.raises(KitError, match="it is the server's: quancrypt server takes it"):
        ClientKit.load(kits_copy / "server")
    with pytest.raises(KitError, match="it is no kit of this kind"):
        ServerKit.load(kits_copy)
    with pytest.raises(KitError, match="there is no such folder; quancrypt provision makes kits"):
        ServerKit.load(tmp_path / "nowhere")
    for kit, loaded in (("server", ServerKit), ("client-1", ClientKit)):
        for name in files_below(kits_copy / kit).keys() - {"README.txt"}:
            path = kits_copy / kit / name
            data = path.read_bytes()
            path.unlink()
            with pytest.raises(KitError, match=re.escape(name.rpartition("/")[2])):
                loaded.load(kits_copy / kit)  # type: ignore[attr-defined]
            path.write_bytes(data)
        loaded.load(kits_copy / kit)  # type: ignore[attr-defined]


def test_a_huge_or_unreadable_file(kits_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = kits_copy / "server" / "deployment.toml"
    monkeypatch.setattr(tables, "_LARGEST_FILE", path.stat().st_size - 1)
    with pytest.raises(KitError, match="more than"):
        ServerKit.load(kits_copy / "server")
    monkeypatch.undo()
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(KitError, match="is no TOML file"):
        ServerKit.load(kits_copy / "server")


def test_secrets_that_others_may_read_are_named(kits_copy: Path) -> None:
    key = kits_copy / "client-1" / "secret.key"
    key.chmod(0o640)
    assert ClientKit.load(kits_copy / "client-1").exposed() == [key]
    key = kits_copy / "server" / "server.key"
    key.chmod(0o604)
    assert ServerKit.load(kits_copy / "server").exposed() == [key]


def test_a_kit_may_move(kits_copy: Path, tmp_path: Path, files_below: Below) -> None:
    """No file of a kit holds the place where it was made."""
    for name, data in files_below(kits_copy).items():
        if name != "README.txt":
            assert str(tmp_path).encode() not in data, name
    moved = tmp_path / "a site's folder"
    (kits_copy / "client-1").rename(moved)
    kit = ClientKit.load(moved)
    assert kit.node_config()["quancrypt-key"] == str(moved / "secret.key")
    assert kit.name == "client-1"


def test_nodes_keys_are_pairs(kits_copy: Path) -> None:
    for name in ("client-1", "client-2"):
        kit = ClientKit.load(kits_copy / name)
        private = load_ssh_private_key(kit.auth_key.read_bytes(), None)
        public = load_ssh_public_key(kit.auth_public_key.read_bytes())
        assert private.public_key() == public
        assert public.curve.name == "secp384r1"
