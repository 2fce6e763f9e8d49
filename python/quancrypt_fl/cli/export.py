"""``quancrypt export``: a run's model as a file for inference."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from quancrypt_fl.cli.errors import CommandError
from quancrypt_fl.cli.interrupts import interruptible_imports
from quancrypt_fl.cli.storage import check_output, write
from quancrypt_fl.cli.text import counted, printable

__all__ = ["export"]

_FILE_WIDTH = 120


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    out: Annotated[Path, typer.Option(help="Safetensors file to write.")],
    rate: Annotated[
        float, typer.Option(help="Share of the weights to prune, or of each layer's channels.")
    ] = 0.5,
    bits: Annotated[int, typer.Option(help="Bits of a weight: 2 to 8, or 32 for float32.")] = 8,
    structured: Annotated[
        bool,
        typer.Option("--structured", help="Take whole channels out: fewer, dense weights."),
    ] = False,
    per_tensor: Annotated[
        bool, typer.Option("--per-tensor", help="One scale per tensor instead of per output.")
    ] = False,
    finetune_epochs: Annotated[
        int,
        typer.Option(
            min=0, help="Train so many epochs after --structured, on the whole training set."
        ),
    ] = 0,
    calibrate: Annotated[
        bool,
        typer.Option("--calibrate", help="Store ranges of activations, for int8 kernels."),
    ] = False,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Compare passes over the test set, and accuracies."),
    ] = False,
    repeat: Annotated[int, typer.Option(min=1, max=1000, help="Pairs of passes.")] = 5,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Folder of the data set's files.", show_default="as in the run"),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, max=1024, help="Threads of torch.", show_default="as in the run"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    json_only: Annotated[
        bool, typer.Option("--json", help="Print only what was written, as JSON.")
    ] = False,
) -> None:
    """Export the model of a run: pruned, quantized, or with whole channels taken out.

    Images are read only where --measure, --calibrate or --finetune-epochs ask for it.
    """
    _check_not_of_the_run(out, run)
    check_output(out, force=force)
    with interruptible_imports():
        from quancrypt_fl.export import ExportOptions, export_run

    result = export_run(
        run,
        ExportOptions(
            rate=rate,
            bits=bits,
            structured=structured,
            per_channel=not per_tensor,
            finetune_epochs=finetune_epochs,
            calibrate=calibrate,
            measure=measure,
            repeat=repeat,
            data_dir=data_dir,
            threads=threads,
        ),
    )
    write(out, result.data, force=force)
    if json_only:
        json.dump(result.document, sys.stdout, indent=2, allow_nan=False)
        print()
    else:
        _print(result.document, out)


def _check_not_of_the_run(out: Path, run: Path) -> None:
    """Raise :class:`CommandError` if ``out`` is one of the files that an export is made from."""
    checkpoints = Path(os.path.realpath(run / "checkpoints"))
    if checkpoints in Path(os.path.realpath(out)).parents:
        raise CommandError(f"{out}: is in the run's checkpoints; name another file to write")
    inputs = [run / "results.json", run / "model.safetensors"]
    for root, _, names in os.walk(checkpoints):  # empty where it cannot be read
        inputs += [Path(root, name) for name in names]
    check_output(out, force=True, inputs=inputs)


def _print(document: Mapping[str, Any], out: Path) -> None:
    table = Table(show_header=False, pad_edge=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("Model", f"{document['model']} of {document['dataset']}")
    pruning = document["pruning"]
    table.add_row(
        "Pruning", pruning if pruning == "none" else f"{pruning}, rate {document['rate']:g}"
    )
    table.add_row(
        "Weights",
        f"{document['nonzero']:,} not zero of {document['parameters']:,} "
        f"(the run's: {document['original_parameters']:,}), {document['bits']} bits",
    )
    ratio = document["float32_bytes"] / document["bytes"]
    table.add_row(
        "File", f"{decimal(document['bytes'])}, {ratio:.2f} x smaller than the run's in float32"
    )
    table.add_row("Written", Text(printable(out)))
    console = Console()
    if not console.is_terminal:
        console = Console(width=_FILE_WIDTH)  # a file or a pipe has no width of its own
    console.print(table)
    if measured := document.get("measured"):
        console.print(_comparison(measured))


def _comparison(measured: Mapping[str, Any]) -> Table:
    table = Table(
        title=f"A pass over {counted(measured['images'], 'test image')}, "
        f"{counted(measured['threads'], 'thread')}, "
        f"medians of {counted(measured['repeat'], 'pair')}",
        title_justify="left",
        pad_edge=False,
    )
    table.add_column("Variant")
    for column in ("Accuracy", "Seconds", "Speed-up", "Least to most"):
        table.add_column(column, justify="right")
    table.add_column("Verdict")
    for name, row in measured["rows"].items():
        table.add_row(
            name,
            f"{row['accuracy']:.2%}",
            f"{row['seconds']:.3f}",
            f"{row['speedup']:.2f} x",
            f"{row['speedup_min']:.2f} to {row['speedup_max']:.2f}",
            measured["verdicts"].get(name, ""),
        )
    return table
