"""Tables that close a command."""

from __future__ import annotations

import math
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
    for label, text in _judged(results):
        table.add_row(label, text)
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


def _judged(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How good the result is, and of an adapter how exactly its factors were averaged."""
    totals = results["totals"]
    rows = [
        (
            "Test accuracy",
            f"{totals['test_accuracy']:.2%} (best {totals['best_test_accuracy']:.2%} "
            f"in round {totals['best_round']})",
        ),
        ("Validation accuracy", f"{totals['validation_accuracy']:.2%}"),
    ]
    if results.get("metric") == "perplexity":
        rows = [
            (
                "Test perplexity",
                f"{totals['value']:.3f} (best {totals['best_value']:.3f} "
                f"in round {totals['best_round']})",
            ),
            ("Validation perplexity", f"{math.exp(totals['validation_loss']):.3f}"),
        ]
    if "data_parallel" in results:
        rows.append(("Data parallel", _data_parallel(results["data_parallel"])))
    errors = [r["lora_error"] for r in results["rounds"] if r.get("lora_error") is not None]
    if errors:
        rows.append(("LoRA error", f"at most {max(errors):.2g} (mode {results['mode']})"))
    return rows


def _data_parallel(beside: Mapping[str, Any]) -> str:
    """What as many steps of data parallelism send, and what they learn, where that was tried."""
    both = sum(beside["bytes"].values())
    said = f"{decimal(both)} up and down per worker for as many steps"
    if (times := beside["times_ours"]["both"]) is not None:
        said += f": {times:,.0f} x as much"
    return said + (f"; perplexity {beside['value']:.3f}" if "value" in beside else "")


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
