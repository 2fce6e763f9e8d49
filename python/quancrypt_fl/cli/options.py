"""Options that several commands have, with one spelling and one meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quancrypt_fl.cli.passphrase import NEW_VARIABLE, VARIABLE

__all__ = [
    "Bits",
    "DataSets",
    "Device",
    "Force",
    "JsonOnly",
    "KeyMode",
    "NewPassphraseFd",
    "ParamsBesideKey",
    "PassphraseFd",
    "Security",
]

Bits = Annotated[int, typer.Option(help="Bits of a quantized value, 2 to 16.")]
DataSets = Annotated[Path | None, typer.Option(help="Folder of the data sets.")]
Device = Annotated[str, typer.Option(metavar="cpu|cuda", help="Where torch computes.")]
Security = Annotated[int, typer.Option(help="Security level: 128, 192 or 256 bits.")]
KeyMode = Annotated[
    str,
    typer.Option(
        metavar="symmetric|public",
        help="symmetric: clients encrypt with the secret key, uploads are half as large. "
        "public: the public key encrypts too.",
    ),
]
ParamsBesideKey = Annotated[
    Path | None,
    typer.Option(
        "--params",
        metavar="FILE",
        help="The key's parameters.",
        show_default="params.qcp in the key's folder",
    ),
]
PassphraseFd = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="N",
        help="Read the passphrase (one line) from this file descriptor.",
        show_default=f"{VARIABLE}, else a prompt",
    ),
]
NewPassphraseFd = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="N",
        help="Read the new passphrase (one line) from this file descriptor.",
        show_default=f"{NEW_VARIABLE}, else a prompt",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace existing output files.")]
JsonOnly = Annotated[bool, typer.Option("--json", help="Print only a JSON document.")]
