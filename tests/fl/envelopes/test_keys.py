"""Signing keys at rest, and the list of members."""

from __future__ import annotations

import copy
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.fl.envelopes.conftest import BOUND

import quancrypt_native as qn
from quancrypt_fl.envelopes import Member, Members, MembersError
from quancrypt_fl.envelopes import members as members_module
from quancrypt_fl.envelopes.signer import Signer, SigningKeyPickleError
from quancrypt_native import sealing, wire


@pytest.fixture(autouse=True)
def quick_sealing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "_SCRYPT_N", 16)


def test_a_key_file_opens_with_its_passphrase_alone(signers: list[Signer]) -> None:
    signer = signers[0]
    data = signer.to_bytes(passphrase=b"right")
    again = Signer.from_bytes(data, passphrase=b"right")
    assert again.member.id == signer.member.id
    assert again.envelope(b"x", **BOUND) == signer.envelope(b"x", **BOUND)  # RFC 8032: no dice
    with pytest.raises(qn.PassphraseError):
        Signer.from_bytes(data, passphrase=b"wrong")
    for place in (0, 9, 40, len(data) - 30, len(data) - 1):
        changed = bytearray(data)
        changed[place] ^= 1
        with pytest.raises(qn.QuanCryptError):
            Signer.from_bytes(bytes(changed), passphrase=b"right")


def test_a_key_is_not_shown(signers: list[Signer]) -> None:
    signer = signers[0]
    secret = signer._key.private_bytes_raw()
    data = signer.to_bytes(passphrase=b"right")
    assert secret not in data
    assert secret.hex().encode() not in data
    assert repr(signer) == f"Signer('client-1', {signer.member.public.hex()[:16]}..., key withheld)"
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(SigningKeyPickleError, match="not pickled or copied"):
            leak(signer)  # type: ignore[operator]
    assert not hasattr(signer, "__dict__")


def test_other_kinds_of_keys(signers: list[Signer], params: qn.Parameters) -> None:
    updates = qn.keygen(params).secret.to_bytes(passphrase=b"right")
    with pytest.raises(qn.WireFormatError, match="hold a key of updates; expected a signing key"):
        Signer.from_bytes(updates, passphrase=b"right")
    signing = signers[0].to_bytes(passphrase=b"right")
    with pytest.raises(qn.WireFormatError, match="'params' is missing"):
        qn.SecretKey.from_bytes(signing, params, passphrase=b"right")


def forged(secret: bytes = bytes(32), **changes: object) -> bytes:
    public = Signer.generate("a").member.public.hex()
    header = {"algorithm": "ed25519", "member": "a", "public": public, **changes}
    return sealing.seal(wire.Kind.SECRET_KEY, header, secret, b"right")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (forged(algorithm="rsa"), "a signing key for 'rsa'; allowed: 'ed25519'"),
        (forged(member="../a"), "a member called '../a'"),
        (forged(public="00"), "allowed: 64 hexadecimal digits"),
        (forged(), "not that of the public key in its header"),
        (forged(bytes(31)), "a signing key of 31 bytes; allowed: 32"),
        (forged(more=1), "unknown header field 'more'"),
    ],
)
def test_impossible_key_files(data: bytes, message: str) -> None:
    with pytest.raises(qn.WireFormatError, match=re.escape(message)):
        Signer.from_bytes(data, passphrase=b"right")


@pytest.fixture(scope="module")
def params() -> qn.Parameters:
    return qn.Parameters.for_aggregation(bits=8, max_weight=8)


def test_a_list_is_read_again(members: Members, signers: list[Signer], tmp_path: Path) -> None:
    path = tmp_path / "members.toml"
    path.write_text(members.to_toml())
    found = Members.load(path)
    assert [(m.name, m.public, m.id) for m in found] == [(m.name, m.public, m.id) for m in members]
    assert found.fingerprint == members.fingerprint
    assert len(found) == 3
    assert "client-2" in found
    assert found["client-2"].id == signers[1].member.id
    assert found.by_id(bytes(16)) is None
    for signer in signers:
        assert signer._key.private_bytes_raw().hex() not in path.read_text()
    # The order of the file is no part of it; a name and a key are.
    assert Members(reversed(list(members))).fingerprint == members.fingerprint
    others = [*list(members)[:2], Member("client-4", signers[2].member.public)]
    assert Members(others).fingerprint != members.fingerprint


GOOD = f'schema = 1\n[[member]]\nname = "a"\npublic = "{"11" * 32}"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schema = ", "is no TOML file"),
        ("schema = 2", "schema = 2; this version reads 1"),
        ("schema = true", "schema = True"),
        ("schema = 1", "allowed: 1 to 65536 [[member]] tables"),
        ("schema = 1\nmember = []", "0 members; allowed: 1 to 65536"),
        ("schema = 1\nmember = [1]", "member 1: allowed: name and public, and nothing else"),
        (GOOD + 'private = "22"', "member 1: allowed: name and public, and nothing else"),
        (GOOD.replace("[[member]]", "x = 1\n[[member]]"), "unknown: x"),
        (GOOD.replace('"a"', "1"), "name = 1; allowed: text"),
        (GOOD.replace('"a"', '"../a"'), "a member called '../a'; allowed: letters"),
        (GOOD.replace("11", "1"), "allowed: 64 hexadecimal digits"),
        (GOOD.replace("11" * 32, "00" * 32), "a public key of small order"),
        (GOOD + GOOD.replace("schema = 1\n", "").replace("11", "12").replace('"a"', '"A"'),
         "more than one member has the name a"),
        (GOOD + GOOD.replace("schema = 1\n", "").replace('"a"', '"b"'),
         f"more than one member has the public key {'11' * 32}"),
        ("a = " + "[" * 5000, "is no TOML file"),
    ],
)  # fmt: skip
def test_damaged_lists(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "members.toml"
    path.write_text(text)
    with pytest.raises(MembersError, match=re.escape(message)) as caught:
        Members.load(path)
    assert str(path) in str(caught.value)


def test_lists_that_are_too_large_or_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MembersError, match="cannot be read: No such file"):
        Members.load(tmp_path / "absent")
    path = tmp_path / "members.toml"
    path.write_bytes(b"\xff")
    with pytest.raises(MembersError, match="is no TOML file"):
        Members.load(path)
    path.write_text(GOOD)
    monkeypatch.setattr(members_module, "LARGEST_FILE", len(GOOD) - 1)
    with pytest.raises(MembersError, match="more than"):
        Members.load(path)
    monkeypatch.undo()
    monkeypatch.setattr(members_module, "MOST_MEMBERS", 0)
    with pytest.raises(MembersError, match="allowed: 1 to 0"):
        Members.load(path)


@pytest.mark.parametrize("name", ["", "-a", "a b", "a" * 65, "é", "a/b", "a\n"])
def test_names_that_no_member_has(name: str) -> None:
    with pytest.raises(MembersError, match="a member called"):
        Signer.generate(name)


def test_checking_loads_nothing_that_signs() -> None:
    """A server imports the package: neither the signer nor what opens key files comes with it."""
    code = (
        "import sys, quancrypt_fl.envelopes as e; assert e.Gate; "
        "print(*sorted(m for m in sys.modules if m.startswith(('quancrypt', 'torch', 'flwr'))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    loaded = done.stdout.split()
    assert "quancrypt_fl.envelopes.gate" in loaded
    assert "quancrypt_fl.envelopes.signer" not in loaded
    assert not [name for name in loaded if name.endswith(("sealing", ".keys"))]
