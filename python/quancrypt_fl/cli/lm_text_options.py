"""Options of the commands that make or judge text."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from quancrypt_fl.cli.errors import CommandError

__all__ = [
    "Adapter",
    "MaxNewTokens",
    "Model",
    "Prompts",
    "Seed",
    "Temperature",
    "Threads",
    "TopK",
    "require_language_models",
]

Model = Annotated[
    str,
    typer.Option(metavar="NAME_OR_FOLDER", help="Model: a local folder, or a hub's name for it."),
]
Adapter = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="LoRA adapter of the model, as peft wrote it.")
]
Prompts = Annotated[list[str], typer.Option(help="Text to go on from; may be repeated.")]
MaxNewTokens = Annotated[int, typer.Option(help="Most tokens for each prompt.")]
Temperature = Annotated[
    float, typer.Option(help="0: the likeliest token. Otherwise tokens are drawn.")
]
TopK = Annotated[int, typer.Option(help="Draw from so many likeliest tokens; 0: from all.")]
Seed = Annotated[int, typer.Option(help="Of the draws.")]
Threads = Annotated[
    int | None, typer.Option(min=1, max=1024, help="Threads of torch.", show_default="as torch has")
]


def require_language_models() -> None:
    """Raise :class:`CommandError` where the [lm] extra is not installed."""
    for package in ("transformers", "peft", "accelerate"):
        if find_spec(package) is None:
            raise CommandError(
                f"quancrypt lm needs {package!r}: pip install 'quancrypt-native[lm]'"
            )
