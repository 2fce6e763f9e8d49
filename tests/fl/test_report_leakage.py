"""The leakage table of a report: views by attacks, from files that nobody vouches for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quancrypt_fl.report.leakage import leakage_section, parse_leaks
from quancrypt_fl.report.page import render_page
from quancrypt_fl.report.reading import collect
from quancrypt_fl.report.values import UntrustedError


def inversion(**changes: Any) -> dict[str, Any]:
    row = {
        "view": "quantized", "setting": "8 bits", "dataset": "digits", "model": "lenet",
        "attack": "dlg", "psnr": 41.26, "upload_bytes": 25, "float32_bytes": 100,
    }  # fmt: skip
    return document("inversion", [{**row, **changes}])


def membership(*rows: dict[str, Any]) -> dict[str, Any]:
    usual = {
        "view": "single", "training": "clear", "attack": "updates", "auc": 0.85,
        "test_accuracy": 0.914, "upload_bytes": 100, "float32_bytes": 100, "clients": 5,
    }  # fmt: skip
    return document("membership", [{**usual, **row} for row in rows])


def document(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    summary = {"kind": "leakage", "rows": rows, "tables": [], "checks": [], "notes": []}
    return {"schema": 1, "name": name, "title": name, "question": "?", "scale": "quick",
            "command": f"quancrypt attack {name}", "cells": [], "summary": summary}  # fmt: skip


def test_views_of_both_attacks_share_rows() -> None:
    leaks = [
        *parse_leaks(inversion(view="plaintext", setting="", upload_bytes=100)),
        *parse_leaks(inversion()),
        *parse_leaks(
            membership(
                {},
                {"view": "aggregate", "auc": 0.6},
                {"view": "final", "attack": "loss"},
                {"view": "aggregate", "training": "layers"},
            )
        ),
    ]
    (grid,) = leakage_section(leaks).tables
    assert [label for label, _ in grid.columns] == [
        "view",
        "dlg, digits, lenet: PSNR, dB",
        "membership, updates: AUC",
        "membership, loss: AUC",
        "test accuracy",
        "upload, of float32",
    ]
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in grid.rows}
    assert rows == {
        "plaintext": ["41.3", "0.85", "–", "91.4 %", "1.00 ×"],
        "quantized, 8 bits": ["41.3", "–", "–", "–", "0.250 ×"],
        "aggregate, 5 clients": ["–", "0.60", "–", "91.4 %", "1.00 ×"],
        "model, final, plaintext": ["–", "–", "0.85", "91.4 %", "–"],
        "aggregate, 5 clients, all-layers 50 %, clipped, 8 bits":
            ["–", "0.85", "–", "91.4 %", "1.00 ×"],
    }  # fmt: skip


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
    assert parse_leaks({**other, "summary": {**other["summary"], "kind": "accuracy"}}) == []
    assert parse_leaks(other) == []
    assert parse_leaks(document("inversion", [])) == []


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
        parse_leaks(inversion(**changed))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "experiment.json").write_text(json.dumps(inversion(**changed)))
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "experiment.json").write_text(json.dumps(inversion()))
    found = collect(tmp_path)
    assert [problem.file for problem in found.problems] == ["broken/experiment.json"]
    assert len(found.leaks) == 1


def test_markup_in_names_is_escaped(tmp_path: Path) -> None:
    (tmp_path / "experiment.json").write_text(json.dumps(inversion(setting="<b>x</b>")))
    assert "<b>x</b>" not in render_page(collect(tmp_path), "Privacy")
