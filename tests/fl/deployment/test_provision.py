"""``quancrypt provision``: what lies in which kit, who may read it, what is left when it fails."""

from __future__ import annotations

import base64
import errno
import io
import json
import math
import os
import re
import shutil
import signal
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography import x509

import quancrypt_native as qn
from quancrypt_fl.cli import app as commands
from quancrypt_fl.data.shapes import IMAGES
from quancrypt_fl.deployment import folders, kits, provisioning
from quancrypt_fl.deployment.kits import ClientKit, ServerKit
from quancrypt_fl.deployment.sizing import values_of

PASSPHRASE = "correct horse battery"
SECRETS = {
    "server": {"server.key"},
    "client": {"secret.key", "signing.key", "supernode.key"},
}

Run = Callable[..., str]
Below = Callable[[Path], dict[str, bytes]]

pytestmark = pytest.mark.usefixtures("provision_command")


def test_the_layout_and_who_may_read_it(made: tuple[Path, qn.KeyPair], files_below: Below) -> None:
    folder, _ = made
    names = ["client-1", "client-2", "client-3"]
    assert sorted(path.name for path in folder.iterdir()) == ["README.txt", *names, "server"]
    assert set(files_below(folder / "server")) == {
        "README.txt", "deployment.toml", "clients.toml", "members.toml", "params.qcp", "ca.pem",
        "server.pem", "server.key", *(f"supernodes/{name}.pub" for name in names),
    }  # fmt: skip
    for name in names:
        assert set(files_below(folder / name)) == {
            "README.txt", "node.toml", "params.qcp", "secret.key", "signing.key", "ca.pem",
            "supernode.key", "supernode.pub",
        }  # fmt: skip
    for path in [folder, *folder.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        if path.is_dir():
            assert mode == 0o700, path
        elif path.name in SECRETS["server"] | SECRETS["client"]:
            assert mode == 0o600, path
        else:
            assert mode == 0o644 & ~current_umask(), path
    assert ServerKit.load(folder / "server").exposed() == []
    assert ClientKit.load(folder / "client-1").exposed() == []
    assert [path.name for path in folder.parent.iterdir()] == ["kits"]


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_secrets_are_private_whatever_the_umask(run: Run, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        run("--out", tmp_path / "kits", "--clients", 1)
    finally:
        os.umask(before)
    secret = [tmp_path / "kits/server/server.key", tmp_path / "kits/client-1/secret.key"]
    assert [stat.S_IMODE(path.stat().st_mode) for path in secret] == [0o600, 0o600]
    assert stat.S_IMODE((tmp_path / "kits").stat().st_mode) == 0o700


def test_no_key_of_the_clients_in_the_servers_folder(
    made: tuple[Path, qn.KeyPair], files_below: Below
) -> None:
    """Neither raw nor sealed, in no file, at no place; nor the passphrase, nor a login key."""
    folder, pair = made
    raw = bytes(pair.secret._core.save())
    stream = qn.seal.export_secret_key(pair.secret)
    sealed = (folder / "client-1" / "secret.key").read_bytes()
    login = [(folder / f"client-{n}" / "supernode.key").read_bytes() for n in (1, 2, 3)]
    wanted = [raw, stream[-1024:], sealed[-256:], sealed[:256], PASSPHRASE.encode(), *login]
    wanted += [raw[at : at + 32] for at in range(0, len(raw), 32)]
    # Base64 of any part of the key, from each of the three offsets that decide its letters.
    wanted += [base64.b64encode(raw[at : at + 96])[4:-4] for at in (0, 1, 2)]
    assert len(raw) > 256
    everything = files_below(folder / "server")
    for name, data in everything.items():
        for part in wanted:
            assert part not in data, name
    # The search finds what is there.
    assert any(sealed[-256:] in data for data in files_below(folder / "client-2").values())
    private = [name for name, data in everything.items() if b"PRIVATE KEY" in data]
    assert private == ["server.key"]


def test_no_unsealed_key_anywhere(made: tuple[Path, qn.KeyPair], files_below: Below) -> None:
    folder, pair = made
    raw = bytes(pair.secret._core.save())
    for name, data in files_below(folder).items():
        assert raw[:32] not in data, name
        assert PASSPHRASE.encode() not in data, name
        assert b"BEGIN PRIVATE KEY" not in data or name == "server/server.key"
    # The authority's private key is gone: no other key of its public key's.
    ca = ssl.PEM_cert_to_DER_cert((folder / "server" / "ca.pem").read_text())
    assert ca != ssl.PEM_cert_to_DER_cert((folder / "server" / "server.pem").read_text())


def test_every_client_opens_the_same_key(made: tuple[Path, qn.KeyPair]) -> None:
    folder, pair = made
    params = qn.Parameters.from_bytes((folder / "server" / "params.qcp").read_bytes())
    update = qn.Encryptor(params, pair.secret).encrypt(np.array([0.5, -0.25]), clip=1.0)
    for name in ("client-1", "client-2", "client-3"):
        kit = ClientKit.load(folder / name)
        assert kit.params.read_bytes() == params.to_bytes()
        data = kit.secret_key.read_bytes()
        key = qn.SecretKey.from_bytes(data, params, passphrase=PASSPHRASE.encode())
        assert key.key_id == kit.key_id == pair.key_id
        assert qn.Decryptor(params, key).decrypt_mean(update) == pytest.approx(
            [0.5, -0.25], abs=0.01
        )
        with pytest.raises(qn.PassphraseError):
            qn.SecretKey.from_bytes(data, params, passphrase=b"another")


def test_what_kits_say(made: tuple[Path, qn.KeyPair]) -> None:
    folder, _ = made
    server = ServerKit.load(folder / "server")
    assert (server.address, server.listen_address) == ("192.0.2.7:9000", "0.0.0.0:9000")
    assert server.local_address == "127.0.0.1:9000"
    assert [(site.name, site.partition) for site in server.sites] == [
        ("client-1", 0), ("client-2", 1), ("client-3", 2),
    ]  # fmt: skip
    assert (server.app, server.config.clients, server.config.dataset) == ("builtin", 3, "digits")
    params = qn.Parameters.from_bytes(server.params.read_bytes())
    assert server.parameters_id == params.fingerprint
    assert server.config == server.config.resolved()
    client = ClientKit.load(folder / "client-2")
    assert (client.name, client.partition, client.partitions) == ("client-2", 1, 3)
    assert client.config == server.config
    assert client.node_config() == {
        "partition-id": 1,
        "num-partitions": 3,
        "quancrypt-kit": str(folder / "client-2" / "node.toml"),
        "quancrypt-key": str(folder / "client-2" / "secret.key"),
        "quancrypt-signing-key": str(folder / "client-2" / "signing.key"),
        "quancrypt-state": str(folder / "client-2" / "state"),
        "quancrypt-name": "client-2",
    }
    assert not client.state.exists()


def test_the_names_in_the_certificate(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "kits"
    hosts = ("--certificate-host", "fl.example.org", "--certificate-host", "10.0.0.7")
    run("--out", out, "--clients", 1, "--server-address", "[2001:db8::7]", *hosts)
    server = ServerKit.load(out / "server")
    assert (server.address, server.listen_address) == ("[2001:db8::7]:8000", "[::]:8000")
    assert server.local_address == "[::1]:8000"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.certificate, server.private_key)
    certificate = x509.load_pem_x509_certificate(server.certificate.read_bytes())
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    names = {str(name.value) for name in extension.value}
    assert names == {
        "2001:db8::7", "fl.example.org", "10.0.0.7", "localhost", "127.0.0.1", "::1",
    }  # fmt: skip


# --- SuperNodes' keys, as Flower reads them ---


def test_flower_takes_the_nodes_keys(made: tuple[Path, qn.KeyPair]) -> None:
    pytest.importorskip("flwr", reason="needs the [flower] extra")
    from flwr.cli.supernode.register import try_load_public_key
    from flwr.supercore.primitives.asymmetric import (
        bytes_to_public_key,
        sign_message,
        uses_nist_ec_curve,
        verify_signature,
    )
    from flwr.supernode.cli.flower_supernode import _try_setup_client_authentication

    folder, _ = made
    sites = ServerKit.load(folder / "server").sites
    registered = [try_load_public_key(site.public_key) for site in sites]
    assert len(set(registered)) == 3
    for site, public in zip(sites, registered, strict=True):
        kit = ClientKit.load(folder / site.name)
        arguments = type("Arguments", (), {})()
        arguments.auth_supernode_private_key = str(kit.auth_key)
        arguments.auth_supernode_public_key = None
        pair = _try_setup_client_authentication(arguments)
        assert pair is not None
        assert uses_nist_ec_curve(pair[1])
        signature = sign_message(pair[0], b"a request")
        assert verify_signature(bytes_to_public_key(public), b"a request", signature)
        assert kit.auth_public_key.read_bytes() == site.public_key.read_bytes()
        assert kit.auth_public_key.read_text().endswith(f" {site.name}\n")


def test_flower_takes_the_nodes_configuration(
    made: tuple[Path, qn.KeyPair], tmp_path: Path
) -> None:
    pytest.importorskip("flwr", reason="needs the [flower] extra")
    from flwr.common.config import parse_config_args

    from quancrypt_fl.deployment import toml

    folder, _ = made
    config = ClientKit.load(folder / "client-1").node_config()
    text = " ".join(f"{key}={json.dumps(value)}" for key, value in config.items())
    assert parse_config_args([text]) == config
    file = tmp_path / "node.toml"  # for paths with quotation marks
    file.write_text(toml.table(config))
    assert parse_config_args([str(file)]) == config


# --- parameters for the run ---


def test_parameters_fit_the_run(run: Run, tmp_path: Path) -> None:
    options = ("--dataset", "mnist", "--model", "cnn", "--bits", 10, "--max-weight", 40)
    more = ("--security", 192, "--rounds", 7, "--weighting", "uniform", "--no-pruning")
    document = json.loads(run("--out", tmp_path / "k", "--clients", 5, *options, *more, "--json"))
    kit = ServerKit.load(tmp_path / "k" / "server")
    config = kit.config
    assert (config.rounds, config.weighting, config.pruning) == (7, "uniform", False)
    expected = qn.Parameters.for_aggregation(
        bits=10, max_weight=40, security=192, key_mode="symmetric", values=values_of(config)
    )
    assert qn.Parameters.from_bytes(kit.params.read_bytes()) == expected
    assert document["parameters"] == json.loads(json.dumps(expected.explain().as_dict()))
    assert document["config"]["max_weight"] == 40
    assert document["key"] == kit.key_id


def test_values_of_a_run_are_those_of_its_uploads() -> None:
    from quancrypt_fl import QuanCryptConfig, Simulation

    for choices in ({}, {"mask": "client"}, {"bits": 4, "p_0": 0.4}, {"pruning": False}):
        config = QuanCryptConfig(clients=2, rounds=1, local_epochs=1, **choices).resolved()
        simulation = Simulation(config)
        weights = simulation.state.weights
        method = config.agreement().method(weights)
        layout = method.upload_layout({name: w.shape for name, w in weights.items()}, t=0)
        expected = sum(math.prod(shape) for shape, _ in layout.values())
        assert values_of(config) == expected


def test_image_shapes_are_those_of_the_data(mnist_dir: Path) -> None:
    from quancrypt_fl.config import CHOICES
    from quancrypt_fl.data import load_dataset

    assert set(IMAGES) == set(CHOICES["dataset"])
    for name, folder in (("digits", None), ("mnist", mnist_dir)):
        dataset = load_dataset(name, folder, 1)
        assert IMAGES[name] == (dataset.image_shape, dataset.classes)


def test_kits_for_an_app_of_ones_own(run: Run, tmp_path: Path) -> None:
    run("--out", tmp_path / "any", "--clients", 2, "--no-model", "--bits", 4)
    any_size = ServerKit.load(tmp_path / "any" / "server")
    assert any_size.app == "own"
    assert (any_size.config.bits, any_size.config.clients) == (4, 2)
    assert "dataset" not in (tmp_path / "any/server/deployment.toml").read_text()
    params = qn.Parameters.from_bytes(any_size.params.read_bytes())
    assert params == qn.Parameters.for_aggregation(
        bits=4, max_weight=2, security=128, key_mode="symmetric"
    )
    document = json.loads(
        run("--out", tmp_path / "k", "--clients", 2, "--no-model", "--values", 500, "--json")
    )
    small = qn.Parameters.from_bytes((tmp_path / "k/server/params.qcp").read_bytes())
    assert small == qn.Parameters.for_aggregation(
        bits=8, max_weight=2, security=128, key_mode="symmetric", values=500
    )
    assert document["app"] == "own"
    unset = {"threshold", "max_bound"}  # by default there is none
    assert set(document["config"]) == {"app", *kits.OWN_APP_FIELDS} - unset


def test_no_torch_for_an_app_of_ones_own(tmp_path: Path) -> None:
    code = (
        "import sys, typer\n"
        "from quancrypt_fl.cli.provision import provision\n"
        "app = typer.Typer(); app.command()(provision)\n"
        "app(['--out', sys.argv[1], '--no-model', '--clients', '1'], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "kits")],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    # A process of its own: a real key file, with the real cost of Scrypt.
    kit = ClientKit.load(tmp_path / "kits" / "client-1")
    params = qn.Parameters.from_bytes(kit.params.read_bytes())
    data = kit.secret_key.read_bytes()
    assert b'"scrypt_n":65536' in data.replace(b" ", b"")
    key = qn.SecretKey.from_bytes(data, params, passphrase=PASSPHRASE.encode())
    assert key.key_id == kit.key_id


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, quancrypt_fl.cli.provision\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "print(*loaded & {'torch', 'cryptography', 'flwr'})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == ""


def test_help_names_every_option_once_in_groups(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = run("--help")
    options = re.findall(r"^│ \*? *(--[a-z0-9-]+)", text, flags=re.MULTILINE)
    assert len(options) == len(set(options))
    assert {"--out", "--server-address", "--dataset", "--bits", "--keep-ca"} <= set(options)
    assert {"--method", "--data-dir", "--paillier-bits", "--dropout"}.isdisjoint(options)
    for group in ("Server", "Keys and certificates", "Data", "Training", "Method"):
        assert re.search(rf"─ {group} ─", text)
    assert "Baselines" not in text


# --- names, passphrases, the authority ---


def test_names_of_sites(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "kits"
    printed = run("--out", out, "--name", "clinic-a", "--name", "Clinic_B.2")
    server = ServerKit.load(out / "server")
    assert [site.name for site in server.sites] == ["clinic-a", "Clinic_B.2"]
    assert server.config.clients == 2
    assert ClientKit.load(out / "Clinic_B.2").partition == 1
    for text in (printed, (out / "README.txt").read_text()):
        assert "quancrypt client clinic-a" in text
        assert "quancrypt server" in text
        assert "quancrypt run" in text
    assert "Clinic_B.2" in (out / "Clinic_B.2" / "README.txt").read_text()


def test_a_passphrase_per_client(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUANCRYPT_PASSPHRASE")
    folder, out = tmp_path / "passphrases", tmp_path / "kits"
    folder.mkdir()
    words = {"client-1": b"one", "client-2": b"two words", "client-3": b"one"}
    for name, word in words.items():
        (folder / name).write_bytes(word + b"\r\nsomething else\n")
    run("--out", out, "--clients", 3, "--passphrase-dir", folder)
    params = qn.Parameters.from_bytes((out / "server/params.qcp").read_bytes())
    ids = set()
    for name, word in words.items():
        data = ClientKit.load(out / name).secret_key.read_bytes()
        ids.add(qn.SecretKey.from_bytes(data, params, passphrase=word).key_id)
    assert len(ids) == 1
    data = ClientKit.load(out / "client-2").secret_key.read_bytes()
    with pytest.raises(qn.PassphraseError):
        qn.SecretKey.from_bytes(data, params, passphrase=b"one")


@pytest.mark.parametrize("content", [None, b"", b"\n", b"x" * 70_000])
def test_a_passphrase_that_is_none(run: Run, tmp_path: Path, content: bytes | None) -> None:
    (tmp_path / "client-1").write_bytes(b"one\n")
    if content is not None:
        (tmp_path / "client-2").write_bytes(content)
    options = ("--clients", 2, "--passphrase-dir", tmp_path)
    message = run("--out", tmp_path / "kits", *options, fails=True)
    assert str(tmp_path / "client-2") in message
    assert not (tmp_path / "kits").exists()


def test_a_passphrase_from_a_descriptor(run: Run, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"from a pipe\n")
    os.close(writing)
    run("--out", tmp_path / "kits", "--clients", 1, "--passphrase-fd", reading)
    os.close(reading)
    kit = ClientKit.load(tmp_path / "kits" / "client-1")
    params = qn.Parameters.from_bytes(kit.params.read_bytes())
    qn.SecretKey.from_bytes(kit.secret_key.read_bytes(), params, passphrase=b"from a pipe")


def test_without_a_passphrase_nothing_is_made(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("QUANCRYPT_PASSPHRASE")
    monkeypatch.setattr("sys.stdin", io.StringIO())
    monkeypatch.setattr("getpass.getpass", lambda _: (_ for _ in ()).throw(EOFError()))
    assert "passphrase" in run("--out", tmp_path / "kits", "--clients", 1, fails=True)
    assert list(tmp_path.iterdir()) == []


def test_the_authority_is_kept_on_request(run: Run, tmp_path: Path, files_below: Below) -> None:
    out, ca = tmp_path / "kits", tmp_path / "authority"
    document = json.loads(run("--out", out, "--clients", 1, "--keep-ca", ca, "--json"))
    assert document["authority"] == str(ca)
    assert {path.name for path in ca.iterdir()} == {"README.txt", "ca.key", "ca.pem"}
    assert (ca / "ca.pem").read_bytes() == (out / "client-1" / "ca.pem").read_bytes()
    assert stat.S_IMODE((ca / "ca.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(ca.stat().st_mode) == 0o700
    private = (ca / "ca.key").read_bytes()
    assert all(private not in data for data in files_below(out).values())


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the program openssl")
def test_another_certificate_as_the_authoritys_readme_says(run: Run, tmp_path: Path) -> None:
    out, ca = tmp_path / "kits", tmp_path / "authority"
    run("--out", out, "--clients", 1, "--keep-ca", ca)
    text = (ca / "README.txt").read_text().replace("HOST", "new.example.org")
    start, end = text.index("  openssl req"), text.index("\nand server.pem")
    subprocess.run(
        ["sh", "-ec", text[start:end]], cwd=ca, check=True, capture_output=True, timeout=60
    )
    verify = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile"]
    more = ["-verify_hostname", "new.example.org", str(ca / "server.pem")]
    subprocess.run(
        [*verify, str(out / "client-1" / "ca.pem"), *more],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip


# --- many ---


def test_fifty_clients(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "kits"
    printed = run("--out", out, "--clients", 50)
    server = ServerKit.load(out / "server")
    assert [site.partition for site in server.sites] == list(range(50))
    assert server.config.max_weight == 64
    keys = {ClientKit.load(out / site.name).auth_key.read_bytes() for site in server.sites}
    assert len(keys) == 50
    assert "client-50" in printed


# --- what is refused ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--clients", 0], "clients = 0"),
        (["--bits", 17], "bits = 17"),
        (["--dataset", "imagenet"], "dataset = 'imagenet': not available; available: digits"),
        (["--max-weight", 3, "--clients", 4], "max_weight = 3 is below the 4 clients"),
        (
            ["--aggregation", "median-of-groups", "--clients", 6],
            "aggregation = 'median-of-groups': for simulations; allowed in a deployment: "
            "aggregation = 'mean'; quancrypt simulate has them",
        ),
        (["--dp", "discrete-gaussian", "--bits", 12], "allowed in a deployment: dp = 'none'"),
        (["--name", "server"], "'server'; allowed: letters"),
        (["--name", "../up"], "'../up'; allowed: letters"),
        (["--name", ""], "''; allowed: letters"),
        (["--name", "a" * 65], "allowed: letters"),
        (["--name", "a", "--name", "A"], "more than one client is called a; names differ"),
        (["--name", "a", "--clients", 2], "--clients is 2, but --name is given 1 time"),
        (["--server-address", "https://x"], "no host; allowed"),
        (["--server-address", "0.0.0.0"], "means every address"),
        (["--server-address", "x:8000", "--port", 9000], "says port 8000, and --port 9000"),
        (["--certificate-host", "a b"], "no host; allowed"),
        (["--certificate-days", 0], "0 days; allowed: 1 to 3650"),
        (["--certificate-days", 3651], "3651 days; allowed: 1 to 3650"),
        (["--values", 10], "--values goes with --no-model"),
        (["--no-model", "--dataset", "digits"], "--dataset: not with --no-model"),
        (["--passphrase-fd", 0, "--passphrase-dir", "x"], "allowed: one of them"),
    ],
)
def test_wrong_arguments(run: Run, tmp_path: Path, options: list[Any], message: str) -> None:
    found = run("--out", tmp_path / "kits", *options, fails=True)
    assert message in found
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_touched(run: Run, tmp_path: Path, files_below: Below) -> None:
    out = tmp_path / "kits"
    run("--out", out, "--clients", 1)
    before = files_below(out)
    assert "is not empty" in run("--out", out, "--clients", 1, fails=True)
    assert files_below(out) == before
    file = tmp_path / "file"
    file.write_text("mine")
    assert "is a file" in run("--out", file, "--clients", 1, fails=True)
    assert "is a file" in run("--out", file / "kits", "--clients", 1, fails=True)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    assert "is a link" in run("--out", link, "--clients", 1, fails=True)
    inside = ("--keep-ca", tmp_path / "new" / "ca")
    assert "lie in each other" in run("--out", tmp_path / "new", *inside, fails=True)
    assert "is not empty" in run("--out", tmp_path / "new", "--keep-ca", out, fails=True)
    assert {path.name for path in tmp_path.iterdir()} == {"kits", "file", "link"}


def test_an_empty_folder_is_filled(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kits").mkdir(mode=0o755)
    run("--out", tmp_path / "kits", "--clients", 1)
    assert ServerKit.load(tmp_path / "kits" / "server").config.clients == 1
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert "name a new folder in it" in run("--out", ".", "--clients", 1, fails=True)
    run("--out", "a/b/kits", "--clients", 1)  # relative, and folders above are made
    assert ClientKit.load("a/b/kits/client-1").folder == here / "a/b/kits/client-1"


# --- interrupted ---


@pytest.mark.parametrize("point", range(1, 30, 3))
def test_an_interruption_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: int
) -> None:
    """Ctrl-C at the writing of each third file, the authority's among them."""
    real, calls = folders._create, []

    def create(path: Path, data: bytes, mode: int) -> None:
        calls.append(path)
        if len(calls) == point:
            raise KeyboardInterrupt
        real(path, data, mode)

    monkeypatch.setattr(folders, "_create", create)
    arguments = ["--out", str(tmp_path / "new/kits"), "--keep-ca", str(tmp_path / "ca")]
    status = commands.run(["provision", "--clients", "2", *arguments])
    assert status == (130 if point <= len(calls) else 0)
    assert len(calls) >= min(point, 26)
    if status:
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_full_disk_leaves_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    real = folders._create

    def create(path: Path, data: bytes, mode: int) -> None:
        if path.name == "secret.key":
            real(path, data[:100], mode)
            raise OSError(number, os.strerror(number), str(path))
        real(path, data, mode)

    monkeypatch.setattr(folders, "_create", create)
    message = run("--out", tmp_path / "kits", "--clients", 2, fails=True)
    assert os.strerror(number) in message
    assert str(tmp_path / "kits") in message
    assert list(tmp_path.iterdir()) == []


def test_somebody_else_makes_the_folder_meanwhile(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real = tmp_path / "kits", provisioning._load

    def load(folder: Path, plan: provisioning.Plan) -> Any:
        (out / "theirs").mkdir(parents=True)
        return real(folder, plan)

    monkeypatch.setattr(provisioning, "_load", load)
    options = ("--clients", 1, "--keep-ca", tmp_path / "ca")
    assert "cannot be written" in run("--out", out, *options, fails=True)
    assert [path.name for path in tmp_path.iterdir()] == ["kits"]
    assert [path.name for path in out.iterdir()] == ["theirs"]


def test_what_a_killed_process_left_is_removed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL: nobody could clean up. What is another's, or a living process makes, stays."""
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from quancrypt_fl.deployment.folders import whole_folder, write_secret\n"
        "with whole_folder(Path(sys.argv[1])) as folder:\n"
        "    write_secret(folder / 'supernode.key', b'secret')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    place = tmp_path / "kits"
    done = subprocess.run([sys.executable, "-c", code, str(place)], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".kits.provisioning-")
    for name in (".kits.mine", ".kits", ".other.provisioning-12345678"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(shutil, "rmtree", lambda path: (_ for _ in ()).throw(PermissionError(13)))
    message = run("--out", place, "--clients", 1, fails=True)
    assert f"{left}: was left by a quancrypt provision that was killed" in message
    monkeypatch.undo()
    monkeypatch.setenv("QUANCRYPT_PASSPHRASE", PASSPHRASE)
    with folders.whole_folder(place) as folder:
        assert not left.exists()
        with folders.whole_folder(place):
            assert folder.is_dir()  # of one that is alive
        place.rename(tmp_path / "second")
    assert {path.name for path in tmp_path.iterdir()} == {
        "kits", "second", ".kits.mine", ".kits", ".other.provisioning-12345678",
    }  # fmt: skip


def test_a_termination_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM, as a service manager or a container's end sends it."""
    real, before = folders._create, signal.getsignal(signal.SIGTERM)

    def create(path: Path, data: bytes, mode: int) -> None:
        real(path, data, mode)
        if path.name == "secret.key":
            os.kill(os.getpid(), signal.SIGTERM)

    assert threading.current_thread() is threading.main_thread()
    monkeypatch.setattr(folders, "_create", create)
    arguments = ["--out", str(tmp_path / "kits"), "--clients", "1"]
    assert commands.run(["provision", *arguments]) == 130
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) is before
