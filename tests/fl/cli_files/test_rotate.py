"""``quancrypt rotate`` on the files of keygen: a new key, and an old one that still opens."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from tests.fl.cli_files.conftest import CLIP, MAX_WEIGHT, Invoke, model

from quancrypt_fl.cli import rotated_files
from quancrypt_fl.cli.app import run


@pytest.fixture
def keys(site: Path, tmp_path: Path) -> Path:
    """A copy of the site's keys that a test may change."""
    return Path(shutil.copytree(site / "keys", tmp_path / "keys"))


def key_id(path: Path, succeed: Invoke) -> str:
    return str(json.loads(succeed("inspect", path, "--json"))["key"])


def test_the_new_key_takes_the_place_and_the_old_one_still_opens(
    site: Path, keys: Path, succeed: Invoke, fail: Invoke
) -> None:
    secret, before = keys / "secret.qck", key_id(keys / "secret.qck", succeed)
    done = json.loads(succeed("rotate", secret, "--json"))
    old = keys / f"secret-{before}.qck"
    assert done["old_key"] == before
    assert done["key"] == key_id(secret, succeed) != before
    assert (done["replaced"], done["kept"]) == ([str(secret)], [str(old)])
    names = {"params.qcp", "secret.qck", old.name}
    assert {path.name for path in keys.iterdir()} == names
    for path in (secret, old):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (keys / "params.qcp").read_bytes() == (site / "keys" / "params.qcp").read_bytes()
    # What the old key encrypted is for the old key, and what comes is for the new one.
    assert "was encrypted with key" in fail(
        "decrypt", site / "sum.qcu", "x.safetensors", "--key", secret
    )
    succeed("decrypt", site / "sum.qcu", "old.safetensors", "--key", old)
    succeed("encrypt", site / "0.safetensors", "new.qcu", "--key", secret, "--clip", CLIP)
    succeed("decrypt", "new.qcu", "new.safetensors", "--key", secret)
    given = np.clip(model(0)["fc.weight"], -CLIP, CLIP)
    assert np.abs(load_file("new.safetensors")["fc.weight"] - given).max() <= CLIP / 250
    # Updates under different keys do not add up.
    both = ("aggregate", site / "0.qcu", "new.qcu", "--params", keys / "params.qcp")
    assert "key" in fail(*both, "--out", "sum.qcu")


def test_every_rotation_keeps_one_more(keys: Path, succeed: Invoke) -> None:
    ids = [key_id(keys / "secret.qck", succeed)]
    for _ in range(3):
        ids.append(json.loads(succeed("rotate", keys / "secret.qck", "--json"))["key"])
    assert len(set(ids)) == 4
    assert {path.name for path in keys.iterdir()} == {
        "params.qcp", "secret.qck", *(f"secret-{key}.qck" for key in ids[:-1]),
    }  # fmt: skip


@pytest.fixture
def pair(succeed: Invoke, tmp_path: Path) -> Path:
    """Keys of which the public one encrypts."""
    folder = tmp_path / "pair"
    options = ("--key-mode", "public", "--max-weight", MAX_WEIGHT, "--values", 609)
    succeed("keygen", "--out", folder, *options)
    return folder


def test_a_pair_is_replaced_together(pair: Path, site: Path, succeed: Invoke) -> None:
    before = key_id(pair / "public.qck", succeed)
    after = json.loads(succeed("rotate", pair / "secret.qck", "--json"))["key"]
    for name in ("public", "secret"):
        assert key_id(pair / f"{name}.qck", succeed) == after
        assert key_id(pair / f"{name}-{before}.qck", succeed) == before
    assert len(list(pair.iterdir())) == 5
    key = ("--key", pair / "public.qck", "--clip", CLIP)
    succeed("encrypt", site / "0.safetensors", "0.qcu", *key)
    succeed("decrypt", "0.qcu", "0.safetensors", "--key", pair / "secret.qck")


@pytest.mark.parametrize("missing", [False, True])
def test_an_interrupted_one_is_finished(
    pair: Path, succeed: Invoke, monkeypatch: pytest.MonkeyPatch, missing: bool
) -> None:
    class Killed(BaseException):
        pass

    def die(public: Path) -> None:
        raise Killed

    before = key_id(pair / "public.qck", succeed)
    if missing:  # the public key has been moved to those who encrypt
        (pair / "public.qck").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(rotated_files, "_put_public", die)
        with pytest.raises(Killed):
            run(["rotate", str(pair / "secret.qck")])
    after = key_id(pair / "secret.qck", succeed)
    assert after != before
    shown = succeed("rotate", pair / "secret.qck")
    assert "a rotation that was interrupted is finished; call again for another key" in shown
    assert key_id(pair / "public.qck", succeed) == key_id(pair / "secret.qck", succeed) == after
    assert not (pair / "public.next.qck").exists()
    assert json.loads(succeed("rotate", pair / "secret.qck", "--json"))["old_key"] == after


def test_what_it_refuses_changes_nothing(
    keys: Path,
    pair: Path,
    site: Path,
    succeed: Invoke,
    fail: Invoke,
    tmp_path: Path,
    monkeypatch: Any,
) -> None:
    contents = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    secret = keys / "secret.qck"
    for option in ("--out", "--install", "--model"):
        assert f"{option}: allowed with a client's kit" in fail("rotate", secret, option, "x")
    assert "quancrypt passwd changes a passphrase" in fail(
        "rotate", secret, "--new-passphrase-fd", 3
    )
    assert "absent.qck: cannot be read: No such file" in fail("rotate", keys / "absent.qck")
    assert "this is a public key; the secret key is needed" in fail("rotate", pair / "public.qck")
    with monkeypatch.context() as patch:
        patch.setenv("QUANCRYPT_PASSPHRASE", "wrong")
        assert "wrong passphrase" in fail("rotate", secret)
    assert contents == {path: path.read_bytes() for path in contents}
    other = key_id(secret, succeed)
    (keys / f"secret-{other}.qck").write_bytes(b"something else")
    assert "exists already, and is not the same file as" in fail("rotate", secret)
    assert secret.read_bytes() == contents[secret]


def test_files_of_two_keys_are_not_taken_for_a_pair(
    pair: Path, succeed: Invoke, fail: Invoke, tmp_path: Path
) -> None:
    options = ("--key-mode", "public", "--max-weight", MAX_WEIGHT, "--values", 609)
    succeed("keygen", "--out", tmp_path / "other", *options)
    (pair / "public.qck").write_bytes((tmp_path / "other" / "public.qck").read_bytes())
    refused = fail("rotate", pair / "secret.qck")
    assert "public.qck: is of the key " in refused
    assert "put the files of one key together" in refused
