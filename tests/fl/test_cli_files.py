"""``quancrypt`` on files: keygen, encrypt, aggregate, decrypt and inspect as a user runs them."""

from __future__ import annotations

import json
import stat
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import quancrypt_native as qn
from quancrypt_fl.cli.app import run
from quancrypt_native import sealing

PASSPHRASE = "correct horse battery"
CLIP = 0.05
WEIGHTS = (3, 1, 2)
MAX_WEIGHT = 6

Invoke = Callable[..., str]


def model(seed: int) -> dict[str, np.ndarray]:
    """An update whose tails the clip bound cuts; a tensor is float64, another has no dimensions."""
    rng = np.random.default_rng(seed)
    return {
        "conv.weight": rng.normal(0, 0.03, (4, 3, 3, 3)).astype(np.float32),
        "fc.weight": rng.normal(0, 0.03, (10, 50)),
        "scale": np.array(rng.normal(0, 0.03), dtype=np.float32),
    }


@pytest.fixture(scope="module", autouse=True)
def _quick_key_files() -> Iterator[None]:
    """Sealing for the tests costs next to nothing; one test below makes a real key file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sealing, "_SCRYPT_N", 16)
        patch.setenv("QUANCRYPT_PASSPHRASE", PASSPHRASE)
        yield


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys, three clients' models and updates, and their sum. Tests do not write here."""
    folder = tmp_path_factory.mktemp("site")
    keys, params = folder / "keys", str(folder / "keys" / "params.qcp")
    make = ["keygen", "--out", str(keys), "--max-weight", str(MAX_WEIGHT), "--values", "609"]
    assert run(make) == 0
    for client in range(3):
        source, target = folder / f"{client}.safetensors", folder / f"{client}.qcu"
        save_file(model(client), source, metadata={"format": "pt"})
        key = str(keys / "secret.qck")
        assert run(["encrypt", str(source), str(target), "--key", key, "--clip", str(CLIP)]) == 0
    updates = [str(folder / f"{client}.qcu") for client in range(3)]
    total = ["--weights", ",".join(map(str, WEIGHTS)), "--out", str(folder / "sum.qcu")]
    assert run(["aggregate", *updates, "--params", params, *total]) == 0
    return folder


@pytest.fixture
def succeed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Invoke:
    """Run a command in an empty folder; it must end well, silently on stderr."""
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()

    def invoke(*arguments: object) -> str:
        assert run([str(argument) for argument in arguments]) == 0, capsys.readouterr().err
        captured = capsys.readouterr()
        assert captured.err == ""
        assert PASSPHRASE not in captured.out
        return captured.out

    return invoke


