"""``quancrypt`` on files: keygen, encrypt, aggregate, decrypt and inspect as a user runs them."""

from __future__ import annotations

import json
import stat
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from tests.fl.cli_files.conftest import CLIP, MAX_WEIGHT, PASSPHRASE, WEIGHTS, Invoke, key_of, model

import quancrypt_native as qn
from quancrypt_native import sealing


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
