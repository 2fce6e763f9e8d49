"""``quancrypt report``: what the page holds, and that no file of others can harm or break it."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quancrypt_fl.report import reading
from quancrypt_fl.report.charts import Series, line_chart
from quancrypt_fl.report.compare import groups_of
from quancrypt_fl.report.figures import ratio, seconds, size
from quancrypt_fl.report.page import GENERATOR, render_page
from quancrypt_fl.report.reading import ReportError, collect, read_json
from quancrypt_fl.report.runs import parse_run
from quancrypt_fl.report.scales import linear, logarithmic, whole
from quancrypt_fl.report.values import UntrustedError

Document = dict[str, Any]
EVIL = "</script><img src=x onerror=window.pwned=1>\"'{{ 7*7 }}&amp;\x00\u202e"
VOID = {"meta", "link", "br", "img", "input", "hr"}


@pytest.fixture(scope="module")
def results(tiny_run: tuple[Any, Document]) -> Document:
    return tiny_run[1]


def write_run(folder: Path, document: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "results.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def as_method(results: Document, method: str, **config: Any) -> Document:
    """The same figures as those of another method's run."""
    changed = copy.deepcopy(results)
    changed["method"] = method
    changed["config"] |= {"method": method, **config}
    if method == "vanilla":
        changed["receipt"] = {"protected": False, "scheme": "none: updates travelled in the clear"}
    return changed


def hostile(results: Document) -> Document:
    """Every text of a document replaced by one that would be markup, if it were not escaped."""

    def poison(value: Any) -> Any:
        match value:
            case str():
                return EVIL + value
            case dict():
                return {key: poison(item) for key, item in value.items()}
            case list():
                return [poison(item) for item in value]
        return value

    changed: Document = poison(copy.deepcopy(results))
    changed["config"] |= {EVIL: EVIL, "list": [EVIL, {EVIL: [EVIL]}]}
    return changed


def page_of(folder: Path, title: str = "A title") -> str:
    return render_page(collect(folder), title, date(2026, 1, 2))


