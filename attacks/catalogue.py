"""The table of attacks in README.md, from the docstrings of the tests.

    python attacks/catalogue.py          # rewrites it

Each test here says in its docstring what the idea is ("Idea: ...") and what refuses it ("Refused
by: ...").
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
README = FOLDER / "README.md"
HEAD = "| idea | refused by | test |\n| --- | --- | --- |\n"


def attacks() -> list[tuple[str, str, str]]:
    """Idea, what refuses it, and the test."""
    found = []
    for path in sorted(FOLDER.glob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not (isinstance(node, ast.FunctionDef) and node.name.startswith("test_")):
                continue
            text = " ".join((ast.get_docstring(node) or "").split())
            parts = re.fullmatch(r"Idea: (.+?) Refused by: (.+)", text)
            if parts is None:
                raise SystemExit(
                    f"{path.name}: {node.name} does not say its idea and what refuses it"
                )
            if parts[2] != "nothing.":
                found.append((*parts.groups(), f"`{path.name}::{node.name}`"))
    return found


def table() -> str:
    """The table in Markdown."""
    return HEAD + "".join(f"| {' | '.join(row)} |\n" for row in attacks())


if __name__ == "__main__":
    text = README.read_text(encoding="utf-8")
    README.write_text(text[: text.index(HEAD)] + table(), encoding="utf-8")
