"""``quancrypt bench``: kernels and whole operations beside SEAL, TenSEAL and Paillier."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from quancrypt_fl.cli.errors import CommandError
from quancrypt_fl.cli.storage import check_output, write

__all__ = ["bench"]

_FILE_WIDTH = 120
_CHARTS = (".png", ".pdf", ".svg")


def bench(
    quick: Annotated[
        bool, typer.Option("--quick", help="Three pairs of each, in seconds: orders of magnitude.")
    ] = False,
    values: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=10**8,
            help="Values of one update of ours.",
            show_default="ten full ciphertexts",
        ),
    ] = None,
    threads: Annotated[
        int, typer.Option(min=1, max=1024, help="Threads, for us and for TenSEAL.")
    ] = 1,
    repeat: Annotated[
        int | None,
        typer.Option(
            min=1, max=1000, help="Pairs of each comparison.", show_default="9; --quick 3"
        ),
    ] = None,
    kernels: Annotated[
        bool, typer.Option("--kernels/--no-kernels", help="Measure kernels one by one too.")
    ] = True,
    backends: Annotated[
        bool,
        typer.Option("--backends", help="Measure operations with every other kernel set too."),
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw bytes and time per value into this file: .png, .pdf or .svg."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the document to this JSON file.")] = None,
    json_only: Annotated[
        bool, typer.Option("--json", help="Print only the document, as JSON.")
    ] = False,
) -> None:
    r"""Measure speed and size beside Microsoft SEAL, TenSEAL and Paillier, as ratios in one run.

    Every answer is checked before it is timed. TenSEAL and Paillier take part where they are
    installed: pip install 'quancrypt-native\[baselines]'.
    """
    if out is not None:
        check_output(out, force=True)
    if plot is not None:
        check_output(plot, force=True, inputs=[out])
        if plot.suffix.lower() not in _CHARTS:
            raise CommandError(f"{plot}: --plot draws {', '.join(_CHARTS)}")

    from quancrypt_fl.bench.run import QUICK, BenchConfig, run_benchmarks

    base = QUICK if quick else BenchConfig()
    config = replace(
        base,
        values=base.values if values is None else values,
        repeat=base.repeat if repeat is None else repeat,
        threads=threads,
        kernels=kernels,
        backends=backends,
    )
    with _announcer(silent=json_only) as announce:
        document = run_benchmarks(config, announce)
    if out is not None:
        write(out, json.dumps(document, indent=2, allow_nan=False).encode() + b"\n", force=True)
    if plot is not None:
        from quancrypt_fl.bench.chart import draw_chart

        draw_chart(document, plot)
    if json_only:
        json.dump(document, sys.stdout, indent=2, allow_nan=False)
        print()
    else:
        from quancrypt_fl.bench.tables import print_document

        console = Console()
        # A file or a pipe has no width of its own.
        print_document(document, console if console.is_terminal else Console(width=_FILE_WIDTH))


@contextmanager
def _announcer(*, silent: bool) -> Iterator[Callable[[str], None]]:
    """What is being measured, on one line of stderr, or nothing if silent or not a terminal."""
    console = Console(stderr=True)
    if silent or not console.is_terminal:
        yield lambda _: None
        return
    with console.status("measuring") as status:
        yield lambda what: status.update(f"measuring: {what}")
