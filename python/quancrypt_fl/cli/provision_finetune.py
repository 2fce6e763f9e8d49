"""``quancrypt provision --finetune``: kits of a run that tunes a language model's adapter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from quancrypt_fl.cli.errors import CommandError
from quancrypt_fl.cli.interrupts import interruptible_imports
from quancrypt_fl.cli.lm_text_options import require_language_models
from quancrypt_fl.config import QuanCryptConfig
from quancrypt_fl.joint.facts import check_threshold
from quancrypt_fl.lm.config import FinetuneConfig

if TYPE_CHECKING:
    from quancrypt_fl.deployment.provisioning import Plan

__all__ = ["finetuning", "with_tuning"]

_OTHERS = (QuanCryptConfig.model_fields.keys() - {"clients", "out"}) | {"no_model", "values"}
"""Options that say what is run, where no file does."""


def finetuning(context: typer.Context, file: Path, clients: int | None) -> FinetuneConfig:
    """The run that a file describes.

    Parameters
    ----------
    context
        Of the command: other options that say what is run are refused.
    clients
        Number of clients, if the command line says one.
    """
    given = [
        f"--{name.replace('_', '-')}"
        for name in context.params
        if name in _OTHERS
        and (source := context.get_parameter_source(name)) is not None
        and source.name != "DEFAULT"
    ]
    if given:
        raise CommandError(f"{', '.join(given)}: not with --finetune; {file} says what is run")
    from quancrypt_fl.deployment.tuning import read_tuning

    config = read_tuning(file, clients)
    if config.threshold is not None:
        check_threshold(config.threshold, config.clients)
    return config


def with_tuning(plan: Plan, config: FinetuneConfig) -> tuple[Plan, int]:
    """The plan with what kits hold of a run, and the values of its largest upload.

    Loads the base model and the texts that ``config`` names.
    """
    require_language_models()
    with interruptible_imports():
        from quancrypt_fl.deployment.tuning import Tuning

    made = Tuning.of(config)
    plan = replace(
        plan,
        config=made.config,
        server_files=made.server_files,
        client_files=made.client_files,
    )
    return plan, made.values
