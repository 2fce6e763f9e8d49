"""Tables of the TOML files in kits, read so that nothing in them goes unnoticed."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quancrypt_fl.errors import FederatedError

__all__ = ["SCHEMA", "KitError", "Table"]

SCHEMA = 1
_LARGEST_FILE = 16 << 20  # bytes: 65,536 clients fit


class KitError(FederatedError, ValueError):
    """A kit is incomplete, damaged, or is not one of the kind asked for."""


@dataclass
class Table:
    """A table of a TOML file, of which every key must be asked for.

    All methods raise :class:`KitError`, which names the place, what is there and what is allowed.
    """

    place: str
    """File, and table in it, for messages."""
    values: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> Table:
        """The top of a file, whose ``schema`` is ours."""
        try:
            with path.open("rb") as stream:
                data = stream.read(_LARGEST_FILE + 1)
        except OSError as error:
            raise KitError(f"{path}: cannot be read: {error.strerror or error}") from error
        if len(data) > _LARGEST_FILE:
            raise KitError(f"{path}: more than {_LARGEST_FILE} bytes; allowed: up to that")
        try:
            table = cls(str(path), tomllib.loads(data.decode()))
        except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
            raise KitError(f"{path}: is no TOML file: {error}") from None
        schema = table.take("schema")
        if schema != SCHEMA or type(schema) is not int:
            raise KitError(f"{path}: schema = {schema!r:.80}; this version reads {SCHEMA}")
        return table

    def take(self, key: str) -> Any:
        """The value of a key, whatever it is."""
        try:
            return self.values.pop(key)
        except KeyError:
            raise KitError(f"{self.place}: {key} is missing") from None

    def table(self, key: str) -> Table:
        """The table ``[key]``."""
        value = self.values.get(key)
        if not isinstance(value, dict):
            raise KitError(f"{self.place}: there is no table [{key}]")
        return Table(f"{self.place}: [{key}]", value)

    def tables(self, key: str) -> list[Table]:
        """The tables ``[[key]]``, in order."""
        entries = self.take(key)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise KitError(f"{self.place}: {key} = ...; allowed: [[{key}]] tables")
        return [
            Table(f"{self.place}: {key} {number}", dict(entry))
            for number, entry in enumerate(entries, 1)
        ]

    def text(self, key: str, pattern: re.Pattern[str] | None = None, allowed: str = "text") -> str:
        """A string that is not empty."""
        value = self.take(key)
        if not isinstance(value, str) or not value or (pattern and not pattern.fullmatch(value)):
            raise KitError(f"{self.place}: {key} = {value!r:.80}; allowed: {allowed}")
        return value

    def number(self, key: str, least: int, most: int) -> int:
        """An integer from ``least`` to ``most``."""
        value = self.take(key)
        if type(value) is not int or not least <= value <= most:
            raise KitError(f"{self.place}: {key} = {value!r:.80}; allowed: {least} to {most}")
        return value

    def finish(self) -> None:
        """Nothing is left: a misspelt key would be a setting without effect. Tables that were
        asked for are empty by now.
        """
        left = [key for key, value in self.values.items() if value != {}]
        if left:
            raise KitError(f"{self.place}: unknown: {', '.join(map(repr, left))}")
