"""What differs between versions of Typer: Flower needs one below 0.21, which stands on Click."""

from __future__ import annotations

from typing import Any

import typer

__all__ = ["UsageException"]

UsageException: Any
"""A wrong command line; ``format_message()`` says what is wrong."""
if hasattr(typer, "TyperException"):
    UsageException = typer.TyperException
else:
    from click import ClickException

    UsageException = ClickException
