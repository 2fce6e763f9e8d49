"""What the JSON files of a measurement hold, and how figures are written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MIB, GIB = 2**20, 2**30


class NotMeasuredError(LookupError):
    """The figures for a table are in none of the files."""


@dataclass
class Figures:
    """What the JSON files hold."""

    bench: dict[str, Any] = field(default_factory=dict)
    pytest: list[dict[str, Any]] = field(default_factory=list)
    machines: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def read(cls, paths: Sequence[Path]) -> Figures:
        figures = cls()
        for path in paths:
            document = json.loads(path.read_text())
            if "benchmarks" in document:
                figures.pytest += document["benchmarks"]
                figures.machines.append(document["machine_info"]["quancrypt"])
            elif document.get("schema") == 1 and "operations" in document:
                figures.bench = document
                figures.machines.append(document["machine"])
            else:
                raise SystemExit(f"{path} is no document of quancrypt bench or pytest-benchmark")
        return figures

    def part(self, name: str) -> Any:
        """A part of the document of ``quancrypt bench``."""
        if name not in self.bench:
            raise NotMeasuredError(name)
        return self.bench[name]

    def kind(self, kind: str, **wanted: object) -> list[dict[str, Any]]:
        """Benchmarks of pytest of a kind: extra information and the median in seconds."""
        rows = [
            {**row["extra_info"], "seconds": row["stats"]["median"]}
            for row in self.pytest
            if row["extra_info"].get("kind") == kind
        ]
        rows = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
        if not rows:
            raise NotMeasuredError(kind)
        return rows

    def operation(self, name: str, rows: list[dict[str, Any]] | None = None) -> dict[str, Any]:
        """One operation of ``quancrypt bench``."""
        row: dict[str, Any]
        for row in self.part("operations") if rows is None else rows:
            if row["name"] == name:
                return row
        raise NotMeasuredError(name)

    def ratio(self, name: str, rival: str, does: str, kernel_set: str | None = None) -> float:
        """Median ratio; of another kernel set with ``kernel_set``."""
        rows = None if kernel_set is None else self.part("backends").get(kernel_set)
        if kernel_set is not None and rows is None:
            raise NotMeasuredError(kernel_set)
        for item in self.operation(name, rows)["rivals"]:
            if item["rival"] == rival and item["does"] == does:
                return float(item["ratio"]["median"])
        raise NotMeasuredError(rival)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; columns after the first are right-aligned."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def size(count: float) -> str:
    """Bytes in a unit that suits them."""
    for unit, factor in (("GiB", GIB), ("MiB", MIB), ("KiB", 2**10)):
        if count >= factor:
            return f"{count / factor:,.1f} {unit}"
    return f"{count:.0f} bytes"


def duration(seconds: float) -> str:
    """A time in a unit that suits it."""
    units = (("days", 86400), ("h", 3600), ("min", 60), ("s", 1), ("ms", 1e-3), ("µs", 1e-6))
    for unit, factor in units:
        if seconds >= factor:
            return f"{seconds / factor:,.1f} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def power(count: int) -> str:
    """10^n where it is one."""
    exponent = len(str(count)) - 1
    return f"10^{exponent}" if count == 10**exponent and exponent > 2 else f"{count:,}"
