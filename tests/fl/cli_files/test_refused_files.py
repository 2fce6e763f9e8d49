"""What ``quancrypt`` refuses of files: wrong keys, damage, existing outputs, bad inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.fl.cli_files.conftest import CLIP, MAX_WEIGHT, Invoke, key_of

import quancrypt_native as qn


def test_wrong_keys_and_parameters(
    site: Path, succeed: Invoke, fail: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = ("--max-weight", MAX_WEIGHT, "--values", 609)
    succeed("keygen", "--out", "other", *same)
    succeed("keygen", "--out", "wider", "--bits", 12)
    sources = (site / "sum.qcu", "out.safetensors")
    refused = fail("decrypt", *sources, "--key", "other/secret.qck")
    assert "sum.qcu: the update was encrypted with key" in refused
    refused = fail("decrypt", *sources, "--key", "wider/secret.qck")
    assert "sum.qcu: the update was made with parameters" in refused
    mixed = ("--params", site / "keys" / "params.qcp")
    refused = fail("decrypt", *sources, "--key", "wider/secret.qck", *mixed)
    assert "wider/secret.qck: the secret key belongs to parameters" in refused
    encrypt = ("encrypt", site / "0.safetensors", "0.qcu", "--clip", CLIP)
    succeed(*encrypt, "--key", "other/secret.qck")
    refused = fail("aggregate", site / "1.qcu", "0.qcu", *mixed, "--out", "sum.qcu")
    assert "0.qcu: the update was encrypted with key" in refused
    Path("other/params.qcp").unlink()
    refused = fail(*encrypt, "--force", "--key", "other/secret.qck")
    assert "other/params.qcp: no such file; name the key's parameters with --params" in refused
    monkeypatch.setenv("QUANCRYPT_PASSPHRASE", "wrong")
    refused = fail("decrypt", *sources, "--key", key_of(site))
    assert "secret.qck: the key file does not open: wrong passphrase" in refused


def test_a_symmetric_parameter_set_refuses_its_public_key(
    site: Path, fail: Invoke, tmp_path: Path
) -> None:
    params = qn.Parameters.from_bytes((site / "keys" / "params.qcp").read_bytes())
    public = tmp_path / "public.qck"
    public.write_bytes(qn.keygen(params).public.to_bytes())
    options = ("--key", public, "--params", site / "keys" / "params.qcp", "--clip", 1)
    refused = fail("encrypt", site / "0.safetensors", "0.qcu", *options)
    assert "public.qck: these parameters have key_mode 'symmetric'" in refused


def test_damaged_files(
    site: Path, fail: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("QUANCRYPT_PASSPHRASE")  # nobody asks for it before the file is checked
    for name in ("0.qcu", "keys/params.qcp", "keys/secret.qck"):
        data = bytearray((site / name).read_bytes())
        data[-1] ^= 1  # of the checksum
        (tmp_path / Path(name).name).write_bytes(data)
    params = site / "keys" / "params.qcp"
    out = ("--out", "sum.qcu")
    wrong = "wrong checksum: the bytes are damaged"
    assert f"0.qcu: {wrong}" in fail("aggregate", "0.qcu", "--params", params, *out)
    assert f"0.qcu: {wrong}" in fail("inspect", "0.qcu")
    assert f"params.qcp: {wrong}" in fail("aggregate", "0.qcu", "--params", "params.qcp", *out)
    key = ("--key", "secret.qck", "--params", params)
    refused = fail("decrypt", site / "sum.qcu", "out.safetensors", *key)
    assert f"secret.qck: {wrong}" in refused
    cut = (site / "sum.qcu").read_bytes()[:-5]
    Path("cut.qcu").write_bytes(cut)
    assert "cut.qcu: truncated" in fail("inspect", "cut.qcu")
    Path("kind.qcu").write_bytes(cut[:10] + b"\x63" + cut[11:])
    assert "kind.qcu: holds an object of unknown kind 99" in fail("inspect", "kind.qcu")
    assert "0.safetensors: wrong magic: this is no file" in fail("inspect", site / "0.safetensors")
    # A parameter file where an update is expected, and other mix-ups.
    assert "params.qcp: these bytes hold" in fail("aggregate", params, "--params", params, *out)
    refused = fail("aggregate", "0.qcu", "--params", site / "sum.qcu", *out)
    assert "sum.qcu: these bytes hold" in refused
    key = ("--key", params, "--params", params)
    refused = fail("decrypt", site / "sum.qcu", "out.safetensors", *key)
    assert "params.qcp: these bytes hold" in refused


@pytest.mark.parametrize("position", [0, 1, 2])
def test_missing_files_and_folders(site: Path, fail: Invoke, position: int) -> None:
    def command(path: object) -> list[list[object]]:
        return [
            ["encrypt", path, "o.qcu", "--key", key_of(site), "--clip", 1],
            ["decrypt", path, "o.safetensors", "--key", key_of(site)],
            ["inspect", path],
        ]

    assert "absent: cannot be read: No such file" in fail(*command("absent")[position])
    refused = fail(*command(site)[position])
    assert f"{site}: cannot be read: Is a directory" in refused


def test_outputs_are_never_replaced_unasked(site: Path, succeed: Invoke, fail: Invoke) -> None:
    key = ("--key", key_of(site))
    params = ("--params", site / "keys" / "params.qcp")
    for arguments, target in (
        (["encrypt", site / "0.safetensors", "out", *key, "--clip", CLIP], "out"),
        (["decrypt", site / "sum.qcu", "out", *key], "out"),
        (["aggregate", site / "0.qcu", *params, "--out", "out"], "out"),
        (["keygen", "--out", "."], "secret.qck"),
    ):
        Path(target).write_text("mine")
        assert f"{target}: exists already; --force replaces it" in fail(*arguments)
        assert Path(target).read_text() == "mine"
        succeed(*arguments, "--force")
        assert Path(target).read_bytes() != b"mine"
        Path(target).unlink()
        assert not list(Path().glob(".*"))


def test_outputs_that_cannot_be(site: Path, fail: Invoke, tmp_path: Path) -> None:
    encrypt = ("encrypt", site / "0.safetensors")
    options = ("--key", key_of(site), "--clip", CLIP, "--force")
    assert "it is a folder" in fail(*encrypt, tmp_path, *options)
    assert "there is no folder absent" in fail(*encrypt, "absent/0.qcu", *options)
    assert "not a regular file" in fail(*encrypt, "/dev/null", *options)
    (tmp_path / "file").write_text("")
    assert "Not a directory" in fail(*encrypt, "file/0.qcu", *options)
    assert "file: is a file; --out names a folder" in fail("keygen", "--out", "file")
    below = fail("keygen", "--out", "file/keys")
    assert below.startswith("quancrypt: file: is a file; --out names a folder")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"w": np.array([[0.0, np.nan]], np.float32)}, "'w'[0, 1] is NaN or infinite"),
        ({"w": np.array([0.0, np.inf])}, "'w'[1] is NaN or infinite"),
        ({"a": np.zeros(2), "steps": np.arange(3)}, "tensor 'steps' has dtype I64; allowed: F32"),
        ({}, "in.safetensors: holds no tensor"),
    ],
)
def test_inputs_that_cannot_be_encrypted(
    site: Path, fail: Invoke, tmp_path: Path, tensors: dict[str, np.ndarray], message: str
) -> None:
    save_file(tensors, tmp_path / "in.safetensors")
    options = ("--key", key_of(site), "--clip", 1)
    refused = fail("encrypt", "in.safetensors", "out.qcu", *options)
    assert "quancrypt: in.safetensors: " in refused
    assert message in refused


def test_an_input_of_another_format(site: Path, fail: Invoke, tmp_path: Path) -> None:
    (tmp_path / "in.npy").write_bytes(b"no safetensors")
    refused = fail("encrypt", "in.npy", "out.qcu", "--key", key_of(site), "--clip", 1)
    assert "in.npy: no valid safetensors file" in refused


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        ("0", "--clip is 0.0; allowed: a positive number"),
        ("-1", "--clip is -1.0; allowed: a positive number"),
        ("nan", "--clip is nan; allowed: a positive number"),
        ("inf", "--clip is inf; allowed: a positive number"),
        ("auto:", "the factor of --clip auto: is ''; allowed: a positive number"),
        ("auto:-2", "the factor of --clip auto:-2 is -2.0; allowed: a positive number"),
        ("tight", "--clip is 'tight'; allowed: a positive number, auto, auto:FACTOR, or an"),
    ],
)
def test_clip_bounds_that_are_none(site: Path, fail: Invoke, clip: str, message: str) -> None:
    options = ("--key", key_of(site), "--clip", clip)
    assert message in fail("encrypt", site / "0.safetensors", "0.qcu", *options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no valid JSON"),
        ("[1]", "clip bounds are a JSON object"),
        ('{"conv.weight": 1, "fc.weight": 1}', "holds no bound for tensor 'scale'"),
        ('{"conv.weight": 1, "other": 1}', "bounds tensor 'other', which the input does not"),
        (
            '{"conv.weight": 1, "fc.weight": "1", "scale": 1}',
            "the bound of tensor 'fc.weight' is '1'; allowed: a positive number",
        ),
        ('{"conv.weight": 1, "fc.weight": 0, "scale": 1}', "tensor 'fc.weight' is 0; allowed"),
    ],
)
def test_files_of_clip_bounds(
    site: Path, fail: Invoke, tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "bounds.json").write_text(text)
    options = ("--key", key_of(site), "--clip", "bounds.json")
    refused = fail("encrypt", site / "0.safetensors", "0.qcu", *options)
    assert "quancrypt: bounds.json: " in refused
    assert message in refused


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("1", "--weights holds 1 number for 2 updates"),
        ("1,2,3", "--weights holds 3 numbers for 2 updates"),
        ("1,x", "--weights holds 'x'; allowed: positive integers"),
        ("1,-2", "--weights holds '-2'; allowed: positive integers"),
        ("1,0", "--weights holds '0'; allowed: positive integers"),
        ("1,", "--weights holds ''; allowed: positive integers"),
        ("1,1.5", "--weights holds '1.5'; allowed: positive integers"),
        ("3,4", "1.qcu: the total weight would be 3 + 1 * 4, above max_weight = 6"),
    ],
)
def test_weights(site: Path, fail: Invoke, weights: str, message: str) -> None:
    params = ("--params", site / "keys" / "params.qcp", "--out", "sum.qcu")
    options = ("--weights", weights)
    assert message in fail("aggregate", site / "0.qcu", site / "1.qcu", *params, *options)


def test_updates_that_do_not_add_up(
    site: Path, succeed: Invoke, fail: Invoke, tmp_path: Path
) -> None:
    params = ("--params", site / "keys" / "params.qcp", "--out", "sum.qcu")
    link = tmp_path / "again.qcu"
    link.symlink_to(site / "0.qcu")
    refused = fail("aggregate", site / "0.qcu", link, *params)
    assert "again.qcu: the same file as" in refused
    save_file({"other": np.zeros(3)}, "other.safetensors")
    succeed("encrypt", "other.safetensors", "o.qcu", "--key", key_of(site), "--clip", 1)
    refused = fail("aggregate", site / "0.qcu", "o.qcu", *params)
    assert "o.qcu: tensor 'other' stands where 'conv.weight' is expected" in refused
    assert "must be equal" not in refused


def test_control_characters_in_names_do_not_reach_the_terminal(
    site: Path, succeed: Invoke, fail: Invoke
) -> None:
    save_file({"a\x1b[31m": np.zeros(3), "b[/red]": np.zeros(2)}, "odd.safetensors")
    succeed("encrypt", "odd.safetensors", "odd.qcu", "--key", key_of(site), "--clip", 1)
    shown = succeed("inspect", "odd.qcu")
    assert "a\\x1b[31m" in shown
    assert "b[/red]" in shown
    assert "\x1b" not in shown
    save_file({"c\x1b[31m": np.zeros(3, np.int8)}, "ints.safetensors")
    options = ("--key", key_of(site), "--clip", 1, "--force")
    assert "c\\x1b[31m" in fail("encrypt", "ints.safetensors", "odd.qcu", *options)


def test_the_passphrase_is_no_argument(site: Path, fail: Invoke) -> None:
    for command in ("keygen", "encrypt", "decrypt"):
        assert "No such option" in fail(command, "--passphrase", "x")
