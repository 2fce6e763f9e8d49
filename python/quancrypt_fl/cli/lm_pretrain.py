"""``quancrypt lm pretrain``: a language model from random weights, trained by a federation."""

from __future__ import annotations

from pathlib import Path

import typer

from quancrypt_fl.cli.config_options import Fields, fields_from, with_options_of
from quancrypt_fl.cli.federated import JsonResults, Quiet, Resume, run_federation
from quancrypt_fl.cli.interrupts import interruptible_imports
from quancrypt_fl.cli.lm_text_options import require_language_models
from quancrypt_fl.cli.storage import check_folder
from quancrypt_fl.lm.pretrain_config import LEFT_OUT, PRETRAIN_GROUPS, PretrainConfig

__all__ = ["pretrain"]

_FIELDS = Fields(
    PretrainConfig,
    PRETRAIN_GROUPS,
    {
        "model": "a GPT-2 with bytes",
        "layers": "4",
        "width": "128",
        "heads": "4",
        "vocabulary": "bytes",
        "batch_size": "8",
        "threads": "2",
        "max_weight": "from the number of clients",
        "out": "runs/DATA-MODEL",
    },
    LEFT_OUT,
)


@with_options_of(_FIELDS)
def pretrain(
    context: typer.Context,
    resume: Resume = False,
    json_only: JsonResults = False,
    quiet: Quiet = False,
) -> None:
    """Pre-train a language model over simulated clients by DiLoCo, updates encrypted end to end.

    Clients take --local-steps steps between two exchanges. Writes results.json, plot.png, the model
    as transformers loads it (config.json and model.safetensors) and a checkpoint per round into
    --out.
    """
    named = fields_from(context, PretrainConfig).resolved()
    default = Path("runs") / f"{named.data.name}-{named.model_name}"
    config = fields_from(context, PretrainConfig, out=context.params["out"] or default)
    assert config.out is not None
    check_folder(config.out)
    require_language_models()
    with interruptible_imports():
        from quancrypt_fl.lm.pretrain_run import Pretraining

    run_federation(
        lambda observer: Pretraining(config, resume=resume, observer=observer),
        config,
        json_only=json_only,
        quiet=quiet,
    )
