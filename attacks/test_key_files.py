"""Key files: a cost to open, a way to another file, a weaker seal."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tests.native.wire_objects import PASSPHRASE, WireObject

import quancrypt_native as qn
from attacks.conftest import forged
from quancrypt_fl.cli.errors import CommandError
from quancrypt_fl.cli.objects import load_key
from quancrypt_fl.cli.storage import check_output
from quancrypt_fl.deployment.kits import KitError, check_name
from quancrypt_fl.errors import FederatedError
from quancrypt_fl.flower.history import History
from quancrypt_fl.flower.stores import FolderStore, StoreError


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("scrypt_n", 2**21),
        ("scrypt_n", 2**62),
        ("scrypt_n", 3),
        ("scrypt_n", 0),
        ("scrypt_r", 2**20),
        ("scrypt_p", 2**20),
    ],
)
def test_a_key_file_that_wants_memory(
    objects: dict[str, WireObject], field: str, value: int
) -> None:
    """Idea: a key file whose derivation takes terabytes, or years.
    Refused by: limits on Scrypt's parameters, before anything is derived: 1 GiB at most."""
    with pytest.raises(qn.WireFormatError, match=f"'{field}'"):
        objects["secret key"].read(forged(objects["secret key"], **{field: value}))


@pytest.mark.parametrize(
    "fields", [{"kdf": "none"}, {"kdf": "scrypt "}, {"cipher": "none"}, {"cipher": "aes-128-gcm"}]
)
def test_a_weaker_seal(objects: dict[str, WireObject], fields: dict[str, Any]) -> None:
    """Idea: talk the reader into no derivation or another cipher.
    Refused by: one derivation and one cipher; there is no choice to make."""
    with pytest.raises(qn.WireFormatError, match="unknown derivation or cipher"):
        objects["secret key"].read(forged(objects["secret key"], **fields))


def test_a_cheaper_derivation(objects: dict[str, WireObject]) -> None:
    """Idea: lower Scrypt's cost in somebody's file, so that its passphrase is guessed sooner.
    Refused by: the seal, which authenticates the header: the file no longer opens at all."""
    item = objects["secret key"]
    with pytest.raises(qn.PassphraseError):
        item.read(forged(item, scrypt_n=2))


def test_a_key_of_another_party(objects: dict[str, WireObject]) -> None:
    """Idea: another fingerprint in the clear part of a key file, to have it used for that key.
    Refused by: the seal, which authenticates the header."""
    with pytest.raises(qn.PassphraseError):
        objects["secret key"].read(forged(objects["secret key"], key="0" * 32))


def test_folders_and_absent_files(objects: dict[str, WireObject], tmp_path: Path) -> None:
    """Idea: a folder, or nothing, where a key file is expected.
    Refused by: the command line, by name."""
    params = objects["parameters"].read(objects["parameters"].data)
    for path in (tmp_path, tmp_path / "absent", tmp_path / "key\0file"):
        with pytest.raises((CommandError, ValueError), match=r"cannot be read|null byte"):
            load_key(path, params, None)


def test_output_over_something_else(tmp_path: Path) -> None:
    """Idea: a link or a device in the place where a command writes a key.
    Refused by: `check_output`: only regular files are replaced, and only when asked to."""
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    link = tmp_path / "link"
    link.symlink_to(target)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (link, pipe, tmp_path):
        with pytest.raises(CommandError, match="cannot be written"):
            check_output(path, force=True)
    with pytest.raises(CommandError, match="exists already"):
        check_output(target, force=False)
    assert target.read_bytes() == b"precious"


@pytest.mark.parametrize(
    "name",
    ["../evil", "..", ".", "", "a/b", "a\\b", "/etc", "a\0b", "-rf", "x" * 65, "server", "é"],
)
def test_names_that_lead_elsewhere(name: str) -> None:
    """Idea: a client's name that is a path, an option, or the server's own folder.
    Refused by: `check_name`: letters, digits and three signs, the first a letter or a digit."""
    with pytest.raises(KitError, match="allowed"):
        check_name(name)


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "A", "a" * 42, "a\n", "a.json"])
def test_notes_that_lead_elsewhere(name: str) -> None:
    """Idea: a note of the history under a name that is a path.
    Refused by: `history._note_name`: lower-case letters, digits and hyphens."""
    history = History.begin(
        None, training="0" * 32, facts={}, chain="0" * 64, initial=b"x", limit_bytes=0
    )
    with pytest.raises(FederatedError, match="allowed"):
        history.note(name, {"a": 1})


@pytest.mark.parametrize("training", ["../../etc", "", "0" * 31, "0" * 32 + "\n", "G" * 32])
def test_trainings_that_lead_elsewhere(training: str, tmp_path: Path) -> None:
    """Idea: the id of a training, which names a client's folder, as a path.
    Refused by: `Store`, and `Request.training` before it: 32 hexadecimal digits."""
    with pytest.raises(StoreError, match="allowed: 32 hexadecimal digits"):
        FolderStore(tmp_path, training)
    assert list(tmp_path.iterdir()) == []


def test_the_wrong_passphrase_says_no_more(objects: dict[str, WireObject]) -> None:
    """Idea: learn from errors how near a guessed passphrase is.
    Refused by: AES-GCM: one error for a wrong passphrase and for a changed file."""
    item = objects["secret key"]
    params = objects["parameters"].read(objects["parameters"].data)
    said = set()
    for guess in (PASSPHRASE[:-1], PASSPHRASE + b"x", b"x"):
        with pytest.raises(qn.PassphraseError) as caught:
            qn.SecretKey.from_bytes(item.data, params, passphrase=guess)
        said.add(str(caught.value))
    with pytest.raises(qn.PassphraseError) as caught:
        item.read(forged(item, body=bytes(len(item.data))[:272]))
    assert said | {str(caught.value)} == said
