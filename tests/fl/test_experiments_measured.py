"""The experiments that measure time and bytes: on a small model, with a small Paillier modulus."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quancrypt_fl.baselines.batchcrypt.lanes import Lanes
from quancrypt_fl.config import QuanCryptConfig
from quancrypt_fl.errors import MethodError
from quancrypt_fl.experiments import communication, subjects, timing
from quancrypt_fl.experiments.cells import MeasuringCell
from quancrypt_fl.experiments.communication import COMMUNICATION
from quancrypt_fl.experiments.experiment import Plan
from quancrypt_fl.experiments.runner import ExperimentRun
from quancrypt_fl.experiments.subjects import Subject, initial_weights, update_of
from quancrypt_fl.experiments.timing import TIMING
from quancrypt_fl.machine import cpus
from quancrypt_fl.observer import Observer
from quancrypt_fl.protect import native_environment

ONE_SEED = Plan(seeds=(1,))
SMALL = {"batchcrypt": {"paillier_bits": 512, "processes": 1}}
FIELDS = {"model": "mlp", "clients": 3}


def small(fields: dict[str, Any]) -> dict[str, Any]:
    return {**fields, **SMALL.get(fields["method"], {})}


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    pytest.importorskip("phe", reason="needs the [baselines] extra")
    pytest.importorskip("tenseal", reason="needs the [baselines] extra")
    methods = {key: (label, small(dict(f))) for key, (label, f) in timing.METHODS.items()}
    methods.pop("tenseal-code")
    preset = replace(TIMING.presets["quick"], repeat=2, rounds=2)
    experiment = replace(
        TIMING,
        models={"mlp": "digits"},
        methods=methods,
        presets={"quick": preset},
        clients=3,
    )
    out = tmp_path_factory.mktemp("timing") / "out"
    return out, ExperimentRun(experiment, ONE_SEED, out).run()


def test_timing_measures_all_methods_on_one_update(timed: tuple[Path, dict[str, Any]]) -> None:
    out, document = timed
    assert document["complete"] is True
    measured = json.loads((out / "cells" / "update-mlp" / "measurement.json").read_text())
    results = measured["results"]
    assert results["missing"] == {}
    assert results["values"] == 9610
    assert set(results["methods"]) == {
        "quancrypt", "vanilla", "tenseal-paper", "batchcrypt", "quancrypt-all"
    }  # fmt: skip
    for key, entry in results["methods"].items():
        assert entry["share"] == (1 / 16 if key == "batchcrypt" else 1.0)
        assert all(len(samples) == 2 for samples in entry["seconds"].values())
        assert all(s > 0 for samples in entry["seconds"].values() for s in samples)
        assert (entry["ciphertexts"] > 0) == (key != "vanilla")
    ours = results["methods"]["quancrypt"]["upload"]
    assert results["methods"]["tenseal-paper"]["upload"] > 20 * ours


def test_timing_judges_what_is_required_and_names_extrapolation(
    timed: tuple[Path, dict[str, Any]],
) -> None:
    out, document = timed
    checks = {check["text"]: check for check in document["summary"]["checks"]}
    assert {check["required"] for check in checks.values()} == {
        ">= 1,000 x", ">= 1.80 x", ">= 2.80 x", ">= 300 x", ">= 150 x", ">= 55.0 x", "<= 5%"
    }  # fmt: skip
    assert all(check["passed"] is not None for check in checks.values())
    batchcrypt = checks["encrypt: faster than BatchCrypt, 8 bits, lanes filled"]
    assert "extrapolated from 0.0625 of the values" in batchcrypt["basis"]
    table = (out / "table.md").read_text()
    assert "BatchCrypt, 8 bits, lanes filled (extrapolated)" in table
    assert "TenSEAL, the paper's parameters (extrapolated)" not in table
    assert "| encryption time | 8.97 h to 10.07 h | 0.97 h to 4.90 h | 9.00 x |" in table
    assert "| protection / vanilla round |" in table
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_ours_has_one_thread_in_every_ratio(
    timed: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, document = timed
    measured = json.loads((out / "cells" / "update-mlp" / "measurement.json").read_text())
    for entries in (measured["results"]["methods"], measured["parameters"]["methods"]):
        threads = {key: entry["native_threads"] for key, entry in entries.items()}
        assert threads.pop("quancrypt-all") == cpus()
        assert set(threads.values()) == {1}
        assert {entry["processes"] for entry in entries.values()} == {1}
    assert not any("all CPUs" in check["text"] for check in document["summary"]["checks"])
    table = (out / "table.md").read_text()
    assert "| QuanCrypt-FL, all CPUs |" in table
    assert "QuanCrypt-FL computes with one thread, and so does TenSEAL" in table
    assert f"threads of ours and processes: {cpus()} and 1; encrypt " in table
    full = TIMING.cells(ONE_SEED)[0].describe()["methods"]
    assert full["batchcrypt"]["processes"] == full["batchcrypt"]["fields"]["processes"] == cpus()
    assert full["tenseal-paper"]["fields"]["threads"] == 1
    monkeypatch.setattr(timing, "cpus", lambda: 99)  # of another machine: measured again
    cell = TIMING.cells(ONE_SEED)[0]
    assert cell.describe()["methods"]["quancrypt-all"]["native_threads"] == 99
    assert cell.describe() != {**cell.describe(), "methods": full}


def test_threads_of_a_method_are_those_that_are_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int]] = []
    sample = Subject.sample

    def note(self: Subject) -> Any:
        seen.append((self.config.method, native_environment()["native_threads"]))
        return sample(self)

    monkeypatch.setattr(Subject, "sample", note)
    before = native_environment()["native_threads"]
    methods = {
        key: {"fields": {**FIELDS, "method": m}, "share": 1.0, "native_threads": n, "processes": 1}
        for key, m, n in (
            ("one", "quancrypt", 1),
            ("none", "vanilla", 1),
            ("three", "quancrypt", 3),
        )
    }
    results = timing.measure_updates({"model": "mlp", "seed": 1, "repeat": 1, "methods": methods})
    assert seen == 2 * [("quancrypt", 1), ("vanilla", 1), ("quancrypt", 3)]
    assert native_environment()["native_threads"] == before
    assert results["methods"]["three"]["native_threads"] == 3


def test_a_clients_protection_is_compared_with_its_own_training(
    timed: tuple[Path, dict[str, Any]],
) -> None:
    out, document = timed
    row = next(r for r in document["summary"]["rows"] if r["arm"] == "rounds-mlp-quancrypt")
    waits = row["protect"] / 3 + row["aggregate"] + row["unprotect"]
    assert row["client_protection_to_training"] == pytest.approx(waits / (row["train"] / 3))
    table = (out / "table.md").read_text()
    assert "| protection / training, one client |" in table
    assert "In a simulation clients train one after another" in table


def test_ratios_are_those_of_the_samples(timed: tuple[Path, dict[str, Any]]) -> None:
    out, document = timed
    measured = json.loads((out / "cells" / "update-mlp" / "measurement.json").read_text())
    seconds = {k: e["seconds"]["protect"] for k, e in measured["results"]["methods"].items()}
    row = next(r for r in document["summary"]["rows"] if r["arm"] == "update-mlp-batchcrypt")
    ratios = np.array(seconds["batchcrypt"]) / np.array(seconds["quancrypt"])
    assert row["ratio_to_ours"]["protect"] == pytest.approx(float(np.median(ratios)))


def test_a_rival_that_is_not_installed_is_named_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    arrange = subjects.arrange

    def without_tenseal(config: QuanCryptConfig, weights: Any) -> Any:
        if config.method == "tenseal":
            raise MethodError("this method needs 'tenseal', which is not installed")
        return arrange(config, weights)

    monkeypatch.setattr(subjects, "arrange", without_tenseal)
    methods = {k: v for k, v in timing.METHODS.items() if k in ("quancrypt", "tenseal-paper")}
    experiment = replace(TIMING, models={"mlp": "digits"}, methods=methods, clients=3)
    cell = experiment.cells(ONE_SEED)[0]
    document = cell.run(tmp_path, Observer())
    assert set(document["results"]["methods"]) == {"quancrypt"}
    assert cell.finished(tmp_path) is None
    summary = experiment.summarize(ONE_SEED, {cell.id: document})
    assert any("'tenseal', which is not installed" in note for note in summary["notes"])
    tenseal = [c for c in summary["checks"] if "TenSEAL" in c["text"]]
    assert tenseal
    assert all(check["passed"] is None for check in tenseal)


def test_communication_counts_real_bytes(tmp_path: Path) -> None:
    pytest.importorskip("phe", reason="needs the [baselines] extra")
    variants = {
        key: replace(variant, fields=small(dict(variant.fields)))
        for key, variant in COMMUNICATION.variants.items()
        if "tenseal" not in key
    }
    preset = replace(COMMUNICATION.presets["quick"], models=("cnn",), batchcrypt_share=1 / 256)
    experiment = replace(COMMUNICATION, variants=variants, presets={"quick": preset}, clients=3)
    document = ExperimentRun(experiment, ONE_SEED, tmp_path).run()
    assert document["complete"] is True
    assert document["data"] == {}
    rows = {row["arm"].removeprefix("cnn-"): row for row in document["summary"]["rows"]}
    assert set(rows) == {*variants, "batchcrypt-published"}
    bits = [rows[f"bits-{b}"]["bytes_per_value"] for b in (2, 3, 4, 6, 8, 12, 16)]
    assert bits == sorted(bits)
    assert rows["vanilla"]["upload"] == pytest.approx(4 * 421_642, rel=0.01)
    # A mask of each client's own saves nothing: zeros are sent.
    assert rows["client-0.5"]["upload"] == rows["bits-8"]["upload"]
    assert rows["shared-0.5"]["upload"] == pytest.approx(rows["bits-8"]["upload"] / 2, rel=0.1)
    assert [check["passed"] for check in document["summary"]["checks"]] == [True, True]
    lanes = Lanes.published()
    assert rows["batchcrypt-published"]["ciphertexts"] == math.ceil(421_642 / lanes.count)
    table = (tmp_path / "table.md").read_text()
    assert "QuanCrypt-FL, 8 bits, p = 0.5, shared mask" in table
    assert "BatchCrypt, 8 bits, lanes filled (extrapolated)" in table


def test_a_subject_that_does_not_return_the_update_is_not_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights = initial_weights("mlp")
    update = update_of(weights, 1)
    subject = Subject({"method": "vanilla", **FIELDS}, weights, update)
    assert subject.sample().seconds["protect"] > 0
    wrong = {name: -tensor for name, tensor in update.items()}
    monkeypatch.setattr(subject, "_update", wrong)
    with pytest.raises(MethodError, match=r"vanilla: the opened sum has correlation -1\.000"):
        subject.sample()


def test_a_share_of_an_update_is_extrapolated_by_values() -> None:
    weights = initial_weights("mlp")
    update = update_of(weights, 1)
    fields = {"method": "vanilla", **FIELDS}
    whole = Subject(fields, weights, update).sample()
    part = Subject(fields, weights, update, share=0.25).sample()
    assert part.upload == pytest.approx(whole.upload, rel=0.05)
    again = update_of(weights, 1)
    assert all(np.array_equal(update[name], again[name]) for name in update)


def test_measurements_are_kept_by_their_parameters(tmp_path: Path) -> None:
    calls = []

    def measure(parameters: Any) -> dict[str, Any]:
        calls.append(parameters)
        return {"answer": parameters["x"] * 2}

    cell = MeasuringCell("m", "m", measure, {"x": 21})
    assert cell.finished(tmp_path) is None
    document = cell.run(tmp_path, Observer())
    assert document["results"] == {"answer": 42}
    assert cell.finished(tmp_path) == document
    assert replace(cell, parameters={"x": 22}).finished(tmp_path) is None
    assert replace(cell, seed=2).finished(tmp_path) is None
    (tmp_path / "measurement.json").write_text("[]")
    assert cell.finished(tmp_path) is None
    assert len(calls) == 1
    assert communication.measure_bytes is COMMUNICATION.cells(ONE_SEED)[0].measure  # type: ignore[attr-defined]
