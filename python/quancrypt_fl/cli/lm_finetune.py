"""``quancrypt lm finetune``: adapters of a language model, tuned by a federation."""

from __future__ import annotations

from pathlib import Path

import typer

from quancrypt_fl.cli.config_options import Fields, fields_from, with_options_of
from quancrypt_fl.cli.federated import JsonResults, Quiet, Resume, run_federation
from quancrypt_fl.cli.interrupts import interruptible_imports
from quancrypt_fl.cli.lm_text_options import require_language_models
from quancrypt_fl.cli.storage import check_folder
from quancrypt_fl.lm.config import GROUPS, FinetuneConfig

__all__ = ["finetune"]

_FIELDS = Fields(
    FinetuneConfig,
    {**GROUPS, "Baselines": ("tenseal_parameters", "tenseal_parameters")},
    {
        "alpha": "twice the rank",
        "batch_size": "causal, multimodal 8; classify 16; clip 32",
        "labels": "those of train.tsv",
        "local_epochs": "1, unless --local-steps is given",
        "threads": "2",
        "max_weight": "from the number of clients",
        "target_modules": "those that are usual for the model",
        "out": "runs/DATA-MODEL-MODE",
    },
)


@with_options_of(_FIELDS)
def finetune(
    context: typer.Context,
    resume: Resume = False,
    json_only: JsonResults = False,
    quiet: Quiet = False,
) -> None:
    """Tune a model's LoRA adapter over simulated clients, updates encrypted end to end.

    Writes results.json, plot.png, the adapter as peft loads it (adapter_model.safetensors and
    adapter_config.json) and a checkpoint per round into --out.
    """
    named = [Path(context.params[name]).name for name in ("data", "model")]
    default = Path("runs") / "-".join([*named, context.params["mode"]])
    config = fields_from(context, FinetuneConfig, out=context.params["out"] or default)
    assert config.out is not None
    check_folder(config.out)
    require_language_models()
    with interruptible_imports():
        from quancrypt_fl.lm.run import Finetuning

    run_federation(
        lambda observer: Finetuning(config, resume=resume, observer=observer),
        config,
        json_only=json_only,
        quiet=quiet,
    )
