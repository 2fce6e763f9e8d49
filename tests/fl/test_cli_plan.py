"""``quancrypt plan``: its figures against the parameters themselves."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

import quancrypt_native as qn
from quancrypt_fl.cli.app import run
from quancrypt_fl.cli.calibration import calibrate
from quancrypt_fl.cli.estimate import Estimate, default_max_weight


def plan(capsys: pytest.CaptureFixture[str], *options: object) -> dict[str, Any]:
    assert run(["plan", "--json", *map(str, options)]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    document: dict[str, Any] = json.loads(captured.out)
    return document


@pytest.mark.parametrize("key_mode", ["symmetric", "public"])
def test_figures_are_those_of_the_parameters(
    capsys: pytest.CaptureFixture[str], key_mode: str
) -> None:
    values = 1_000_000
    shown = plan(capsys, "--values", values, "--clients", 50, "--key-mode", key_mode)
    params = qn.Parameters.for_aggregation(
        bits=8, max_weight=64, security=128, key_mode=key_mode, values=values
    )
    explained = params.explain().as_dict()
    assert shown["parameters"] == json.loads(json.dumps(explained))
    assert shown["ciphertexts"] == math.ceil(values / params.values_per_ciphertext)
    assert shown["upload_bytes"] == params.upload_bytes(values)
    assert shown["expansion_over_float32"] == params.upload_bytes(values) / (4 * values)
    tenseal = 104.5 * values / params.upload_bytes(values)
    assert shown["tenseal_upload_over_this"] == pytest.approx(tenseal)
    assert shown["influence"] == {"in_range": 1 / 50, "malformed": 1.0}
    assert shown["headroom"]["weight_left"] == 64 - 50
    margin = math.log2((explained["noise_allowed"] + 1) / (64 * explained["noise_bound"]))
    assert shown["headroom"]["noise_margin_bits"] == pytest.approx(margin)
    for name in ("encrypt", "add_one_client", "decrypt"):
        assert shown["seconds"][name] > 0
    one = shown["seconds"]["add_one_client"]
    assert shown["seconds"]["add_all_clients"] == pytest.approx(50 * one)
    assert shown["measured"]["threads"] == qn.num_threads()
    assert shown["measured"]["backend"] == qn.backend()
    assert 1 <= shown["measured"]["ciphertexts"] <= shown["ciphertexts"]


@pytest.mark.parametrize("key_mode", ["symmetric", "public"])
def test_sizes_are_those_of_real_ciphertexts(key_mode: str) -> None:
    values = 30_000
    params = qn.Parameters.for_aggregation(max_weight=4, key_mode=key_mode, values=values)
    estimate = Estimate(params, values, 3)
    keys = qn.keygen(params)
    encryptor = qn.Encryptor(params, keys.public if key_mode == "public" else keys.secret)
    update = encryptor.encrypt(np.zeros(values, np.float32), clip=1.0)
    header = 500  # bytes at most, for one tensor
    assert update.ciphertexts == estimate.ciphertexts
    assert 0 < update.nbytes - estimate.upload_bytes < header
    total = qn.aggregate([update, update])
    assert 0 < total.nbytes - estimate.download_bytes < header
    assert estimate.server_bytes >= estimate.upload_bytes + estimate.download_bytes


def test_alternatives_change_one_setting(capsys: pytest.CaptureFixture[str]) -> None:
    values = 200_000
    shown = plan(capsys, "--values", values, "--clients", 8)
    found = {row["change"]: row for row in shown["alternatives"]}
    assert list(found)[:5] == [
        "--bits 4",
        "--bits 6",
        "--bits 10",
        "--bits 12",
        "--key-mode public",
    ]
    for bits in (4, 6, 10, 12):
        params = qn.Parameters.for_aggregation(bits=bits, max_weight=8, values=values)
        assert found[f"--bits {bits}"]["upload_bytes"] == params.upload_bytes(values)
    public = qn.Parameters.for_aggregation(max_weight=8, key_mode="public", values=values)
    assert found["--key-mode public"]["upload_bytes"] == public.upload_bytes(values)
    rings = [row for change, row in found.items() if change.startswith("N = ")]
    assert rings
    for row in rings:
        assert row["poly_degree"] in (shown["poly_degree"] // 2, shown["poly_degree"] * 2)


def test_impossible_alternatives_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    shown = plan(capsys, "--values", 10, "--clients", 1, "--bits", 16)
    changes = [row["change"] for row in shown["alternatives"]]
    assert "--bits 14" in changes
    assert not [change for change in changes if change in ("--bits 18", "--bits 20")]


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "--values", "300000", "--clients", "5", "--key-mode", "public"]) == 0
    text = capsys.readouterr().out
    for part in (
        "300,000 values, 5 clients, 8 bits, public keys",
        "guard bits",
        "128 bits: modulus of",
        "x float32",
        "TenSEAL's 104.5",
        "3 left of 8 when all clients count once",
        "measured here on",
        f"{qn.num_threads()} thread",
        "--key-mode symmetric",
        "quancrypt keygen --out keys --bits 8 --max-weight 8 --values 300000 --key-mode public\n",
    ):
        assert part in text


def test_default_weight_is_that_of_a_simulation() -> None:
    from quancrypt_fl.config import QuanCryptConfig

    for clients in (1, 2, 3, 16, 17, 50, 65_536):
        simulated = QuanCryptConfig(clients=clients).resolved().max_weight
        assert default_max_weight(clients) == simulated


def test_a_capacity_of_one_can_be_measured() -> None:
    params = qn.Parameters.for_aggregation(max_weight=1, values=50)
    measured = calibrate(params, 50)
    assert measured.ciphertexts == 1
    assert min(measured.encrypt, measured.add, measured.decrypt) > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--values 0", "Invalid value for '--values'"),
        ("--clients 3", "Missing option '--values'"),
        ("--values 9 --bits 17", "bits is 17; allowed: 2 to 16"),
        ("--values 9 --security 100", "security is 100"),
        ("--values 9 --key-mode secret", "key_mode is 'secret'; allowed: symmetric, public"),
        ("--values 9 --clients 5 --max-weight 4", "--max-weight is 4; allowed: at least the 5"),
        ("--values 9 --clients 70000", "--clients is 70000; allowed: 1 to 65536"),
    ],
)
def test_what_cannot_be_planned(
    capsys: pytest.CaptureFixture[str], options: str, message: str
) -> None:
    assert run(["plan", *options.split()]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert message in captured.err


def test_what_does_not_fit_comes_with_the_nearest_possible(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every documented setting fits some ring; rings of smaller moduli show the message.
    from quancrypt_native import _search

    monkeypatch.setattr(_search._core, "max_modulus_bits", lambda degree, security: 27)
    assert run(["plan", "--values", "9", "--clients", "64", "--bits", "16"]) == 2
    error = capsys.readouterr().err
    assert "bits=16 and max_weight=64 with symmetric keys do not fit any ring" in error
    assert "nearest possible: bits=" in error
