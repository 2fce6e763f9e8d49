"""What the attacks share: one small object of each kind, and how to forge others from it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.native import oracle
from tests.native.conftest import Party, packed, slots
from tests.native.wire_objects import WireObject, wire_objects


@pytest.fixture(scope="session")
def victim() -> Party:
    """Parameters and keys of the party under attack: N = 1024, weights up to 16."""
    return packed(bits=8, max_weight=16, max_poly_degree=1024)


@pytest.fixture(scope="session")
def objects(victim: Party) -> dict[str, WireObject]:
    small_slots = slots(poly_degree=1024, coeff_modulus_bits=(27,), scale_bits=15, max_weight=4)
    return wire_objects(victim, small_slots)


def forged(item: WireObject, *, body: bytes | None = None, **fields: Any) -> bytes:
    """``item`` with other header fields or another body, and with a right checksum."""
    header, old = oracle.unframe(item.data)
    body = old if body is None else body
    header |= {"body_bytes": len(body), **fields}
    return oracle.frame(item.kind, json.dumps(header, separators=(",", ":")).encode(), body)


def with_header(item: WireObject, text: bytes, body: bytes = b"") -> bytes:
    """A frame of the kind of ``item`` with this text for a header, and with a right checksum."""
    return oracle.frame(item.kind, text, body)