class Checker(HTMLParser):
    """Elements are closed in order, ids are unique, links lead to an id, ARIA names exist."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.wanted: set[str] = set()
        self.headings: list[int] = []
        self.tags: list[str] = []
        self.text: list[str] = []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.look_at(tag, attrs)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.look_at(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def look_at(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        assert len(values) == len(attrs), (tag, attrs)
        assert not any(name.startswith("on") or name == "style" for name in values), attrs
        self.tags.append(tag)
        if name := values.get("id"):
            assert name not in self.ids, name
            self.ids.add(name)
        if link := values.get("href"):
            assert link.startswith("#"), link
            self.wanted.add(link[1:])
        if named := values.get("aria-labelledby"):
            self.wanted.add(named)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def check(html: str) -> Checker:
    """Parse and check a page."""
    checker = Checker()
    checker.feed(html)
    checker.close()
    assert checker.open == []
    assert checker.wanted <= checker.ids
    assert checker.headings[0] == 1
    assert checker.headings.count(1) == 1
    steps = zip(checker.headings, checker.headings[1:], strict=False)
    assert all(after <= before + 1 for before, after in steps)
    assert not {"script", "img", "iframe", "link", "object"} & set(checker.tags)
    return checker


def test_the_page_shows_what_the_results_say(results: Document, tmp_path: Path) -> None:
    write_run(tmp_path / "encrypted", results)
    write_run(tmp_path / "plain", as_method(results, "vanilla"))
    html = page_of(tmp_path)
    text = " ".join(" ".join(check(html).text).split())
    totals = results["totals"]
    assert f"{100 * totals['test_accuracy']:.2f} %" in text
    assert size(totals["bytes"]["upload"]) in text
    shares = totals["rounds"] * totals["float32_update_bytes"]
    assert ratio(totals["bytes"]["upload"] / shares) in text
    for phase, spent in totals["seconds"].items():
        assert phase in text
        assert seconds(spent) in text
    receipt = results["receipt"]
    assert receipt["keys"][0]["fingerprint"] in text
    assert receipt["how_known"] in text
    assert "Encrypted; the summing side held no secret key." in text
    assert "Not encrypted: updates travelled in the clear." in text
    for name, value in results["environment"].items():
        assert name in text
        assert isinstance(value, list) or str(value) in text
    assert "2 runs of 2 configurations" in text
    assert "method (differs)" not in html  # said by the style sheet, not twice by a screen reader
    assert html.count("Test accuracy by round") >= 2  # caption and name of the picture


def test_everything_is_inline(results: Document, tmp_path: Path) -> None:
    write_run(tmp_path, results)
    html = page_of(tmp_path)
    assert "default-src 'none'" in html
    assert not re.search(r"(?:https?:)?//", html.replace("https://www.w3.org", ""))
    assert "url(" not in html
    assert "@import" not in html
    assert html.startswith("<!DOCTYPE html>")
    assert '<html lang="en">' in html
    assert GENERATOR in html[:2000]


def test_one_run_has_its_configuration_once(results: Document, tmp_path: Path) -> None:
    write_run(tmp_path, results)
    html = page_of(tmp_path)
    check(html)
    assert html.count("<dt>clip_factor</dt>") == 1
    assert "What differs" not in html


def test_names_of_folders_stay_out(results: Document, tmp_path: Path) -> None:
    document = copy.deepcopy(results)
    document["config"] |= {"out": "/home/somebody/secret", "data_dir": "/mnt/hospital"}
    write_run(tmp_path / "run", document)
    html = page_of(tmp_path)
    assert "somebody" not in html
    assert "hospital" not in html
    assert str(tmp_path) not in html


def test_hostile_text_is_escaped_everywhere(results: Document, tmp_path: Path) -> None:
    document = hostile(results)
    write_run(tmp_path / "<b onclick=x>&", document)
    write_run(tmp_path / "other", results)
    html = page_of(tmp_path, title=EVIL)
    assert "".join(check(html).text).count("</script><img src=x onerror=") > 20
    assert "<img" not in html
    assert "</script>" not in html
    assert "<b onclick" not in html
    assert "49" not in re.findall(r"<h1>.*</h1>", html)[0]


def test_names_that_are_no_unicode_are_shown_with_question_marks(
    results: Document, tmp_path: Path
) -> None:
    write_run(Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")), results)
    write_run(tmp_path / "other", results | {"method": "\ud800"})
    (tmp_path / "bad").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad/\xff")).mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad/\xff/results.json")).write_text("")
    html = page_of(tmp_path)
    html.encode()
    assert "caf?" in html
    assert "bad/?/results.json" in html


def _without(*path: str) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        for key in path[:-1]:
            document = document[key]
        del document[path[-1]]

    return change


def _with(value: Any, *path: str | int) -> Callable[[Document], None]:
    def change(document: Any) -> None:
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_with(2, "schema"), "schema 2; this version reads schema 1"),
        (_without("method"), "method is missing"),
        (_with([], "method"), "method is missing|method is not text"),
        (_with(0, "clients"), "clients is not a whole number from 1 up: 0"),
        (_with(True, "seed"), "seed is not a whole number"),
        (_with([], "rounds"), "rounds is not a list of 1 to 10,000 items"),
        (_with([None], "rounds"), r"rounds\[0\] is not an object"),
        (_with(1.5, "rounds", 1, "test_accuracy"), r"rounds\[1\].test_accuracy = 1.5 is not in"),
        (_with("x" * 999, "rounds", 0, "test_loss"), r"rounds\[0\].test_loss is not a number: x+…"),
        (_with(1e300, "rounds", 0, "test_loss"), r"rounds\[0\].test_loss is not a number"),
        (_with(-1, "rounds", 0, "seconds", "train"), r"rounds\[0\].seconds.train = -1"),
        (_with(1, "rounds", 2, "round"), "round 1 follows round 2"),
        (_with(10**30, "rounds", 0, "bytes", "upload"), "bytes.upload is not a whole number"),
        (_with([1], "config"), "config is not an object"),
        (_with({str(i): i for i in range(300)}, "config"), "config has 300 fields; allowed: 200"),
        (_with(0, "totals", "float32_update_bytes"), "float32_update_bytes is not a whole number"),
    ],
)
def test_a_broken_document_is_named_with_its_reason(
    results: Document, tmp_path: Path, change: Callable[[Document], None], reason: str
) -> None:
    document = copy.deepcopy(results)
    change(document)
    write_run(tmp_path / "broken", document)
    write_run(tmp_path / "sound", results)
    found = collect(tmp_path)
    assert [run.name for run in found.runs] == ["sound"]
    (problem,) = found.problems
    assert problem.file == "broken/results.json"
    assert re.search(reason, problem.reason)
    html = page_of(tmp_path)
    check(html)
    assert "broken/results.json" in html


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not JSON: Expecting value"),
        (b"{", "not JSON"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b"\xff\xfe\xff", "not UTF-8|not JSON"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON: Exceeds the limit"),
        (b"[]", "the document is not an object"),
        (b'"text"', "the document is not an object"),
    ],
)
def test_files_that_are_no_documents(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "results.json").write_bytes(data)
    with pytest.raises(ReportError, match=f"results.json: .*({reason})"):
        collect(tmp_path)


def test_too_large_a_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_BYTES", 1 << 20)
    (tmp_path / "results.json").write_bytes(b" " * ((1 << 20) + 1))
    with pytest.raises(UntrustedError, match="larger than 1 MiB"):
        read_json(tmp_path / "results.json")


def test_a_pipe_in_place_of_a_file_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "results.json")
    with pytest.raises(UntrustedError, match="not a regular file"):
        read_json(tmp_path / "results.json")


def test_a_circle_of_links_is_not_followed(results: Document, tmp_path: Path) -> None:
    write_run(tmp_path / "run", results)
    (tmp_path / "run" / "again").symlink_to(tmp_path)
    assert [run.name for run in collect(tmp_path).runs] == ["run"]


def test_the_search_is_bounded(
    results: Document, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_RUNS", 2)
    monkeypatch.setattr(reading, "MAX_DEPTH", 3)
    for name in ("a", "b", "c"):
        write_run(tmp_path / name, results)
    found = collect(tmp_path)
    assert [run.name for run in found.runs] == ["a", "b"]
    assert "more than 2 files" in found.problems[0].reason

    write_run(tmp_path / "deep" / "1" / "2" / "3" / "4", results)
    with pytest.raises(ReportError, match="deeper than 3 folders"):
        collect(tmp_path / "deep")


@pytest.mark.parametrize("name", ["absent", "file"])
def test_a_folder_is_needed(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportError, match=f"{name}: (does not exist|is not a folder); name the"):
        collect(tmp_path / name)
    with pytest.raises(ReportError, match=r"no results\.json and no experiment\.json in it"):
        collect(tmp_path)


def test_seeds_form_a_group_and_labels_say_what_differs(results: Document) -> None:
    runs = [
        parse_run(as_method(results, "quancrypt", bits=8) | {"seed": 1}, "a"),
        parse_run(as_method(results, "quancrypt", bits=8, seed=2) | {"seed": 2}, "b"),
        parse_run(as_method(results, "quancrypt", bits=4, max_weight=99), "c"),
        parse_run(as_method(results, "quancrypt", bits=4, max_weight=99, pruning=False), "d"),
        parse_run(as_method(results, "vanilla", bits=2), "e"),
    ]
    groups = groups_of(runs)
    assert [len(group.runs) for group in groups] == [2, 1, 1, 1]
    assert [group.label for group in groups] == [
        "quancrypt · 8 bits",
        "quancrypt · 4 bits · pruning",
        "quancrypt · 4 bits · no pruning",
        "vanilla",
    ]
    assert groups[0].deviation == 0
    assert groups[1].deviation is None


def test_two_runs_alike_are_two_groups(results: Document) -> None:
    groups = groups_of([parse_run(results, "first"), parse_run(results, "second")])
    assert [group.label for group in groups] == ["quancrypt · first", "quancrypt · second"]


def test_a_long_run_stays_small(results: Document, tmp_path: Path) -> None:
    document = copy.deepcopy(results)
    entry = document["rounds"][0]
    document["rounds"] = [
        entry | {"round": t + 1, "validation_accuracy": t / 5000, "lost": t % 2}
        for t in range(5000)
    ]
    document["totals"]["final_round"] = 4990
    write_run(tmp_path, document)
    html = page_of(tmp_path)
    check(html)
    assert len(html) < 1_000_000
    for shown in ("60 of 5,000 rounds", "stopped early, back to round 4,990", "dropped out"):
        assert shown in html
    assert "Validation accuracy by round" in html


@pytest.mark.parametrize("receipt", [{}, None, {"protected": True}, {"protected": "yes"}])
def test_the_verdict_goes_no_further_than_the_receipt(results: Document, receipt: Any) -> None:
    document = copy.deepcopy(results)
    document["receipt"] = receipt
    found = parse_run(document, "run").receipt
    assert found.level in ("unknown", "warning")
    assert "held no secret key" not in found.verdict


def test_other_receipts_are_shown_as_they_are(results: Document) -> None:
    document = copy.deepcopy(results)
    document["receipt"] = {
        "protected": True,
        "scheme": "Paillier",
        "security_bits": 112,
        "parameters": {"modulus_bits": 2048, "lanes": 3, "deep": {"not": "shown"}},
        "aggregator_held_secret_key": True,
        "keys": [{"fingerprint": "ab", "from_round": 1}, "nonsense", {}],
    }
    found = parse_run(document, "run").receipt
    assert found.level == "warning"
    assert "held a secret key" in found.verdict
    facts = dict(found.facts)
    assert facts["Parameters"] == "modulus_bits 2048, lanes 3"
    assert facts["Key fingerprints"] == "ab (from round 1)"


def test_an_experiment_has_its_table_and_its_checks(tmp_path: Path) -> None:
    """Also without runs: an experiment may only measure."""
    table = {
        "title": "Time of an update",
        "head": ["what", "ms"],
        "rows": [["ours", "1.2"]],
        "left": 1,
    }
    row = {
        "group": "MNIST", "label": "ours", "rounds": 3, "seeds": [1, 2, 3],
        "best_accuracy": {"mean": 98.4, "high": 98.6}, "published_best_accuracy": 99.44,
        "best_difference": {"mean": 0.1, "high": 0.3}, "final_accuracy": {"mean": 98.2},
        "upload_bytes_per_round": 50, "float32_update_bytes": 100,
    }  # fmt: skip
    judged = {"text": "at least", "required": ">= 0", "measured": "+0.10", "passed": False}
    base = {"schema": 1, "scale": "quick", "cells": [{"id": "x", "state": "failed"}]}
    for name, summary in (
        ("a", {"kind": "accuracy", "rows": [row], "checks": [judged | {"basis": ""}]}),
        ("b", {"kind": "measured", "tables": [table], "rows": [], "notes": [f"note {EVIL}"]}),
        ("c", {"kind": "measured", "tables": [table | {"rows": [["short"]]}]}),
    ):
        (tmp_path / name).mkdir()
        document = base | {"name": name, "title": f"title of {name}", "summary": summary}
        (tmp_path / name / "experiment.json").write_text(json.dumps(document))
    html = page_of(tmp_path)
    text = " ".join(check(html).text)
    for shown in (
        "98.40 ± 0.20", "98.20", "+0.10 ± 0.20", "99.44", "0.500 ×", "at least", "no",
        "Time of an update", "title of b", "Failed: x.", "quancrypt experiment a --scale quick",
        "summary.tables[0].rows[0] is not a list of 2 items",
    ):  # fmt: skip
        assert shown in text, shown


def test_scales_hold_their_values_and_mark_round_numbers() -> None:
    scale = linear([0.113, 0.968])
    assert scale.low <= 0.113
    assert scale.high >= 0.968
    assert scale.ticks == (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    assert linear([5.0]).low < 5 < linear([5.0]).high
    assert linear([0.0, 0.0], zero=True).low == 0
    assert whole(1, 10).ticks == (1, 2, 4, 6, 8, 10)
    assert whole(1, 300).ticks == (1, 50, 100, 150, 200, 250, 300)
    assert whole(7, 7).position(7) == 0.5
    log = logarithmic([3e3, 7e7])
    assert log.position(log.low) == 0
    assert log.position(log.high) == 1
    assert log.low <= 3e3
    assert log.high >= 7e7
    assert logarithmic([10.0, 10.0]).high > 10


def test_every_point_lies_inside_its_chart() -> None:
    points = tuple((float(t), 0.1 + t / 2000) for t in range(1, 1001))
    series = [Series("one", i, (points,)) for i in range(40)]
    chart = line_chart(
        "name", "title", series, whole(1, 1000), linear([0.1, 0.6]),
        x_label="round", x_text=str, y_text=str, description="",
    )  # fmt: skip
    assert chart.left_out == 8
    assert len({line.look for line in chart.lines}) == 32
    marks = [mark for line in chart.lines for mark in line.marks]
    assert 0 < len(marks) <= 700
    assert all(0 <= mark.x <= 100 and 0 <= mark.y <= chart.height for mark in marks)
    assert chart.lines[0].marks[0].x == 100  # the last point has a tooltip


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (26_800, "26.8 kB"), (999_999, "1.00 MB"),
     (4.2e13, "42.0 TB"), (None, "–")],
)  # fmt: skip
def test_sizes(value: float | None, said: str) -> None:
    assert size(value) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "0.00 s"), (3.4e-6, "3.40 µs"), (0.00477, "4.77 ms"), (0.37, "0.370 s"),
     (12.34, "12.3 s"), (120_000, "120,000 s")],
)  # fmt: skip
def test_durations(value: float, said: str) -> None:
    assert seconds(value) == said


def test_a_document_with_nothing_but_accuracies_makes_a_page(tmp_path: Path) -> None:
    document = {
        "schema": 1, "method": "other", "dataset": "own", "model": "own", "clients": 1, "seed": 0,
        "config": {}, "rounds": [{"round": 5, "test_accuracy": 0}],
    }  # fmt: skip
    write_run(tmp_path / "one", document)
    write_run(tmp_path / "two", document | {"config": {"bits": None, "lr": 1e-3}})
    html = page_of(tmp_path)
    checker = check(html)
    assert {"accuracy", "receipts"} <= checker.ids
    assert not {"bytes", "time"} & checker.ids
    assert "The file does not say." in html


WORDS = st.text("<&'\"{}%\\\u202e\x00aé", max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)


@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_whatever_stands_in_a_file_is_named_or_shown(
    results: Document, tmp_path: Path, data: st.DataObject
) -> None:
    """One value of a sound document is replaced: an error that says where, or a sound page."""
    document: Any = copy.deepcopy(results)
    place = document
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(JSON)
    run, reason = None, ""
    try:
        run = parse_run(document, "run")
    except UntrustedError as error:
        reason = str(error)
    if run is None:
        assert 0 < len(reason) < 200
    else:
        check(render_page(reading.Findings([run, parse_run(results, "sound")]), "title"))


def test_needs_neither_torch_nor_the_native_package() -> None:
    code = (
        "import sys; from quancrypt_fl.report.page import render_page; "
        "print({'torch', 'matplotlib', 'quancrypt_native'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "set()\n"
