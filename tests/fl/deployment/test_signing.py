"""Signing keys in kits: one per site, known to the server by its public half alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import quancrypt_native as qn
from quancrypt_fl.cli.client import opened_signer
from quancrypt_fl.cli.errors import CommandError
from quancrypt_fl.cli.signing_key import resealed_keys
from quancrypt_fl.deployment import admission
from quancrypt_fl.deployment.kits import ClientKit, KitError, ServerKit
from quancrypt_fl.envelopes import Members
from quancrypt_fl.envelopes.signer import Signer

PASSPHRASE = b"correct horse battery"

Run = Callable[..., str]
Below = Callable[[Path], dict[str, bytes]]

pytestmark = pytest.mark.usefixtures("provision_command")


@pytest.fixture
def kits_copy(run: Run, tmp_path: Path) -> Path:
    run("--out", tmp_path / "kits", "--clients", 2, "--max-weight", 8)
    return tmp_path / "kits"


def test_the_server_knows_every_site_by_its_own_key(
    made: tuple[Path, qn.KeyPair], files_below: Below
) -> None:
    folder, _ = made
    members = Members.load(ServerKit.load(folder / "server").members)
    assert [member.name for member in members] == ["client-1", "client-2", "client-3"]
    signers = []
    for member in members:
        kit = ClientKit.load(folder / member.name)
        signer = opened_signer(kit, PASSPHRASE)
        assert signer.member.id == member.id
        with pytest.raises(qn.PassphraseError):
            Signer.from_bytes(kit.signing_key.read_bytes(), passphrase=b"another")
        signers.append(signer)
    # No private half outside its own kit, and nowhere in the clear.
    for name, data in files_below(folder).items():
        for signer in signers:
            secret = signer._key.private_bytes_raw()
            assert secret not in data
            assert secret.hex().encode() not in data
        if name.startswith("server/"):
            assert b"ed25519" not in data
    files = [(folder / m.name / "signing.key").read_bytes() for m in members]
    assert len(set(files)) == 3


def test_a_kit_with_a_list_that_does_not_fit(kits_copy: Path) -> None:
    path = kits_copy / "server" / "members.toml"
    text = path.read_text()
    path.write_text(text.replace('"client-2"', '"client-9"'))
    with pytest.raises(KitError, match="there is no signing key of client-2") as caught:
        ServerKit.load(kits_copy / "server")
    assert str(path) in str(caught.value)
    path.write_text("schema = 7")
    with pytest.raises(KitError, match=re.escape(f"{path}: schema = 7")):
        ServerKit.load(kits_copy / "server")


def test_a_signing_key_of_another_site(kits_copy: Path) -> None:
    mine, other = (kits_copy / f"client-{number}" / "signing.key" for number in (1, 2))
    mine.write_bytes(other.read_bytes())
    with pytest.raises(CommandError, match="is the signing key of client-2, not of client-1"):
        opened_signer(ClientKit.load(kits_copy / "client-1"), PASSPHRASE)


def test_a_signing_key_that_others_may_read(kits_copy: Path) -> None:
    key = kits_copy / "client-1" / "signing.key"
    key.chmod(0o640)
    assert ClientKit.load(kits_copy / "client-1").exposed() == [key]


def test_another_passphrase_for_the_signing_key(kits_copy: Path, tmp_path: Path) -> None:
    key = kits_copy / "client-1" / "secret.key"
    before = opened_signer(ClientKit.load(kits_copy / "client-1"), PASSPHRASE)
    ((path, sealed),) = resealed_keys(key, PASSPHRASE, b"new")
    assert path == key.with_name("signing.key")
    assert Signer.from_bytes(sealed, passphrase=b"new").member.id == before.member.id
    path.write_bytes(sealed)
    # A command that was killed between the two files is repeated.
    assert resealed_keys(key, PASSPHRASE, b"new") == []
    with pytest.raises(CommandError, match=re.escape(str(path))):
        resealed_keys(key, PASSPHRASE, b"newer")
    assert resealed_keys(tmp_path / "secret.qck", PASSPHRASE, b"new") == []


def test_newcomers_sign_too(run: Run, kits_copy: Path, tmp_path: Path) -> None:
    run("--add", 1, "--like", kits_copy / "client-1", "--out", tmp_path / "more")
    told = admission.Admission.read(tmp_path / "more" / "admission.toml")
    before = (kits_copy / "server" / "members.toml").read_text()
    kit = admission.admit(kits_copy / "server", told)
    members = Members.load(kit.members)
    assert [member.name for member in members] == ["client-1", "client-2", "client-3"]
    signer = opened_signer(ClientKit.load(tmp_path / "more" / "client-3"), PASSPHRASE)
    assert members["client-3"].id == signer.member.id
    for member in Members.load(kit.members):
        assert member.name == "client-3" or member.public.hex() in before
    # Told a second time, with another signing key: who is let in already stays who it is.
    (one,) = told.newcomers
    other = Signer.generate("client-3").member.public.hex()
    forged = admission.Newcomer(one.name, one.partition, one.public_key, other)
    again = admission.Admission(told.key_id, told.parameters_id, (forged,))
    admission.admit(kits_copy / "server", again)
    assert Members.load(kit.members).fingerprint == members.fingerprint


@pytest.mark.parametrize("key", ["11", "zz" * 32])
def test_an_admission_without_a_signing_key(
    run: Run, kits_copy: Path, tmp_path: Path, key: str
) -> None:
    run("--add", 1, "--like", kits_copy / "client-1", "--out", tmp_path / "more")
    path = tmp_path / "more" / "admission.toml"
    text = re.sub(r'signing_key = "\w+"', f'signing_key = "{key}"', path.read_text())
    path.write_text(text)
    with pytest.raises(KitError, match=r"signing_key = .*; allowed: 64 hexadecimal digits"):
        admission.Admission.read(path)
