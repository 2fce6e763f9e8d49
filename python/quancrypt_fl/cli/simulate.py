"""``quancrypt simulate``: one federated run in one process."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from quancrypt_fl.cli.errors import CommandError, CommandInterruptedError
from quancrypt_fl.cli.interrupts import MESSAGE, interruptible_imports
from quancrypt_fl.config import CHOICES, QuanCryptConfig, describe_errors
from quancrypt_fl.errors import ConfigError

__all__ = ["simulate"]

_DEFAULTS = QuanCryptConfig()
_TRAINING, _METHOD, _DATA, _OUTPUT = "Training", "Method", "Data", "Output"


def _choices(field: str) -> str:
    return "|".join(CHOICES[field])


def simulate(
    context: typer.Context,
    dataset: Annotated[
        str, typer.Option(metavar=_choices("dataset"), help="Data set.", rich_help_panel=_DATA)
    ] = _DEFAULTS.dataset,
    model: Annotated[
        str, typer.Option(metavar=_choices("model"), help="Model.", rich_help_panel=_TRAINING)
    ] = _DEFAULTS.model,
    method: Annotated[
        str,
        typer.Option(
            metavar=_choices("method"),
            help="quancrypt: pruned, clipped, quantized, encrypted. vanilla: FedAvg in the clear.",
            rich_help_panel=_METHOD,
        ),
    ] = _DEFAULTS.method,
    clients: Annotated[
        int, typer.Option(help="Number of clients.", rich_help_panel=_TRAINING)
    ] = _DEFAULTS.clients,
    rounds: Annotated[
        int, typer.Option(help="Number of rounds.", rich_help_panel=_TRAINING)
    ] = _DEFAULTS.rounds,
    bits: Annotated[
        int, typer.Option(help="Bits of a quantized value, 2 to 16.", rich_help_panel=_METHOD)
    ] = _DEFAULTS.bits,
    partition: Annotated[
        str,
        typer.Option(
            metavar=_choices("partition"),
            help="How samples are divided over clients.",
            rich_help_panel=_DATA,
        ),
    ] = _DEFAULTS.partition,
    dirichlet_alpha: Annotated[
        float,
        typer.Option(
            help="Evenness of the dirichlet partition: small is uneven.", rich_help_panel=_DATA
        ),
    ] = _DEFAULTS.dirichlet_alpha,
    shards_per_client: Annotated[
        int,
        typer.Option(help="Label runs per client of the shards partition.", rich_help_panel=_DATA),
    ] = _DEFAULTS.shards_per_client,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the data set's files (digits need none).", rich_help_panel=_DATA
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for results.json, plot.png and checkpoints.",
            show_default="runs/DATASET-MODEL-METHOD",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Decides every random choice of the run.", rich_help_panel=_TRAINING)
    ] = _DEFAULTS.seed,
    lr: Annotated[
        float, typer.Option(help="Learning rate of Adam.", rich_help_panel=_TRAINING)
    ] = _DEFAULTS.lr,
    weight_decay: Annotated[
        float, typer.Option(help="Weight decay of Adam.", rich_help_panel=_TRAINING)
    ] = _DEFAULTS.weight_decay,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Samples per batch.",
            show_default="64; 128 from 40 clients; digits 16",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    local_epochs: Annotated[
        int | None,
        typer.Option(
            help="Epochs of a client per round.",
            show_default="1; digits 5",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    clip_factor: Annotated[
        float,
        typer.Option(help="Clip bound in mean magnitudes of a tensor.", rich_help_panel=_METHOD),
    ] = _DEFAULTS.clip_factor,
    smoothing: Annotated[
        float, typer.Option(help="Share of the new weights, in (0, 1].", rich_help_panel=_METHOD)
    ] = _DEFAULTS.smoothing,
    pruning: Annotated[
        bool,
        typer.Option(
            "--pruning/--no-pruning",
            help="Leave small weights' updates out.",
            rich_help_panel=_METHOD,
        ),
    ] = _DEFAULTS.pruning,
    p_0: Annotated[
        float,
        typer.Option("--p-0", help="Pruning rate up to round t-eff.", rich_help_panel=_METHOD),
    ] = _DEFAULTS.p_0,
    p_target: Annotated[
        float, typer.Option(help="Pruning rate from round t-target on.", rich_help_panel=_METHOD)
    ] = _DEFAULTS.p_target,
    t_eff: Annotated[
        int, typer.Option(help="Round in which the rate begins to rise.", rich_help_panel=_METHOD)
    ] = _DEFAULTS.t_eff,
    t_target: Annotated[
        int, typer.Option(help="Round in which the rate stops rising.", rich_help_panel=_METHOD)
    ] = _DEFAULTS.t_target,
    rounding: Annotated[
        str,
        typer.Option(
            metavar=_choices("rounding"), help="Rounding of quantization.", rich_help_panel=_METHOD
        ),
    ] = _DEFAULTS.rounding,
    weighting: Annotated[
        str,
        typer.Option(
            metavar=_choices("weighting"), help="How clients count.", rich_help_panel=_METHOD
        ),
    ] = _DEFAULTS.weighting,
    max_weight: Annotated[
        int | None,
        typer.Option(
            help="Largest total of integer weights.",
            show_default="from the number of clients",
            rich_help_panel=_METHOD,
        ),
    ] = None,
    security: Annotated[
        int, typer.Option(help="Security level: 128, 192 or 256 bits.", rich_help_panel=_METHOD)
    ] = _DEFAULTS.security,
    max_train_samples: Annotated[
        int | None,
        typer.Option(help="Use only so many training samples.", rich_help_panel=_DATA),
    ] = None,
    max_test_samples: Annotated[
        int | None, typer.Option(help="Use only so many test samples.", rich_help_panel=_DATA)
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(help="Threads of torch.", show_default="2; mlp 1", rich_help_panel=_TRAINING),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on from the last checkpoint in --out.", rich_help_panel=_OUTPUT
        ),
    ] = False,
    json_only: Annotated[
        bool,
        typer.Option("--json", help="Print only the results, as JSON.", rich_help_panel=_OUTPUT),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Print nothing.", rich_help_panel=_OUTPUT)
    ] = False,
) -> None:
    """Train a model over simulated clients, with updates encrypted end to end.

    Writes results.json, plot.png and a checkpoint per round into --out.
    """
    options = {
        name: context.params[name]
        for name in QuanCryptConfig.model_fields
        if name in context.params
    }
    options["out"] = out or Path("runs") / f"{dataset}-{model}-{method}"
    try:
        config = QuanCryptConfig(**options)
    except ValidationError as error:
        raise ConfigError(describe_errors(error)) from error

    assert config.out is not None
    _check_folder(config.out)
    with interruptible_imports():
        from quancrypt_fl.cli.progress import progress_observer
        from quancrypt_fl.cli.tables import print_run
        from quancrypt_fl.engines.simulation import Simulation

    with progress_observer(silent=json_only or quiet) as observer:
        simulation = Simulation(config, resume=resume, observer=observer)
        try:
            results = simulation.run()
        except KeyboardInterrupt as error:
            if not simulation.saved_rounds:
                raise
            raise CommandInterruptedError(
                f"{MESSAGE} after round {simulation.saved_rounds}; go on with --resume"
            ) from error
    if json_only:
        json.dump(results, sys.stdout, indent=2)
        print()
    elif not quiet:
        print_run(results, config.out)


def _check_folder(out: Path) -> None:
    """Before hours of training: ``out`` is a folder, or can be made."""
    for path in (out, *out.parents):
        if path.exists():
            if not path.is_dir():
                raise CommandError(f"{path}: is a file; --out names a folder")
            return