@pytest.fixture
def fail(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Invoke:
    """Run a command in an empty folder; it must end with status 2 and one line."""
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: object) -> str:
        capsys.readouterr()
        before = sorted(tmp_path.rglob("*"))
        assert run([str(argument) for argument in arguments]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1
        assert captured.err.startswith("quancrypt: ")
        assert PASSPHRASE not in captured.err
        assert sorted(tmp_path.rglob("*")) == before
        return captured.err

    return invoke


def key_of(site: Path) -> Path:
    return site / "keys" / "secret.qck"


def clipped_mean() -> dict[str, np.ndarray]:
    models = [model(client) for client in range(3)]
    return {
        name: sum(
            w * np.clip(m[name].astype(np.float64), -CLIP, CLIP)
            for w, m in zip(WEIGHTS, models, strict=True)
        )
        / sum(WEIGHTS)
        for name in models[0]
    }


def test_round_trip_gives_the_mean_of_the_clipped_inputs(site: Path, succeed: Invoke) -> None:
    succeed("decrypt", site / "sum.qcu", "mean.safetensors", "--key", key_of(site))
    mean, expected = load_file("mean.safetensors"), clipped_mean()
    assert mean.keys() == expected.keys()
    bound = CLIP / 127 / 2 * (1 + 1e-5)
    for name, values in expected.items():
        assert mean[name].dtype == np.float32
        assert mean[name].shape == values.shape
        assert np.abs(mean[name] - values).max() <= bound, name
    with safe_open("mean.safetensors", framework="np") as file:
        assert file.metadata() == {"format": "pt", "quancrypt": "mean of weight 6"}


def test_sum_is_the_mean_times_the_weight(site: Path, succeed: Invoke) -> None:
    succeed("decrypt", site / "sum.qcu", "sum.safetensors", "--key", key_of(site), "--sum")
    total = load_file("sum.safetensors")
    for name, values in clipped_mean().items():
        assert np.abs(total[name] - 6 * values).max() <= 6 * CLIP / 127 / 2 * (1 + 1e-5)


def test_the_sum_is_that_of_the_python_api(site: Path) -> None:
    params = qn.Parameters.from_bytes((site / "keys" / "params.qcp").read_bytes())
    updates = [
        qn.EncryptedUpdate.from_bytes((site / f"{client}.qcu").read_bytes(), params)
        for client in range(3)
    ]
    assert qn.aggregate(updates, WEIGHTS).to_bytes() == (site / "sum.qcu").read_bytes()


def test_sums_of_sums(site: Path, succeed: Invoke) -> None:
    params = ("--params", site / "keys" / "params.qcp")
    succeed("aggregate", site / "0.qcu", site / "1.qcu", *params, "--out", "part.qcu")
    succeed(
        "aggregate", "part.qcu", site / "2.qcu", *params, "--weights", "2,1", "--out", "all.qcu"
    )
    report = json.loads(succeed("inspect", "all.qcu", "--json"))
    assert report["weight"] == 5


def test_only_the_secret_key_file_is_private(succeed: Invoke, monkeypatch: Any) -> None:
    monkeypatch.setattr(sealing, "_SCRYPT_N", 2**16)  # as users have it
    succeed("keygen", "--out", "new/keys")
    folder = Path("new/keys")
    assert sorted(path.name for path in folder.iterdir()) == ["params.qcp", "secret.qck"]
    assert stat.S_IMODE((folder / "secret.qck").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in folder.iterdir():
        assert PASSPHRASE.encode() not in path.read_bytes()
    sealed = json.loads(succeed("inspect", folder / "secret.qck", "--json"))["sealed"]
    assert (sealed["derivation"], sealed["scrypt_n"]) == ("scrypt", 2**16)


def test_force_replaces_a_key_pair_as_a_whole(succeed: Invoke, fail: Invoke) -> None:
    public = json.loads(succeed("keygen", "--out", "keys", "--key-mode", "public", "--json"))
    assert public["files"]["public"] == "keys/public.qck"
    assert "keys/params.qcp: exists already; --force" in fail("keygen", "--out", "keys")
    symmetric = json.loads(succeed("keygen", "--out", "keys", "--force", "--json"))
    assert symmetric["key"] != public["key"]
    assert sorted(path.name for path in Path("keys").iterdir()) == ["params.qcp", "secret.qck"]


def test_a_public_key_encrypts_without_a_passphrase(
    succeed: Invoke, fail: Invoke, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = json.loads(succeed("keygen", "--out", "keys", "--key-mode", "public", "--json"))
    with monkeypatch.context() as patch:
        patch.delenv("QUANCRYPT_PASSPHRASE")
        succeed("encrypt", site / "0.safetensors", "0.qcu", "--key", "keys/public.qck", "--clip", 1)
        shown = json.loads(succeed("inspect", "keys/public.qck", "--json"))
        assert shown["key"] == made["key"]
    refused = fail("decrypt", "0.qcu", "0.safetensors", "--key", "keys/public.qck")
    assert "keys/public.qck: this is a public key; decryption needs the secret" in refused
    succeed("decrypt", "0.qcu", "0.safetensors", "--key", "keys/secret.qck")
    found = load_file("0.safetensors")["conv.weight"]
    assert np.abs(found - model(0)["conv.weight"]).max() <= 1 / 127 / 2 * (1 + 1e-5)


def test_bounds_from_means_serve_all_clients(site: Path, succeed: Invoke, fail: Invoke) -> None:
    key = ("--key", key_of(site))
    first = ("--clip", "auto:2", "--save-clip", "bounds.json", "--json")
    shown = json.loads(succeed("encrypt", site / "0.safetensors", "0.qcu", *key, *first))
    bounds = json.loads(Path("bounds.json").read_text())
    for tensor in shown["tensors"]:
        values = np.asarray(model(0)[tensor["name"]])
        assert tensor["clip"] == bounds[tensor["name"]]
        assert tensor["clip"] == pytest.approx(2 * np.abs(values).mean())
        assert tensor["clipped_values"] == np.count_nonzero(np.abs(values) > tensor["clip"])
    assert shown["tensors"][0]["clipped_values"] > 0
    succeed("encrypt", site / "1.safetensors", "1.qcu", *key, "--clip", "bounds.json")
    params = ("--params", site / "keys" / "params.qcp", "--out", "sum.qcu")
    succeed("aggregate", "0.qcu", "1.qcu", *params)
    Path("sum.qcu").unlink()
    refused = fail("aggregate", "0.qcu", site / "2.qcu", *params)
    assert "2.qcu: tensor 'conv.weight' has clip bound 0.05; expected 0.0" in refused
    assert "clip bounds must be equal for all clients whose updates are added" in refused


def test_a_tensor_of_zeros_has_no_automatic_bound(
    site: Path, succeed: Invoke, fail: Invoke, tmp_path: Path
) -> None:
    tensors = {"empty": np.zeros((0, 3), np.float32), "w": np.ones(4, np.float32)}
    save_file({**tensors, "frozen": np.zeros(4, np.float32)}, tmp_path / "zeros.safetensors")
    options = ("--key", key_of(site), "--clip", "auto")
    refused = fail("encrypt", "zeros.safetensors", "0.qcu", *options)
    assert refused == (
        "quancrypt: tensor 'frozen' is all zero, so 'auto' finds no bound for it: "
        "give bounds in a JSON file, as --save-clip writes them\n"
    )
    save_file(tensors, tmp_path / "some.safetensors")
    succeed("encrypt", "some.safetensors", "0.qcu", *options)


def test_tensors_that_are_mostly_clipped_are_named(site: Path, succeed: Invoke) -> None:
    half = np.array([1, 1, 3, 3], np.float32)
    save_file({"half": half, "most\x1b": half + np.float32([0, 2, 0, 0])}, "in.safetensors")
    options = ("--key", key_of(site), "--clip", 2)
    shown = succeed("encrypt", "in.safetensors", "0.qcu", *options)
    assert shown.endswith(
        "62.50% of values clipped\nmore than half of the values clipped: most\\x1b (75%)\n"
    )
    shown = succeed("encrypt", "in.safetensors", "1.qcu", *options[:2], "--clip", 4)
    assert "more than half" not in shown


def test_no_input_is_written_over(site: Path, succeed: Invoke, fail: Invoke) -> None:
    for name in ("0.safetensors", "0.qcu", "1.qcu"):
        Path(name).write_bytes((site / name).read_bytes())
    succeed("keygen", "--out", "keys", "--max-weight", MAX_WEIGHT, "--values", 609)
    key, params = "keys/secret.qck", "keys/params.qcp"
    Path("bounds.json").write_text("{}")
    encrypt = ("encrypt", "0.safetensors")
    options = ("--key", key, "--clip", "bounds.json", "--force")
    contents = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    for target in ("./0.safetensors", key, params, "bounds.json"):
        refused = fail(*encrypt, target, *options)
        assert f"{Path(target)}: is the same file as " in refused
        refused = fail(*encrypt, "new.qcu", *options, "--save-clip", target)
        assert f"{Path(target)}: is the same file as " in refused
    refused = fail(*encrypt, "new.qcu", *options, "--save-clip", "./keys/../new.qcu")
    assert "is the same file as new.qcu" in refused
    for target in ("0.qcu", key, params):
        refused = fail("decrypt", "0.qcu", target, "--key", key, "--force")
        assert f"{target}: is the same file as {target}; name another one" in refused
    for target in ("0.qcu", "1.qcu", params):
        out = ("--params", params, "--out", target, "--force")
        assert f"{target}: is the same file as" in fail("aggregate", "0.qcu", "1.qcu", *out)
    assert contents == {path: path.read_bytes() for path in contents}


def test_the_key_file_is_looked_at_before_its_parameters(site: Path, fail: Invoke) -> None:
    source, key = site / "0.safetensors", "absent/secret.qck"
    for command in (("encrypt", source, "0.qcu", "--clip", 1), ("decrypt", site / "0.qcu", "0.s")):
        assert f"{key}: cannot be read: No such file" in fail(*command, "--key", key)
        refused = fail(*command, "--key", source)
        assert "0.safetensors: wrong magic: this is no file of quancrypt" in refused
        refused = fail(*command, "--key", site / "sum.qcu")
        assert "sum.qcu: " in refused
        assert "params.qcp" not in refused


def test_half_precision_is_widened_exactly(site: Path, succeed: Invoke) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_torch

    values = torch.linspace(-1, 1, 64)
    save_torch({"a": values.bfloat16(), "b": values.half(), "c": values}, "half.safetensors")
    key = ("--key", key_of(site), "--clip", 1)
    text = succeed("encrypt", "half.safetensors", "half.qcu", *key)
    assert "widened to float32: a, b\n" in text
    succeed("decrypt", "half.qcu", "out.safetensors", "--key", key_of(site))
    found = load_file("out.safetensors")
    for name, given in (("a", values.bfloat16()), ("b", values.half()), ("c", values)):
        expected = qn.dequantize(qn.quantize(given.float().numpy(), 1.0, 8), 1.0, 8)
        assert np.array_equal(found[name], expected), name


def test_stochastic_rounding_stays_within_a_step(site: Path, succeed: Invoke) -> None:
    options = ("--key", key_of(site), "--clip", CLIP, "--rounding", "stochastic")
    succeed("encrypt", site / "0.safetensors", "0.qcu", *options)
    succeed("decrypt", "0.qcu", "0.safetensors", "--key", key_of(site))
    found, given = (
        load_file("0.safetensors")["fc.weight"],
        np.clip(model(0)["fc.weight"], -CLIP, CLIP),
    )
    error = np.abs(found - given).max()
    assert CLIP / 127 / 2 < error <= CLIP / 127 * (1 + 1e-5)


def test_updates_made_in_python_open_too(site: Path, succeed: Invoke) -> None:
    params = qn.Parameters.from_bytes((site / "keys" / "params.qcp").read_bytes())
    secret = qn.SecretKey.from_bytes(
        key_of(site).read_bytes(), params, passphrase=PASSPHRASE.encode()
    )
    encryptor = qn.Encryptor(params, secret)
    integers = np.arange(-10, 10)
    update = encryptor.encrypt_integers(integers)
    Path("int.qcu").write_bytes(qn.aggregate([update, update]).to_bytes())
    key = ("--key", key_of(site))
    succeed("decrypt", "int.qcu", "sum.safetensors", *key, "--sum")
    found = load_file("sum.safetensors")["array"]
    assert found.dtype == np.int64
    assert np.array_equal(found, 2 * integers)
    assert "(one array)     20           -" in succeed("inspect", "int.qcu")


def test_memory_does_not_grow_with_the_number_of_updates(
    site: Path, succeed: Invoke, tmp_path: Path
) -> None:
    save_file({"w": np.zeros(300_000, np.float32)}, "w.safetensors")
    for number in range(MAX_WEIGHT):
        key = ("--key", key_of(site), "--clip", 1)
        succeed("encrypt", "w.safetensors", f"{number}.qcu", *key)
    size = Path("0.qcu").stat().st_size

    def peak(count: int) -> int:
        sources = [tmp_path / f"{number}.qcu" for number in range(count)]
        params = ("--params", site / "keys" / "params.qcp", "--out", f"sum{count}.qcu")
        tracemalloc.start()
        try:
            succeed("aggregate", *sources, *params)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(2)  # imports and caches
    Path("sum2.qcu").unlink()
    assert peak(MAX_WEIGHT) - peak(2) < size / 2


def test_json_documents(site: Path, succeed: Invoke) -> None:
    params = site / "keys" / "params.qcp"
    key = ("--key", key_of(site))
    made = json.loads(succeed("keygen", "--out", "keys", "--json"))
    assert made["parameters"]["max_weight"] == 16
    assert set(made["files"]) == {"params", "secret"}
    encrypt = ("encrypt", site / "0.safetensors", "0.qcu", *key, "--clip", CLIP, "--json")
    encrypted = json.loads(succeed(*encrypt))
    assert encrypted["bytes"] == Path("0.qcu").stat().st_size
    assert [tensor["shape"] for tensor in encrypted["tensors"]] == [[4, 3, 3, 3], [10, 50], []]
    updates = [site / f"{client}.qcu" for client in range(3)]
    total = json.loads(
        succeed("aggregate", *updates, "--params", params, "--out", "sum.qcu", "--json")
    )
    assert (total["updates"], total["weight"], total["weight_left"]) == (3, 3, 3)
    assert total["bytes"] == Path("sum.qcu").stat().st_size
    opened = json.loads(succeed("decrypt", "sum.qcu", "mean.safetensors", *key, "--json"))
    assert (opened["result"], opened["weight"], opened["values"]) == ("mean", 3, 609)
    assert opened["bytes"] == Path("mean.safetensors").stat().st_size
    assert {encrypted["key"], total["key"]} == {opened["key"]}


def test_inspect_knows_every_kind_without_a_key(
    site: Path, succeed: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("QUANCRYPT_PASSPHRASE")
    params = site / "keys" / "params.qcp"
    parameters = json.loads(succeed("inspect", params, "--json"))
    known = qn.Parameters.from_bytes(params.read_bytes())
    assert parameters["kind"] == "parameters"
    assert parameters["parameters"]["fingerprint"] == known.fingerprint
    secret = json.loads(succeed("inspect", key_of(site), "--json"))
    assert (secret["kind"], secret["parameters"]) == ("secret key", known.fingerprint)
    fresh = json.loads(succeed("inspect", site / "0.qcu", "--json"))
    assert (fresh["kind"], fresh["seeded"], fresh["weight"]) == ("update", True, 1)
    assert fresh["key"] == secret["key"]
    total = json.loads(succeed("inspect", site / "sum.qcu", "--params", params, "--json"))
    assert (total["seeded"], total["weight"], total["max_weight"]) == (False, 6, 6)
    assert total["tensors"][0] == {"name": "conv.weight", "shape": [4, 3, 3, 3], "clip": CLIP}
    assert total["ciphertexts"] == 1
    text = succeed("inspect", site / "sum.qcu")
    assert "fc.weight          10 x 50        0.05\n" in text
    assert "sum.qcu: update, " in text
    for path in (params, key_of(site)):
        assert known.fingerprint in succeed("inspect", path)


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
    assert "file/keys: cannot be written: Not a dir" in fail("keygen", "--out", "file/keys")


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
