"""docs/format.md says what the code does: kinds, limits, fields of headers."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import pytest
from tests.kat.objects import FORMATS, Format

from quancrypt_native import wire

PAGE = (FORMATS.parents[1] / "docs" / "format.md").read_text(encoding="utf-8")
FILES = {
    "update-header": "update-seeded.bin",
    "parameters-header": "parameters.bin",
    "public-key-header": "public-key.bin",
    "secret-key-header": "secret-key.bin",
}


def limits() -> dict[str, str]:
    """Names in the code, and what the page says."""
    rows = re.findall(r"^\| [^|]+ \| ([0-9e^-]+) \| `([\w.]+)` \|$", PAGE, flags=re.MULTILINE)
    return {name: value for value, name in rows}


def test_the_table_is_found() -> None:
    assert len(limits()) == 20


@pytest.mark.parametrize("name", limits())
def test_limits(name: str) -> None:
    module, _, constant = name.rpartition(".")
    base, _, exponent = limits()[name].partition("^")
    value = int(base) ** int(exponent) if exponent else float(base)
    assert getattr(importlib.import_module(module), constant) == value


def test_kinds() -> None:
    rows = dict(re.findall(r"^\| (\d+) \| `(\w+)` \|", PAGE, flags=re.MULTILINE))
    for kind in wire.Kind:
        assert rows[str(kind.value)] == kind.name.lower()


@pytest.mark.parametrize("rule", FILES)
def test_fields_of_headers(rule: str) -> None:
    """The names in a rule are those of a file of version 1, none more."""
    match = re.search(rf"^{rule} +=(.*?)(?=\n\S|\n\n|\n```)", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert match is not None
    named = set(re.findall(r'"([a-z_]+)"  ?(?=[(\[a-z0-9"])', match[1]))
    data = Format(Path(FORMATS) / "format1").data(FILES[rule])
    size = int.from_bytes(data[12:20], "little")
    header = json.loads(data[20 : 20 + size])
    values = {"packed", "slots", "scrypt"}
    assert named - values == set(header)
