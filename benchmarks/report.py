"""``python report.py DOCUMENT... -- JSON...``: writes measured tables between a document's markers.

A table stands between ``<!-- bench:NAME -->`` and ``<!-- /bench -->``. The JSON files are documents
of ``quancrypt bench --out`` and of ``pytest --benchmark-json``, in any order; a table whose figures
are in none of them stays as it is, and is named on stderr.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from report_figures import Figures, NotMeasuredError
from report_tables import TABLES

MARKER = re.compile(r"(<!-- bench:([a-z-]+) -->\n).*?(<!-- /bench -->)", re.DOTALL)


def fill(text: str, figures: Figures, complaints: list[str]) -> str:
    """Replace what stands between markers."""

    def replace(match: re.Match[str]) -> str:
        name = match[2]
        if name not in TABLES:
            raise SystemExit(f"unknown table {name!r}; known: {', '.join(TABLES)}")
        try:
            return f"{match[1]}{TABLES[name](figures)}{match[3]}"
        except NotMeasuredError as error:
            complaints.append(f"table {name} stays as it is: no figures for {error}")
            return match[0]

    return MARKER.sub(replace, text)


def split(arguments: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """Documents before ``--``, JSON files after it."""
    if "--" not in arguments:
        raise SystemExit("usage: report.py DOCUMENT... -- JSON...")
    at = arguments.index("--")
    return [Path(a) for a in arguments[:at]], [Path(a) for a in arguments[at + 1 :]]


def main(arguments: Sequence[str]) -> None:
    """Rewrite the documents."""
    documents, files = split(arguments)
    figures = Figures.read(files)
    complaints: list[str] = []
    for path in documents:
        path.write_text(fill(path.read_text(), figures, complaints))
    for line in complaints:
        print(line, file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
