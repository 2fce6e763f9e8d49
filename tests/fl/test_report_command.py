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
from quancrypt_fl.cli.tables import print_run
from quancrypt_fl.plots import plot_run
from quancrypt_fl.report.page import GENERATOR


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


@pytest.mark.parametrize(
    "name",
    ["run/results.json", "run/model.safetensors", "run/checkpoints/last.safetensors",
     "run/checkpoints/new.html", "bad/results.json", "experiment.json", "new/results.json"],
)  # fmt: skip
@pytest.mark.parametrize("link", [False, True])
def test_no_file_of_a_run_is_written_over(
    results: Document, tmp_path: Path, name: str, link: bool
) -> None:
    top = tmp_path / "top"
    write_run(top / "run", results)
    (top / "new").mkdir()
    (top / "run" / "checkpoints").mkdir()
    for other in ("run/model.safetensors", "run/checkpoints/last.safetensors"):
        (top / other).write_text(GENERATOR)
    write_run(top / "bad", {})
    (top / "experiment.json").write_text("{}")
    before = {p: p.read_bytes() for p in top.rglob("*") if p.is_file()}
    out = top / name
    if link and out.exists():
        out = tmp_path / "alias.html"
        out.hardlink_to(top / name)
    with pytest.raises(CommandError, match="name another"):
        command(str(top), "--out", str(out), "--force")
    assert {p: p.read_bytes() for p in top.rglob("*") if p.is_file()} == before


def test_the_target_of_a_linked_result_is_an_input(results: Document, tmp_path: Path) -> None:
    real = write_run(tmp_path / "elsewhere", results)
    (tmp_path / "top").mkdir()
    (tmp_path / "top" / "results.json").symlink_to(real)
    with pytest.raises(CommandError, match="is the same file as"):
        command(str(tmp_path / "top"), "--out", str(real), "--force")
    assert json.loads(real.read_text())["schema"] == 1


def test_the_closing_table_of_a_run(
    results: Document, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    document = copy.deepcopy(results)
    entry = document["rounds"][0]
    document["rounds"] = [entry, entry | {"participants": 0, "bytes": {"upload": 0}}]
    document["totals"]["rounds"] = 1
    document["totals"]["bytes"]["upload"] = entry["bytes"]["upload"]
    document["clients"] = 1
    print_run(document, Path("runs[bold]\x1b[2J\n\u202e"))
    text = capsys.readouterr().out
    assert "1 client · 1 round · seed" in text
    assert "runs[bold]\\x1b[2J\\n\\u202e/results.json" in text
    assert "\x1b" not in text
    share = entry["bytes"]["upload"] / document["totals"]["float32_update_bytes"]
    assert f"all rounds: {share:.2f} x float32" in text
    document["rounds"] = document["rounds"][1:]
    document["totals"]["bytes"]["upload"] = 0
    print_run(document, None)
    assert "no update arrived" in capsys.readouterr().out


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
