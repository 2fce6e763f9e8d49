"""``quancrypt lm``: language models, trained by a federation under encryption."""

from __future__ import annotations

import typer

from quancrypt_fl.cli.lm_compare import compare
from quancrypt_fl.cli.lm_evaluate import evaluate
from quancrypt_fl.cli.lm_finetune import finetune
from quancrypt_fl.cli.lm_generate import generate
from quancrypt_fl.cli.lm_merge import merge
from quancrypt_fl.cli.lm_pipeline import pipeline
from quancrypt_fl.cli.lm_pretrain import pretrain

__all__ = ["lm"]

lm = typer.Typer(
    no_args_is_help=True, help="Language models: trained by a federation under encryption."
)
# In the order of use, which is the order of `quancrypt lm --help`.
lm.command()(pretrain)
lm.command()(finetune)
lm.command()(compare)
lm.command()(evaluate)
lm.command()(merge)
lm.command()(generate)
lm.command()(pipeline)
