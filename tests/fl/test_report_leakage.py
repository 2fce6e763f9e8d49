"""The leakage tables of a report: views by attacks, from files that nobody vouches for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quancrypt_fl.report.leakage import leakage_section, parse_leaks
from quancrypt_fl.report.page import render_page
from quancrypt_fl.report.reading import collect
from quancrypt_fl.report.values import UntrustedError


def inversion(*rows: dict[str, Any], **changes: Any) -> dict[str, Any]:
    usual = {
        "view": "quantized", "setting": "8 bits", "dataset": "digits", "model": "lenet",
        "attack": "dlg", "psnr": 41.26, "upload_bytes": 25, "float32_bytes": 100,
    }  # fmt: skip
    return document("inversion", [{**usual, **changes, **row} for row in rows or ({},)])


def membership(*rows: dict[str, Any], **changes: Any) -> dict[str, Any]:
    usual = {
        "view": "single", "training": "clear", "attack": "updates", "auc": 0.85,
        "dataset": "digits", "model": "lenet",
        "test_accuracy": 0.914, "upload_bytes": 100, "float32_bytes": 100, "clients": 5,
    }  # fmt: skip
    return document("membership", [{**usual, **changes, **row} for row in rows or ({},)])


def unnamed(item: dict[str, Any]) -> dict[str, Any]:
    """As of a version whose rows of membership had neither data set nor model."""
    for row in item["summary"]["rows"]:
        del row["dataset"], row["model"]
    return item


def tables(**runs: dict[str, Any]) -> dict[str, dict[str, dict[str, str]]]:
    """From a table's caption and a row's name to its cells by column, without the empty ones."""
    leaks = [leak for run, item in runs.items() for leak in parse_leaks(item, run)]
    found: dict[str, dict[str, dict[str, str]]] = {}
    for grid in leakage_section(leaks).tables:
        labels = [label for label, _ in grid.columns[1:]]
        rows = {
            row[0].text: {
                label: cell.text
                for label, cell in zip(labels, row[1:], strict=True)
                if cell.text != "–"
            }
            for row in grid.rows
        }
        assert len(rows) == len(grid.rows)
        assert grid.caption not in found
        found[grid.caption] = rows
    return found


def document(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    summary = {"kind": "leakage", "rows": rows, "tables": [], "checks": [], "notes": []}
    return {"schema": 1, "name": name, "title": name, "question": "?", "scale": "quick",
            "command": f"quancrypt attack {name}", "cells": [], "summary": summary}  # fmt: skip


def test_views_of_both_attacks_share_rows() -> None:
    found = tables(
        a=inversion({"view": "plaintext", "setting": "", "upload_bytes": 100}, {}),
        b=membership(
            {},
            {"view": "aggregate", "auc": 0.6},
            {"view": "final", "attack": "loss"},
            {"view": "aggregate", "training": "layers"},
        ),
    )
    cost = {"test accuracy": "91.4 %", "upload, of float32": "1.00 ×"}
    updates = "membership, updates: AUC"
    assert found == {
        "digits, lenet": {
            "plaintext": {"dlg: PSNR, dB": "41.3", updates: "0.85", **cost},
            "quantized, 8 bits": {"dlg: PSNR, dB": "41.3", "upload, of float32": "0.250 ×"},
            "aggregate, 5 clients": {updates: "0.60", **cost},
            "model, final, plaintext": {
                "membership, loss: AUC": "0.85",
                "test accuracy": "91.4 %",
            },
            "aggregate, 5 clients, all-layers 50 %, clipped, 8 bits": {updates: "0.85", **cost},
        }
    }


def test_each_figure_stands_beside_its_own_accuracy_and_bytes() -> None:
    """Two data sets and two models in one folder: no row has figures of two of them."""
    plain = {"view": "plaintext", "setting": ""}
    found = tables(
        inversion=inversion(
            {**plain, "psnr": 72.1, "upload_bytes": 101},
            {**plain, "psnr": 35.5, "upload_bytes": 102, "model": "cnn"},
            {**plain, "psnr": 30.0, "upload_bytes": 103, "dataset": "mnist"},
        ),
        digits=membership(auc=0.86, test_accuracy=0.80, upload_bytes=102, model="cnn"),
        mnist=membership(
            auc=0.79, test_accuracy=0.86, upload_bytes=104, model="cnn", dataset="mnist"
        ),
    )
    psnr, auc = "dlg: PSNR, dB", "membership, updates: AUC"
    accuracy, upload = "test accuracy", "upload, of float32"
    assert found == {
        "digits, lenet": {"plaintext": {psnr: "72.1", upload: "1.01 ×"}},
        "digits, cnn": {
            "plaintext": {psnr: "35.5", auc: "0.86", accuracy: "80.0 %", upload: "1.02 ×"}
        },
        "mnist, lenet": {"plaintext": {psnr: "30.0", upload: "1.03 ×"}},
        "mnist, cnn": {"plaintext": {auc: "0.79", accuracy: "86.0 %", upload: "1.04 ×"}},
    }


def test_several_runs_of_one_view_and_attack_are_kept_apart() -> None:
    final = {"view": "final", "attack": "loss"}
    items = {
        "one": membership({}, final, auc=0.6),
        "two": membership({}, auc=0.7, test_accuracy=0.5),
    }
    found = tables(**items)["digits, lenet"]
    auc, accuracy, upload = "membership, updates: AUC", "test accuracy", "upload, of float32"
    assert found == {
        "plaintext, one": {auc: "0.60", accuracy: "91.4 %", upload: "1.00 ×"},
        "plaintext, two": {auc: "0.70", accuracy: "50.0 %", upload: "1.00 ×"},
        "model, final, plaintext": {"membership, loss: AUC": "0.60", accuracy: "91.4 %"},
    }
    assert list(found) == ["plaintext, one", "plaintext, two", "model, final, plaintext"]
    leaks = [leak for run, item in items.items() for leak in parse_leaks(item, run)]
    assert any("kept apart" in note for note in leakage_section(leaks).notes)
    assert not any("kept apart" in note for note in leakage_section(leaks[:2]).notes)


@pytest.mark.parametrize("changed", [{"test_accuracy": 0.5}, {"upload_bytes": 50}])
def test_runs_that_differ_in_what_a_view_costs_are_kept_apart(changed: dict[str, Any]) -> None:
    one, two = membership(attack="loss"), membership(**changed)
    assert list(tables(one=one, two=two)["digits, lenet"]) == ["plaintext, one", "plaintext, two"]
    assert list(tables(one=one, two=membership())["digits, lenet"]) == ["plaintext"]


def test_a_view_and_attack_twice_in_one_run_shows_both() -> None:
    found = tables(one=inversion({}, {"psnr": 12.0}))
    assert found["digits, lenet"]["quantized, 8 bits"]["dlg: PSNR, dB"] == "41.3 / 12.0"


def test_files_without_names_have_tables_of_their_own() -> None:
    plain = {"view": "plaintext", "setting": ""}
    items = {
        "inv": inversion(plain),
        "old/digits": unnamed(membership(test_accuracy=0.8)),
        "old/mnist": unnamed(membership({"attack": "loss"}, test_accuracy=0.8)),
    }
    found = tables(**items)
    assert list(found) == [
        "digits, lenet",
        "data set not stated, model not stated (old/digits)",
        "data set not stated, model not stated (old/mnist)",
    ]
    assert all(len(rows) == 1 for rows in found.values())
    assert "test accuracy" not in found["digits, lenet"]["plaintext"]
    half = membership(model="", dataset="mnist")
    assert list(tables(x=half)) == ["mnist, model not stated (x)"]


@pytest.mark.parametrize("kind", ["guess", "decoded", "unmasked", "of a later version"])
def test_kinds_of_views_are_as_the_file_has_them(kind: str) -> None:
    found = tables(x=inversion(view=kind, setting="", upload_bytes=56))["digits, lenet"]
    assert found == {kind: {"dlg: PSNR, dB": "41.3", "upload, of float32": "0.560 ×"}}
    for nothing in (0, None):
        row = tables(x=inversion(view=kind, setting="s", upload_bytes=nothing))["digits, lenet"]
        assert row == {f"{kind}, s": {"dlg: PSNR, dB": "41.3"}}
    assert list(tables(x=membership(view=kind))["digits, lenet"]) == [kind]
    noisy = tables(x=membership(view=kind, training="noise"))["digits, lenet"]
    assert list(noisy) == [f"{kind}, noise of a training"]


def test_what_is_left_out_is_said() -> None:
    many = [{"attack": f"a{i}"} for i in range(30)]
    section = leakage_section(parse_leaks(inversion(*many), "x"))
    assert len(section.tables[0].columns) == 24 + 3
    assert any("24 attacks at most" in note for note in section.notes)
    sets = [{"dataset": f"d{i}"} for i in range(50)]
    section = leakage_section(parse_leaks(inversion(*sets), "x"))
    assert len(section.tables) == 40
    assert len({grid.name for grid in section.tables}) == 40
    assert any("40 of 50" in note for note in section.notes)


def test_a_page_begins_with_the_leakage_table(tmp_path: Path) -> None:
    for name, item in (("a", inversion()), ("b", membership({}))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "experiment.json").write_text(json.dumps(item))
    found = collect(tmp_path)
    assert len(found.experiments) == 2
    page = render_page(found, "Privacy")
    assert '<section id="leakage"' in page
    assert page.index("What each view gives away") < page.index("quancrypt attack inversion")
    assert "2 experiments" in page


def test_other_experiments_have_no_leaks() -> None:
    other = document("timing", [{"anything": 1}])
    assert parse_leaks({**other, "summary": {**other["summary"], "kind": "accuracy"}}, "x") == []
    assert parse_leaks(other, "x") == []
    assert parse_leaks(document("inversion", []), "x") == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"psnr": "high"}, r"rows\[0\]\.psnr is not a number"),
        ({"psnr": None}, r"rows\[0\]\.psnr is missing"),
        ({"float32_bytes": 0}, r"float32_bytes = 0 is not in"),
        ({"view": 7}, "view is not text"),
    ],
)
def test_broken_figures_are_named(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UntrustedError, match=message):
        parse_leaks(inversion(**changed), "x")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "experiment.json").write_text(json.dumps(inversion(**changed)))
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "experiment.json").write_text(json.dumps(inversion()))
    found = collect(tmp_path)
    assert [problem.file for problem in found.problems] == ["broken/experiment.json"]
    assert [leak.run for leak in found.leaks] == ["whole"]


def test_markup_in_names_is_escaped(tmp_path: Path) -> None:
    (tmp_path / "experiment.json").write_text(json.dumps(inversion(setting="<b>x</b>")))
    assert "<b>x</b>" not in render_page(collect(tmp_path), "Privacy")
