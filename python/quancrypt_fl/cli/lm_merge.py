"""``quancrypt lm merge``: an adapter in its model's weights, for where neither peft nor we are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.filesize import decimal

from quancrypt_fl.cli.interrupts import interruptible_imports
from quancrypt_fl.cli.lm_text_options import Adapter, Model, require_language_models
from quancrypt_fl.cli.options import JsonOnly
from quancrypt_fl.cli.text import aligned, print_json

__all__ = ["merge"]


def merge(
    model: Model,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder to write: new or empty.")],
    adapter: Adapter = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Weights of linear layers in 8 bits, for small machines.")
    ] = False,
    json_only: JsonOnly = False,
) -> None:
    """Merge a LoRA adapter into its model: safetensors that transformers loads.

    With --int8 the linear layers' weights are rounded to 8 bits; such a folder is read by
    quancrypt lm generate and evaluate. Without --adapter the model itself is written so.
    """
    require_language_models()
    with interruptible_imports():
        from quancrypt_fl.lm.deploying import deploy
        from quancrypt_fl.lm.loading import model_folder

    document = deploy(model_folder(model), adapter, out, int8=int8)
    if json_only:
        print_json(document)
    else:
        _print(document, out)


def _print(document: dict[str, Any], out: Path) -> None:
    lines = [
        ("Model", f"{document['architecture']}, {document['parameters']:,} parameters"),
        ("Adapter", document["adapter"] or "none"),
        ("Weights", f"{decimal(document['weight_bytes'])}, {document['format']}"),
    ]
    if document["int8"]:
        ratio = document["float_bytes"] / document["weight_bytes"]
        lines.append(("Smaller", f"{ratio:.2f} x than in {document['dtype']}"))
    lines.append(("Written", out))
    print(aligned(lines))
