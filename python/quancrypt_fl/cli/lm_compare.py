"""``quancrypt lm compare``: what federation gains over clients alone, and encryption costs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from quancrypt_fl.cli.config_options import Fields, fields_from, with_options_of
from quancrypt_fl.cli.federated import JsonResults, Quiet
from quancrypt_fl.cli.interrupts import interruptible_imports
from quancrypt_fl.cli.lm_text_options import require_language_models
from quancrypt_fl.cli.storage import check_folder
from quancrypt_fl.cli.text import counted, print_json, printable, table
from quancrypt_fl.lm.config import GROUPS, FinetuneConfig

if TYPE_CHECKING:
    from quancrypt_fl.observer import Observer

__all__ = ["compare"]

_FIELDS = Fields(
    FinetuneConfig,
    {name: group for name, group in GROUPS.items() if name != "Baselines"},
    {
        "alpha": "twice the rank",
        "batch_size": "causal 8; classify 16",
        "local_epochs": "1, unless --local-steps is given",
        "threads": "2",
        "max_weight": "from the number of clients",
        "target_modules": "those that are usual for the model",
        "out": "runs/DATA-MODEL-MODE-compared",
    },
    frozenset({"method", "encryption", "patience", "tensorboard"}),
)


@with_options_of(_FIELDS)
def compare(
    context: typer.Context,
    seeds: Annotated[
        int,
        typer.Option(
            min=1, max=1000, help="Number of seeds, from --seed on.", rich_help_panel="Training"
        ),
    ] = 1,
    json_only: JsonResults = False,
    quiet: Quiet = False,
) -> None:
    """Fine-tune in five ways: not at all, each client alone, all data in one place, federated in
    the clear, federated under encryption; one table, and by how much encrypted federation is
    better.

    Takes the options of lm finetune. The central model sees as many rows as all clients together.
    Writes comparison.json and, for each run, its adapter and results into --out.
    """
    named = [Path(context.params[name]).name for name in ("data", "model")]
    default = Path("runs") / "-".join([*named, context.params["mode"], "compared"])
    config = fields_from(context, FinetuneConfig, out=context.params["out"] or default)
    assert config.out is not None
    check_folder(config.out)
    require_language_models()
    with interruptible_imports():
        from quancrypt_fl.cli.progress import progress_observer
        from quancrypt_fl.experiments import lm_comparison

    silent = json_only or quiet
    console = Console(stderr=True)
    with ExitStack() as stack:

        def tell(name: str, seed: int) -> Observer:
            stack.close()  # the progress of the run before
            if not silent:
                console.print(f"{name}, seed {seed}", style="dim")
            return stack.enter_context(progress_observer(silent=silent))

        document = lm_comparison.compare(config, seeds, tell)
    if json_only:
        print_json(document)
    elif not quiet:
        _print(document)
        print(f"\nWritten: {printable(config.out / lm_comparison.FILE)}")


def _print(document: Mapping[str, Any]) -> None:
    metric, gains = document["metric"], document["gains"]
    header = ("model", metric, "least to most", f"encrypted is better by ({_unit(metric)})")
    lines = [
        (
            row["name"],
            _shown(metric, row["value"]),
            f"{_shown(metric, min(row['values']))} to {_shown(metric, max(row['values']))}"
            if len(row["values"]) > 1
            else "",
            _spread(gains[row["name"]]) if row["name"] in gains else "",
        )
        for row in document["rows"]
    ]
    said = f"{counted(document['clients'], 'client')}, {counted(document['rounds'], 'round')}"
    print(f"{said}, mode {document['mode']}, {counted(len(document['seeds']), 'seed')}\n")
    print(table(header, lines))
    ratio = document["upload_bytes"] / document["float32_update_bytes"]
    print(
        f"\nupload {document['upload_bytes']:,.0f} bytes per client and round, {ratio:.2f} of "
        f"float32; LoRA error at most {document['lora_error'] or 0.0:.2g}"
    )


def _unit(metric: str) -> str:
    return "points" if metric == "accuracy" else "%"


def _shown(metric: str, value: float) -> str:
    return f"{value:.2%}" if metric == "accuracy" else f"{value:.4g}"


def _spread(gain: Mapping[str, Any]) -> str:
    half = "" if gain["high"] is None else f" ± {gain['high'] - gain['mean']:.2f}"
    return f"{gain['mean']:+.2f}{half}"
