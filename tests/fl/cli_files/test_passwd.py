"""``quancrypt passwd``: the same key under another passphrase, and modes of key files."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path

import pytest
from tests.fl.cli_files.conftest import PASSPHRASE, Invoke, key_of

import quancrypt_native as qn
from quancrypt_fl.cli.app import run
from quancrypt_native import sealing

NEW = "another horse entirely"


@pytest.fixture
def keys(site: Path, tmp_path: Path) -> Path:
    """A copy of the site's keys that a test may change."""
    return Path(shutil.copytree(site / "keys", tmp_path / "keys"))


def opened(keys: Path, passphrase: str) -> qn.SecretKey:
    params = qn.Parameters.from_bytes((keys / "params.qcp").read_bytes())
    data = (keys / "secret.qck").read_bytes()
    return qn.SecretKey.from_bytes(data, params, passphrase=passphrase.encode())


def piped(text: str) -> int:
    reading, writing = os.pipe()
    os.write(writing, text.encode())
    os.close(writing)
    return reading


def test_the_new_passphrase_opens_the_same_key(
    keys: Path, site: Path, succeed: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = opened(keys, PASSPHRASE)
    monkeypatch.setenv("QUANCRYPT_NEW_PASSPHRASE", NEW)
    shown = succeed("passwd", keys / "secret.qck")
    assert shown == f"{keys}/secret.qck: key {before.key_id}, sealed with the new passphrase\n"
    assert NEW not in shown
    after = opened(keys, NEW)
    assert (after.key_id, after.derive(b"test")) == (before.key_id, before.derive(b"test"))
    with pytest.raises(qn.PassphraseError):
        opened(keys, PASSPHRASE)
    monkeypatch.setenv("QUANCRYPT_PASSPHRASE", NEW)
    succeed("decrypt", site / "sum.qcu", "mean.safetensors", "--key", keys / "secret.qck")


def test_descriptors_go_before_the_environment(
    keys: Path, succeed: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANCRYPT_PASSPHRASE", "not this one")
    monkeypatch.setenv("QUANCRYPT_NEW_PASSPHRASE", "nor this")
    old, new = piped(f"{PASSPHRASE}\n"), piped(f"{NEW}\n")
    options = ("--passphrase-fd", old, "--new-passphrase-fd", new, "--json")
    document = json.loads(succeed("passwd", keys / "secret.qck", *options))
    for descriptor in (old, new):
        os.close(descriptor)
    assert document == {"file": str(keys / "secret.qck"), "key": opened(keys, NEW).key_id}


def test_a_prompt_asks_twice(keys: Path, succeed: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return NEW

    monkeypatch.delenv("QUANCRYPT_NEW_PASSPHRASE", raising=False)
    monkeypatch.setattr("getpass.getpass", ask)
    succeed("passwd", keys / "secret.qck")
    assert asked == [f"New passphrase for {keys}/secret.qck: ", "The same again: "]
    opened(keys, NEW)


def test_it_is_sealed_at_full_cost_and_private(
    keys: Path, succeed: Invoke, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sealing, "_SCRYPT_N", 2**16)  # as users have it
    monkeypatch.setenv("QUANCRYPT_NEW_PASSPHRASE", NEW)
    (keys / "secret.qck").chmod(0o644)
    assert run(["passwd", str(keys / "secret.qck")]) == 0
    assert "secret.qck: other users can read it; chmod 600 it" in capsys.readouterr().err
    assert stat.S_IMODE((keys / "secret.qck").stat().st_mode) == 0o600
    sealed = json.loads(succeed("inspect", keys / "secret.qck", "--json"))["sealed"]
    assert (sealed["derivation"], sealed["scrypt_n"]) == ("scrypt", 2**16)


def test_what_it_refuses_changes_nothing(
    keys: Path, fail: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = keys / "secret.qck"
    before = path.read_bytes()
    monkeypatch.setenv("QUANCRYPT_NEW_PASSPHRASE", "")
    assert "QUANCRYPT_NEW_PASSPHRASE is empty" in fail("passwd", path)
    same = fail("passwd", path, "--passphrase-fd", 7, "--new-passphrase-fd", 7)
    assert "--passphrase-fd and --new-passphrase-fd are both 7; each needs its own" in same
    monkeypatch.setenv("QUANCRYPT_NEW_PASSPHRASE", NEW)
    assert "params.qcp: " in fail("passwd", keys / "params.qcp")
    (keys / "link.qck").symlink_to("secret.qck")
    assert "link.qck: cannot be written: it is not a regular file" in fail(
        "passwd", keys / "link.qck"
    )
    monkeypatch.setenv("QUANCRYPT_PASSPHRASE", "wrong")
    assert "does not open: wrong passphrase" in fail("passwd", path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_that_others_can_read_is_used_and_named(
    keys: Path, site: Path, tmp_path: Path, mode: int, capsys: pytest.CaptureFixture[str]
) -> None:
    (keys / "secret.qck").chmod(mode)
    capsys.readouterr()
    target = str(tmp_path / "mean.safetensors")
    arguments = ["decrypt", str(site / "sum.qcu"), target, "--key", str(keys / "secret.qck")]
    assert run(arguments) == 0
    expected = f"quancrypt: {keys}/secret.qck: other users can read it; chmod 600 it\n"
    assert capsys.readouterr().err == expected


def test_the_sites_key_is_private(site: Path) -> None:
    assert stat.S_IMODE(key_of(site).stat().st_mode) == 0o600
