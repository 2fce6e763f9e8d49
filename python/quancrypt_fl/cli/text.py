"""Output of commands: plain aligned text for people, one JSON document for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["aligned", "counted", "print_json", "printable", "table"]


def printable(text: object) -> str:
    """``text`` with everything escaped that a terminal could take for a command.

    Names of tensors and files come from others; a control sequence in one must not reach a
    terminal, and a name that is no valid Unicode must not break the output.
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode()
        for c in str(text)
    )


def aligned(rows: Sequence[tuple[str, object]]) -> str:
    """One figure a line, the values below each other."""
    width = max(len(label) for label, _ in rows)
    return "\n".join(f"{label:<{width}}  {printable(value)}".rstrip() for label, value in rows)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Columns of text; the first ``left`` are aligned to the left, the others to the right."""
    cells = [list(header), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )


def counted(number: int, noun: str) -> str:
    """``1 tensor``, ``2,000 tensors``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def print_json(document: Mapping[str, Any]) -> None:
    """The document, and nothing else, on standard output."""
    json.dump(document, sys.stdout, indent=2, allow_nan=False)
    print()
