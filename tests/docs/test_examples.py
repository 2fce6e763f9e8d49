"""The documents are true: examples run and print what is shown, links lead somewhere, names exist.

A fenced ``python`` block runs after the earlier ones of its document, in one namespace and an empty
folder; a ``text`` block right after it is what it prints. ``python no-run`` marks a fragment. The
commands of ``sh run`` blocks run too, in the same folder.
"""

import contextlib
import doctest
import importlib
import io
import pkgutil
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import quancrypt_native
from quancrypt_native import _core

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
MOST_FRAGMENTS = 3

each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)


@dataclass(frozen=True)
class Block:
    """A fenced block: its info string, its text, the line on which the text begins (from 1)."""

    info: str
    text: str
    line: int
    follows: bool  # nothing but blank lines since the block before


def blocks(path: Path) -> list[Block]:
    found: list[Block] = []
    info: str | None = None
    start, follows, lines = 0, False, path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        if info is None and line.startswith("```"):
            info, start = line[3:].strip(), number + 1
        elif info is not None and line == "```":
            found.append(Block(info, "\n".join(lines[start - 1 : number - 1]), start, follows))
            info, follows = None, True
        elif info is None and line.strip():
            follows = False
    assert info is None, f"{path.name}: the block of line {start - 1} is not closed"
    return found


def prose(path: Path) -> str:
    """The document without fenced blocks and comments."""
    text = re.sub(
        r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    return re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)


def code_spans(path: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose(path))


def command_lines(path: Path) -> Iterator[str]:
    """What a reader may type: code spans and the lines of shell blocks, continuations joined."""
    yield from code_spans(path)
    for block in blocks(path):
        if block.info in ("sh", "sh run"):
            for line in block.text.replace("\\\n", " ").splitlines():
                yield line.partition(" #")[0].strip()


# --- examples ---


