"""The receipt, and the document around it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quancrypt_fl import QuanCryptConfig, Simulation
from quancrypt_fl.method.meter import PHASES
from quancrypt_fl.receipts import SERVER_SEES, receipt_lines

TinyConfig = Callable[..., QuanCryptConfig]


def test_receipt_of_an_encrypted_run(tiny_run: tuple[Simulation, dict[str, Any]]) -> None:
    _, results = tiny_run
    receipt = results["receipt"]
    assert receipt["protected"] is True
    assert receipt["scheme"].startswith("CKKS")
    assert "Microsoft SEAL" in receipt["library"]
    assert receipt["security_bits"] == 128
    assert receipt["aggregator_held_secret_key"] is False
    assert "public parameters" in receipt["how_known"]
    parameters = receipt["parameters"]
    assert parameters["bits"] == 8
    assert parameters["max_weight"] == 4
    assert parameters["modulus_bits"] <= parameters["modulus_limit"]
    (key,) = receipt["keys"]
    reports = receipt["reports"]
    assert key["reports"] != key["fingerprint"]
    assert reports["bits"] == 8
    assert reports["poly_degree"] < parameters["poly_degree"]
    assert len(bytes.fromhex(key["fingerprint"])) == 16
    assert key["from_round"] == 1
    for entry, record in zip(receipt["rounds"], results["rounds"], strict=True):
        assert entry["ciphertexts_per_client"] >= 1
        assert entry["upload_bytes_per_client"] == record["bytes"]["upload"]
        assert entry["uploads"] == 4


def test_receipt_of_a_plain_run(tiny: TinyConfig) -> None:
    results = Simulation(tiny(method="vanilla", rounds=1)).run()
    assert results["receipt"] == {
        "protected": False,
        "scheme": "none: updates travelled in the clear",
    }
    assert receipt_lines(results["receipt"]) == [
        ("Protection", "none: updates travelled in the clear")
    ]


def test_receipt_for_people(tiny_run: tuple[Simulation, dict[str, Any]]) -> None:
    lines = dict(receipt_lines(tiny_run[1]["receipt"]))
    assert lines["Security"] == "128 bits"
    assert "the summing side held none" in lines["Secret key"]
    assert "8-bit values" in lines["Parameters"]
    assert "Server sees" not in lines


def test_what_the_server_sees_is_said_where_it_is_more(
    tiny_run: tuple[Simulation, dict[str, Any]],
) -> None:
    receipt = tiny_run[1]["receipt"]
    assert receipt["server_sees"] == SERVER_SEES
    more = receipt | {"server_sees": "the range of every tensor too"}
    assert dict(receipt_lines(more))["Server sees"] == "the range of every tensor too"


def test_one_is_no_plural(tiny_run: tuple[Simulation, dict[str, Any]]) -> None:
    receipt = tiny_run[1]["receipt"]
    last = receipt["rounds"][-1] | {"uploads": 1, "ciphertexts_per_client": 1}
    lines = dict(receipt_lines(receipt | {"rounds": [last]}))
    assert lines["Last round"].startswith("1 upload of 1 ciphertext, ")


@pytest.mark.parametrize("method", ["quancrypt", "vanilla"])
def test_results_document(tiny: TinyConfig, tmp_path: Path, method: str) -> None:
    config = tiny(method=method, rounds=2, out=tmp_path)
    results = Simulation(config).run()
    written = json.loads((tmp_path / "results.json").read_text())
    assert written == json.loads(json.dumps(results))
    assert written["schema"] == 1
    for field in ("method", "dataset", "model", "clients", "seed"):
        assert written[field] == getattr(config, field)
    assert written["config"]["batch_size"] == 16
    for field in ("python", "torch", "numpy", "cpu", "threads", "quancrypt_native", "backend"):
        assert written["environment"][field]
    assert [record["round"] for record in written["rounds"]] == [1, 2]
    for record in written["rounds"]:
        assert 0 <= record["test_accuracy"] <= 1
        assert record["test_loss"] > 0
        assert record["train_loss"] > 0
        assert record["participants"] == 4
        assert record["lost"] == 0
        assert tuple(record["seconds"]) == PHASES
        assert all(seconds > 0 for seconds in record["seconds"].values())
        assert record["bytes"]["upload"] > 0
        assert record["bytes"]["download"] > 0
    totals = written["totals"]
    assert totals["parameters"] == 9_610
    assert totals["float32_update_bytes"] == 38_440
    assert totals["test_accuracy"] == written["rounds"][-1]["test_accuracy"]
    assert totals["bytes"]["upload"] == sum(r["bytes"]["upload"] for r in written["rounds"])
    assert totals["uploaded_by_all"] == 4 * totals["bytes"]["upload"]
    assert 0 <= totals["validation_accuracy"] <= 1
    assert str(Path.home()) not in json.dumps(written["environment"])
