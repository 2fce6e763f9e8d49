"""TOML as kits need it: tables of plain values. The standard library reads it and cannot write."""

from __future__ import annotations

import json
from collections.abc import Mapping

__all__ = ["Value", "table"]

Value = str | int | float | bool


def table(values: Mapping[str, Value], header: str = "") -> str:
    """Lines ``key = value``, under ``header`` if there is one (``[run]``, ``[[client]]``).

    Keys are bare: letters, digits, ``_`` and ``-``.
    """
    lines = [header] if header else []
    lines += [f"{key} = {_literal(value)}" for key, value in values.items()]
    return "".join(f"{line}\n" for line in lines)


def _literal(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's escapes are TOML's, but TOML has no surrogate pairs, and wants DEL escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
