"""docs/format.md says what the code does: kinds, limits, fields of headers."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from tests.kat.objects import FORMATS, Format
from tests.native.threshold_parties import ceremony_of, meet, parameters

from quancrypt_native import wire
from quancrypt_native.channels import ChannelKey
from quancrypt_native.threshold import Party

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
    assert len(limits()) == 22


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


def names_of(rule: str) -> set[str]:
    """The names in a rule."""
    match = re.search(rf"^{rule} +=(.*?)(?=\n\S|\n\n|\n```)", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert match is not None
    values = {"packed", "slots", "scrypt"}
    return set(re.findall(r'"([a-z_]+)"  ?(?=[(\[a-z0-9"])', match[1])) - values


def header_of(data: bytes) -> set[str]:
    """The names in the header of an object."""
    size = int.from_bytes(data[12:20], "little")
    return set(json.loads(data[20 : 20 + size]))


@pytest.mark.parametrize("rule", FILES)
def test_fields_of_headers(rule: str) -> None:
    """The names in a rule are those of a file of version 1, none more."""
    data = Format(Path(FORMATS) / "format1").data(FILES[rule])
    assert names_of(rule) == header_of(data)


def test_fields_of_headers_of_threshold_keys(tmp_path: Path) -> None:
    """The same of messages and states that are made here."""
    party_group = meet(ceremony_of(parameters(3), 2))
    state = party_group.parties[0].to_bytes(passphrase=bytes(32), random_passphrase=True)
    memory = tmp_path / "answered"
    party = Party.from_bytes(state, party_group.ceremony, passphrase=bytes(32), memory=memory)
    total = party_group.total(np.arange(3))
    sealing = names_of("sealing")
    for rule, data, more in (
        ("public-share-header", party.public_share(), set()),
        ("deal-header", party.deal()[1], set()),
        ("part-header", party.partial_decryption(total, [0, 1]), set()),
        ("party-header", state, sealing),
        ("answered-header", memory.read_bytes(), set()),
        (
            "channel-key-header",
            ChannelKey().to_bytes(passphrase=bytes(32), random_passphrase=True),
            sealing,
        ),
    ):
        assert names_of(rule) | more == header_of(data), rule
