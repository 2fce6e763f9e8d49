"""``quancrypt lm evaluate``: models and adapters on the same data, in one table."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.filesize import decimal

from quancrypt_fl.cli.interrupts import interruptible_imports
from quancrypt_fl.cli.lm_text_options import Threads, require_language_models
from quancrypt_fl.cli.options import JsonOnly
from quancrypt_fl.cli.text import print_json, table

if TYPE_CHECKING:
    from quancrypt_fl.lm.evaluating import Entry

__all__ = ["evaluate"]


def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME=FOLDER...",
            help="Models and adapters. Those of one name, such as that of each client alone, make "
            "one row with their mean.",
        ),
    ],
    data: Annotated[
        Path,
        typer.Option(help="causal: a text file. classify: a folder with train.tsv and dev.tsv."),
    ],
    task: Annotated[
        str,
        typer.Option(
            metavar="causal|classify",
            help="causal: perplexity of the last tenth of the text. classify: accuracy on dev.tsv.",
        ),
    ] = "causal",
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME_OR_FOLDER", help="The model that adapters are for."),
    ] = None,
    sequence_length: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Tokens of a block of text; of a sentence at most.",
            show_default="(128, or all positions of a model that has fewer)",
        ),
    ] = None,
    max_test_samples: Annotated[
        int | None,
        typer.Option(min=1, help="Use only so many sentences, or blocks of text."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws those, as in a fine-tuning.")] = 1,
    speed: Annotated[
        bool, typer.Option("--speed", help="Measure how fast each one generates, too.")
    ] = False,
    threads: Threads = None,
    json_only: JsonOnly = False,
) -> None:
    """Compare models on text that no client has seen: base, local, central, federated."""
    require_language_models()
    with interruptible_imports():
        from quancrypt_fl.lm.evaluating import Comparison, Entry, evaluate_entries
        from quancrypt_fl.training import torch_threads

    comparison = Comparison(task, data, model, sequence_length, max_test_samples, seed, speed)
    entries = [Entry.parse(text) for text in models]
    console = Console(stderr=True)
    waiting = nullcontext() if json_only else console.status("loading")
    with torch_threads(threads) if threads else nullcontext(), waiting as status:

        def tell(entry: Entry) -> None:
            if status is not None:
                status.update(f"{entry.name}: {entry.model}", spinner="dots")

        document = evaluate_entries(entries, comparison, tell)
    if json_only:
        print_json(document)
    else:
        _print(document)


def _print(document: Mapping[str, Any]) -> None:
    metric = document["metric"]
    header = ["model", "kind", metric, "least to most", "weights", "tokens/s"]
    rows = []
    for row in document["rows"]:
        several = len(row["values"]) > 1
        speed = row["tokens_per_second"]
        rows.append(
            [
                row["name"],
                row["kind"],
                _shown(metric, row["value"]),
                f"{_shown(metric, min(row['values']))} to {_shown(metric, max(row['values']))}"
                if several
                else "",
                decimal(row["weight_bytes"]),
                "" if speed is None else f"{speed:,.1f}",
            ]
        )
    print(table(header, rows, left=2))


def _shown(metric: str, value: float) -> str:
    return f"{value:.2%}" if metric == "accuracy" else f"{value:.4g}"
