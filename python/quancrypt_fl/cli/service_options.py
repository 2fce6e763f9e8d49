"""Options of the commands that run for long: how they log."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["LogJson", "Verbose"]

LogJson = Annotated[
    bool,
    typer.Option("--log-json", help="Log JSON objects, one a line.", rich_help_panel="Logging"),
]
Verbose = Annotated[
    bool,
    typer.Option("--verbose", help="Log what Flower says of each step.", rich_help_panel="Logging"),
]
