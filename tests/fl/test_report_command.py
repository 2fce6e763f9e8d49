"""``quancrypt report`` as a command, and the picture of one run."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer
from matplotlib.image import imread
from tests.fl.test_report import Document, check, write_run

from quancrypt_fl.cli.errors import CommandError
from quancrypt_fl.cli.report import report
from quancrypt_fl.plots import plot_run


@pytest.fixture(scope="module")
def results(tiny_run: tuple[Any, Document]) -> Document:
    return tiny_run[1]


def command(*arguments: str) -> None:
    app = typer.Typer()
    app.command()(report)
    app(list(arguments), standalone_mode=False)


def test_the_command_writes_the_page_beside_the_runs(
    results: Document, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "run", results)
    (tmp_path / "bad\x1b[31m").mkdir()
    (tmp_path / "bad\x1b[31m" / "results.json").write_text("{")
    command(str(tmp_path), "--title", "My <runs>")
    page = (tmp_path / "report.html").read_text()
    check(page)
    assert "<h1>My &lt;runs&gt;</h1>" in page
    printed = capsys.readouterr()
    assert re.fullmatch(r".*report\.html: 1 run, [\d,]+ bytes\n", printed.out)
    assert "left out: bad\\x1b[31m/results.json: not JSON" in printed.err
    assert "\x1b" not in printed.err

    command(str(tmp_path))  # an earlier report is replaced
    assert "<h1>My" not in (tmp_path / "report.html").read_text()
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(CommandError, match="exists already; --force replaces it"):
        command(str(tmp_path))
    command(str(tmp_path), "--force")
    assert (tmp_path / "report.html").read_text() != "mine"


def test_json_is_a_document_and_nothing_else(
    results: Document, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "run", results)
    write_run(tmp_path / "bad", {})
    out = tmp_path / "page.html"
    command(str(tmp_path), "--out", str(out), "--json")
    shown = json.loads(capsys.readouterr().out)
    assert shown["report"] == str(out)
    assert shown["bytes"] == out.stat().st_size
    assert shown["problems"] == [{"file": "bad/results.json", "reason": "schema is missing"}]
    (run,) = shown["runs"]
    assert run["name"] == "run"
    assert run["test_accuracy"] == results["totals"]["test_accuracy"]
    assert run["bytes"] == results["totals"]["bytes"]
    assert run["protection"] == "good"


def test_open_shows_the_page(
    results: Document, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    write_run(tmp_path, results)
    monkeypatch.setattr("webbrowser.open", lambda url: bool(opened.append(url)) or len(opened) == 1)
    command(str(tmp_path), "--open")
    assert opened == [(tmp_path / "report.html").resolve().as_uri()]
    with pytest.raises(CommandError, match="no browser was found"):
        command(str(tmp_path), "--open")


def test_the_templates_lie_in_the_package() -> None:
    """The wheel takes whole folders; see ``wheel.packages`` in pyproject.toml."""
    from importlib.resources import files

    found = {path.name for path in (files("quancrypt_fl.report") / "templates").iterdir()}
    assert found == {"page.html", "charts.html", "tables.html", "page.css"}


# --- the picture of one run ---


@pytest.mark.parametrize(
    ("rounds", "validated", "back_to"), [(1, False, 1), (3, True, 2), (300, True, 300)]
)
def test_plot_of_short_and_long_runs(
    results: Document, tmp_path: Path, rounds: int, validated: bool, back_to: int
) -> None:
    document = copy.deepcopy(results)
    entry = document["rounds"][0]
    document["rounds"] = [
        entry
        | {"round": t, "test_accuracy": t / 400}
        | ({"validation_accuracy": t / 390} if validated else {})
        for t in range(1, rounds + 1)
    ]
    document["totals"]["final_round"] = back_to
    plot_run(document, tmp_path / "plot.png")
    picture = imread(tmp_path / "plot.png")
    assert picture.shape[:2] == (600, 1500)
    assert picture[..., :3].std() > 0.03
