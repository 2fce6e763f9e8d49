"""Tables that close a command."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from quancrypt_fl.cli.text import counted, printable
from quancrypt_fl.receipts import receipt_lines

__all__ = ["print_run"]


def print_run(results: Mapping[str, Any], out: Path | None) -> None:
    """Print a run's figures, what protected it, and where its files are."""
    totals = results["totals"]
    title = (
        f"{results['method']} · {results['dataset']} · {results['model']} · "
        f"{counted(results['clients'], 'client')} · {counted(totals['rounds'], 'round')} · "
        f"seed {results['seed']}"
    )
    table = Table(title=title, show_header=False, title_justify="left", pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row(
        "Test accuracy",
        f"{totals['test_accuracy']:.2%} (best {totals['best_test_accuracy']:.2%} "
        f"in round {totals['best_round']})",
    )
    table.add_row("Validation accuracy", f"{totals['validation_accuracy']:.2%}")
    table.add_row("Upload", _upload(results))
    table.add_row("Download", f"{decimal(totals['bytes']['download'])} per client, all rounds")
    table.add_row(
        "Seconds", ", ".join(f"{phase} {spent:.2f}" for phase, spent in totals["seconds"].items())
    )
    table.add_section()
    for label, text in receipt_lines(results["receipt"]):
        table.add_row(label, text)
    if out is not None:
        table.add_section()
        written = ", ".join(printable(out / name) for name in ("results.json", "plot.png"))
        table.add_row("Written", Text(written))  # no markup: brackets in names are just that
    Console().print(table)


def _upload(results: Mapping[str, Any]) -> str:
    """Bytes, and beside float32 those of the rounds in which updates arrived."""
    totals = results["totals"]
    uploaded = totals["bytes"]["upload"]
    arrived = [r["bytes"]["upload"] for r in results["rounds"] if r["participants"]]
    said = f"{decimal(uploaded)} per client, all rounds"
    if not arrived:
        return f"{said}: no update arrived"
    ratio = sum(arrived) / (len(arrived) * totals["float32_update_bytes"])
    return f"{said}: {ratio:.2f} x float32"
