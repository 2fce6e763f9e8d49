"""What the page claims: protection, the smallest upload, and names that are what they seem."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
from tests.fl.test_report import Document, as_method, check, page_of, write_run

from quancrypt_fl.report.figures import ratio
from quancrypt_fl.report.runs import parse_run


@pytest.fixture(scope="module")
def results(tiny_run: tuple[Any, Document]) -> Document:
    return tiny_run[1]


@pytest.mark.parametrize(
    ("bits", "level"), [(0, "warning"), (80, "warning"), (111, "warning"), (112, "good"),
                        (256, "good"), (None, "warning"), ("128", "warning"), (True, "warning")],
)  # fmt: skip
def test_weak_encryption_does_not_count(
    results: Document, tmp_path: Path, bits: Any, level: str
) -> None:
    document = copy.deepcopy(results)
    document["receipt"]["security_bits"] = bits
    receipt = parse_run(document, "run").receipt
    assert receipt.level == level
    assert (f"with {bits} bits of security" in receipt.verdict) == (bits in (0, 80, 111))
    write_run(tmp_path, document)
    text = " ".join("".join(check(page_of(tmp_path)).text).split())
    counted = "1 of 1" if level == "good" else "0 of 1"
    assert f"Encrypted, no key at the server{counted} run" in text


def test_rounds_in_which_nobody_arrived_make_no_upload_smaller(
    results: Document, tmp_path: Path
) -> None:
    document = copy.deepcopy(results)
    last = document["rounds"][-1]
    document["rounds"] += [
        last | {"round": last["round"] + i, "participants": 0, "bytes": {"upload": 0}}
        for i in range(1, 30)
    ]
    share = parse_run(results, "whole").upload_ratio
    assert share == pytest.approx(
        results["totals"]["bytes"]["upload"]
        / len(results["rounds"])
        / results["totals"]["float32_update_bytes"]
    )
    assert parse_run(document, "empty").upload_ratio == share
    write_run(tmp_path, document)
    assert f"<strong>{ratio(share)}</strong>" in page_of(tmp_path)
    for item in document["rounds"]:
        item |= {"participants": 0, "bytes": {"upload": 0}}
    assert parse_run(document, "nobody").upload_ratio is None
    write_run(tmp_path, document)
    assert "Encrypted upload" not in page_of(tmp_path)


def test_one_is_no_plural(results: Document, tmp_path: Path) -> None:
    document = copy.deepcopy(results)
    document["rounds"] = document["rounds"][:1]
    document["clients"] = 1
    document["receipt"]["rounds"] = [document["receipt"]["rounds"][0]]
    document["receipt"]["rounds"][0] |= {"uploads": 1, "ciphertexts_per_client": 1}
    one = {"rounds": 1, "clients": 1, "bits": 2}
    write_run(tmp_path / "a", as_method(document, "quancrypt", **one))
    write_run(tmp_path / "b", as_method(results, "quancrypt", **one | {"rounds": 2}))
    write_run(tmp_path / "c", as_method(results, "quancrypt", **one | {"clients": 7}))
    html = page_of(tmp_path)
    assert "1 round ·" in html
    assert "1 client" in html
    assert not re.search(r"\b1 (rounds|clients|runs|ciphertexts|configurations)\b", html)


def test_names_cannot_turn_the_page_around(results: Document, tmp_path: Path) -> None:
    """Controls, line ends and bidirectional marks are shown as escapes, in names and values."""
    name = "evil\x1b[2J\n\u202egnp.exe\u2066"
    escaped = "evil\\x1b[2J\\n\\u202egnp.exe\\u2066"
    write_run(tmp_path / name, results | {"method": "a\u202eb\x07"})
    write_run(tmp_path / "other", results)
    (tmp_path / f"bad{name}").mkdir()
    (tmp_path / f"bad{name}" / "results.json").write_text("{")
    html = page_of(tmp_path, title=name)
    check(html)
    assert f"<bdi>{escaped}</bdi>" in html
    assert f"<bdi>bad{escaped}/results.json</bdi>" in html
    assert f"<h1>{escaped}</h1>" in html
    assert "a\\u202eb\\x07" in html
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", html)
