"""The document of a run as tables on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

__all__ = ["machine_line", "nanoseconds", "print_document", "times"]

_WIDE = 100  # columns


def nanoseconds(value: float) -> str:
    """Three significant digits, thousands separated."""
    if value >= 1000:
        return f"{value:,.0f}"
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:.{digits}f}"


def times(value: float) -> str:
    """A ratio: ``"412 x"``."""
    return f"{nanoseconds(value)} x"


def machine_line(machine: Mapping[str, Any]) -> str:
    """CPU, kernel set, threads and commit."""
    commit = machine["commit"]
    where = "no checkout" if commit is None else f"commit {commit[:12]}"
    if machine["modified"]:
        where += " with changes"
    count = machine["threads"]
    return (
        f"{machine['cpu']} · kernels {machine['kernel_set']} · "
        f"{count} thread{'s' if count > 1 else ''} · {where}"
    )


def print_document(document: Mapping[str, Any], console: Console) -> None:
    """Everything that was measured; narrow terminals get fewer columns."""
    wide = console.width >= _WIDE
    console.print(machine_line(document["machine"]), style="bold", markup=False)
    console.print(_operations(document, wide))
    console.print(_bytes(document))
    threads = document["threads"]
    console.print(
        f"Two threads against one, {threads['values']:,} values: "
        f"{threads['ratio']['median']:.2f} x ({nanoseconds(threads['one']['median'])} → "
        f"{nanoseconds(threads['two']['median'])} ns per value), with the time of "
        f"{threads['cpus']:.2f} CPUs\n",
        highlight=False,
    )
    if "kernels" in document:
        degree = document["kernels"][0]["degree"]
        console.print(_kernels(document["kernels"], f"Kernels, N = {degree}", wide))
        console.print(_kernels(document["ntt"], "NTT, one prime under 50 bits", wide))
        console.print(_stages(document["stages"]))
    for item in document["missing"]:
        console.print(
            f"{item['rival']} is left out: {item['package']} is not installed ({item['install']})",
            style="yellow",
            markup=False,
        )


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        if number == 0 or column in ("kernel", "bound by"):
            table.add_column(column, min_width=23 if number == 0 else None)
        else:
            table.add_column(column, justify="right", no_wrap=True)
    return table


def _operations(document: Mapping[str, Any], wide: bool) -> Table:
    others: Mapping[str, Any] = document.get("backends", {})
    title = "Whole operations, ns per value: medians; ratio: median of pairs measured in turn"
    sets = [f"ratio\n{name}" for name in others]
    main = f"ratio\n{document['machine']['kernel_set']}" if others else "ratio"
    table = _table(title, "operation", "ns", main, *(["min – max"] if wide else []), *sets)
    for number, row in enumerate(document["operations"]):
        table.add_row(row["label"], nanoseconds(row["ours"]["median"]), style="bold")
        for place, rival in enumerate(row["rivals"]):
            ratio = rival["ratio"]
            extremes = f"{nanoseconds(ratio['min'])} – {nanoseconds(ratio['max'])}"
            table.add_row(
                f"  {rival['label']} {rival['does']}".rstrip(),
                nanoseconds(rival["ns_per_value"]["median"]),
                times(ratio["median"]),
                *([extremes] if wide else []),
                *(
                    times(rows[number]["rivals"][place]["ratio"]["median"])
                    for rows in others.values()
                ),
            )
    return table


def _bytes(document: Mapping[str, Any]) -> Table:
    table = _table("Bytes per value of an upload", "whose", "bytes", "times ours")
    for row in document["bytes"]:
        kind = {"packed": " (secret key, seeded)", "public": " (public key)"}.get(row["subject"])
        each = f"{row['bytes_per_value']:.2f}"
        table.add_row(f"{row['label']}{kind or ''}", each, times(row["ratio"]))
    return table


def _kernels(rows: list[dict[str, Any]], title: str, wide: bool) -> Table:
    sets = [name for name in rows[0]["sets"] if name != "seal"]
    best = sets[0]
    compared = [name for name in sets if name != "portable"] if wide else []
    by_degree = len({row["degree"] for row in rows}) > 1
    table = _table(
        f"{title}, ns per element",
        "kernel",
        *(["N"] if by_degree else []),
        *sets,
        *([f"{best}\nGB/s"] if wide else []),
        *(f"portable\n/ {name}" for name in compared),
        "SEAL",
        f"SEAL\n/ {best}",
    )
    for row in rows:
        by_set = row["sets"]
        cells = [str(row["degree"])] if by_degree else []
        cells += [nanoseconds(by_set[name]["ns_per_element"]["median"]) for name in sets]
        if wide:
            cells.append(nanoseconds(by_set[best]["gigabytes_per_second"]))
        cells += [times(by_set[name]["speedup"]["median"]) for name in compared]
        if "seal" in by_set:
            cells.append(nanoseconds(by_set["seal"]["ns_per_element"]["median"]))
            cells.append(times(by_set[best]["seal_ratio"]["median"]))
        table.add_row(row["kernel"], *cells)
    return table


def _stages(document: Mapping[str, Any]) -> Table:
    table = _table(
        f"Stages of one value, kernels {document['set']}",
        "stage",
        "ns",
        "limit, ns",
        "share",
        "bound by",
    )
    for name, operation in document["operations"].items():
        each, limit = operation["ns_per_value"], operation["limit_ns_per_value"]
        table.add_row(name, f"{each:.3f}", f"{limit:.3f}", f"{limit / each:.0%}", style="bold")
        for row in operation["stages"]:
            table.add_row(
                f"  {row['stage']}",
                f"{row['ns_per_value']:.3f}",
                f"{row['limit_ns_per_value']:.3f}",
                f"{row['share']:.0%}",
                row["bound"],
            )
    return table