def run_commands(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line of the block, in this process: ``export NAME=VALUE`` or ``quancrypt ...``."""
    pytest.importorskip("typer", reason="the command line needs the [fl] extra")
    from quancrypt_fl.cli.app import run

    for line in block.text.splitlines():
        program, *arguments = shlex.split(line, comments=True)
        if program == "export":
            monkeypatch.setenv(*arguments[0].split("=", 1))
            continue
        assert program == "quancrypt", line
        with contextlib.redirect_stdout(io.StringIO()):
            assert run(arguments) == 0, line


def with_examples() -> list[Path]:
    return [path for path in DOCUMENTS if any(b.info == "python" for b in blocks(path))]


@pytest.mark.parametrize("path", with_examples(), ids=lambda path: path.name)
def test_examples_run_and_print_what_is_shown(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["python"])
    namespace: dict[str, Any] = {"__name__": "__main__"}
    found = blocks(path)
    for block, after in zip(found, [*found[1:], None], strict=True):
        if block.info == "sh run":
            run_commands(block, monkeypatch)
        if block.info != "python":
            continue
        printed = io.StringIO()
        padding = "\n" * (block.line - 1)  # so that a traceback names the document's line
        with contextlib.redirect_stdout(printed):
            exec(compile(padding + block.text, str(path), "exec"), namespace)
        if after is not None and after.info == "text" and after.follows:
            shown = [line.rstrip() for line in after.text.splitlines()]
            actual = [line.rstrip() for line in printed.getvalue().splitlines()]
            assert actual == shown, f"{path.name}, line {after.line}"
        else:
            assert printed.getvalue() == "", f"{path.name}, line {block.line}: output is not shown"


def test_few_blocks_are_fragments() -> None:
    found = [block for path in DOCUMENTS for block in blocks(path)]
    infos = [block.info for block in found]
    python = [info for info in infos if info.startswith("python")]
    assert set(python) <= {"python", "python no-run"}
    assert python.count("python no-run") <= MOST_FRAGMENTS
    assert set(infos) <= {*python, "sh", "sh run", "text", "mermaid", "toml"}
    assert all(tomllib.loads(block.text) for block in found if block.info == "toml")


def modules() -> list[ModuleType]:
    import quancrypt_fl

    found = []
    for package in (quancrypt_native, quancrypt_fl):
        names = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        found.append(package)
        found += [importlib.import_module(m.name) for m in names if "__main__" not in m.name]
    return found


def test_docstring_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="the docstrings of quancrypt_fl need the [fl] extra")
    monkeypatch.chdir(tmp_path)
    finder = doctest.DocTestFinder(exclude_empty=True)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    ran = 0
    for module in modules():
        for test in finder.find(module):
            report = io.StringIO()
            failed, attempted = runner.run(test, out=report.write)
            assert failed == 0, report.getvalue()
            ran += attempted
    assert ran > 0


# --- links ---


def slug(heading: str) -> str:
    """The anchor that GitHub makes of a heading."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def anchors(path: Path) -> set[str]:
    seen: dict[str, int] = {}
    found = set()
    for heading in re.findall(r"^#{1,6} (.+)$", prose(path), flags=re.MULTILINE):
        name = slug(heading)
        count = seen.get(name, 0)
        seen[name] = count + 1
        found.add(f"{name}-{count}" if count else name)
    return found


def links(path: Path) -> list[str]:
    text = re.sub(r"`[^`\n]*`", "", prose(path))
    return re.findall(r"\]\(([^()\s]+)\)", text)


@each_document
def test_links_lead_somewhere(path: Path) -> None:
    broken = []
    for link in links(path):
        if re.match(r"https?://", link):
            continue
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_document_is_reachable_from_the_readme() -> None:
    reached, left = {ROOT / "README.md"}, [ROOT / "README.md"]
    while left:
        path = left.pop()
        for link in links(path):
            target = (path.parent / link.partition("#")[0]).resolve()
            if target.suffix == ".md" and target.exists() and target not in reached:
                reached.add(target)
                left.append(target)
    assert set(DOCUMENTS) <= reached


# --- names ---


@each_document
def test_make_targets_exist(path: Path) -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", text, flags=re.MULTILINE))
    named: set[str] = set()
    for line in command_lines(path):
        if words := re.match(r"make((?: +\S+)*)$", line):
            named |= set(re.findall(r"(?<= )[a-z][a-z-]*(?= |$)", words[1]))
    assert named <= targets


@each_document
def test_commands_and_their_options_exist(path: Path) -> None:
    typer = pytest.importorskip("typer", reason="the command line needs the [fl] extra")
    from quancrypt_fl.cli.app import app

    commands: dict[str, Any] = typer.main.get_command(app).commands
    for line in command_lines(path):
        if not (words := re.match(r"(?:\w+=\S+ )*quancrypt ([a-z][a-z-]*)(.*)$", line)):
            continue
        name, rest = words.groups()
        assert name in commands, line
        command = commands[name]
        if inner := getattr(command, "commands", None):  # a group, such as `quancrypt attack`
            word = re.match(r" +([a-z][a-z-]*)", rest)
            assert word is None or word[1] in inner, line
            command = inner[word[1]] if word else command
        options = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
        for option in re.findall(r"(?<=\s)--[a-z][a-z0-9-]*", rest):
            assert option in options | {"--help"}, line


@each_document
def test_files_and_their_lengths_are_as_said(path: Path) -> None:
    folders = r"(?:src|python|cpp|docs|tests|cmake|benchmarks|licenses|shared)/"
    for span in code_spans(path):
        if re.fullmatch(folders + r"[\w./-]*", span):
            assert (ROOT / span).exists(), span
    for file, said in re.findall(r"\]\(([^()\s]+)\) \((\d+) lines\)", prose(path)):
        actual = len((path.parent / file).read_text(encoding="utf-8").splitlines())
        assert abs(actual - int(said)) <= 0.2 * actual, f"{file} has {actual} lines, not {said}"


@each_document
def test_environment_variables_exist(path: Path) -> None:
    sources = [*ROOT.glob("Makefile"), ROOT / "CMakeLists.txt"]
    for folder in ("cpp", "cmake", "src", "python"):
        sources += [p for p in (ROOT / folder).rglob("*") if p.suffix in (".cpp", ".cmake", ".py")]
    known = set(
        re.findall(r"QUANCRYPT_[A-Z_]+", "".join(p.read_text(encoding="utf-8") for p in sources))
    )
    assert set(re.findall(r"QUANCRYPT_[A-Z_]+", path.read_text(encoding="utf-8"))) <= known


def test_every_failure_of_the_build_is_explained() -> None:
    """docs/install.md quotes each sentence of cmake/, with "…" for what varies."""
    texts = [
        re.sub(r"^ *#.*$", "", p.read_text(encoding="utf-8"), flags=re.M)
        for p in ROOT.glob("cmake/*.cmake")
        if p.name != "constant_time.cmake"  # for the project's own developers
    ]
    calls = re.findall(r'quancrypt_fail\(\s*"(.*?)"\)', "".join(texts), flags=re.DOTALL)
    sentences = [re.sub(r'"\s*"', "", call) for call in calls]
    document = (ROOT / "docs/install.md").read_text(encoding="utf-8")
    section = document.partition("## Every failure of a build")[2].partition("At run time:")[0]
    quoted = re.findall(r"^\| `([^`]+)` \|", section, flags=re.MULTILINE)
    for sentence in sentences:
        assert any(all(p in sentence for p in q.split("…")) for q in quoted), sentence
    for quote in quoted:
        assert any(all(p in s for p in quote.split("…")) for s in sentences), quote


def test_every_error_and_public_name_is_documented() -> None:
    text = (ROOT / "docs/python.md").read_text(encoding="utf-8")
    missing = [name for name in quancrypt_native.__all__ if not re.search(rf"\b{name}\b", text)]
    assert missing == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


def test_security_limits_are_those_of_the_code() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", text, flags=re.MULTILINE)
    assert [int(row[0]) for row in rows] == [1024 << i for i in range(6)]
    for degree, *limits in rows:
        for security, limit in zip((128, 192, 256), limits, strict=True):
            assert _core.max_modulus_bits(int(degree), security) == int(limit)
