"""What ``inspect`` says of the frames of a threshold key: public header fields, nothing opened."""

from __future__ import annotations

from typing import Any

from quancrypt_native import wire
from quancrypt_native.errors import WireFormatError
from quancrypt_native.wire import Kind

__all__ = ["THRESHOLD_KINDS", "sealing_facts", "threshold_facts", "threshold_rows"]

THRESHOLD_KINDS = frozenset(
    {
        Kind.PUBLIC_SHARE,
        Kind.DEAL,
        Kind.PARTIAL_DECRYPTION,
        Kind.PARTY,
        Kind.ANSWERED,
        Kind.CHANNEL_KEY,
    }
)
_DIGEST_BYTES = 32
_LAST_PARTY = 127


def sealing_facts(fields: wire.HeaderReader) -> dict[str, Any]:
    """How a sealed body was sealed; salt and nonce are checked and left out."""
    facts: dict[str, Any] = {
        "derivation": fields.text("kdf"),
        **{name: fields.number(name, 1, 2**32) for name in ("scrypt_n", "scrypt_r", "scrypt_p")},
        "cipher": fields.text("cipher"),
    }
    fields.hexadecimal("salt", 32)
    fields.hexadecimal("nonce", 24)
    return facts


def threshold_facts(kind: Kind, header: dict[str, Any], body_bytes: int) -> dict[str, Any]:
    """The facts of a frame of one of :data:`THRESHOLD_KINDS`.

    Raises
    ------
    WireFormatError
        If a header field is missing, unknown, of another type or out of range.
    """
    fields = wire.HeaderReader(header)
    if kind == Kind.CHANNEL_KEY:
        facts: dict[str, Any] = {"public": fields.hexadecimal("public", 64)}
    else:
        name = "party" if kind in (Kind.PARTY, Kind.ANSWERED) else "sender"
        facts = {
            "ceremony": fields.hexadecimal("ceremony", 64),
            "party": fields.number(name, 0, _LAST_PARTY),
        }
    if kind == Kind.DEAL:
        facts["recipient"] = fields.number("recipient", 0, _LAST_PARTY)
    elif kind == Kind.PARTIAL_DECRYPTION:
        facts["participants"] = fields.numbers("participants", _LAST_PARTY + 1, 0, _LAST_PARTY)
        facts["ciphertext"] = fields.hexadecimal("ciphertext", 64)
    elif kind == Kind.PARTY:
        facts["received"] = fields.numbers("received", _LAST_PARTY + 1, 0, _LAST_PARTY)
        facts["answered"] = fields.number("answered", 0, 2**20)
        facts["memory"] = fields.flag("memory")
    elif kind == Kind.ANSWERED:
        facts["answered"], rest = divmod(body_bytes, _DIGEST_BYTES)
        if rest:
            raise WireFormatError(f"the body has {body_bytes} bytes; expected whole digests")
    if kind in (Kind.PARTY, Kind.CHANNEL_KEY):
        facts["sealed"] = sealing_facts(fields)
    fields.finish()
    return facts


def threshold_rows(facts: dict[str, Any]) -> list[tuple[str, object]]:
    """The same for the eye: those of :func:`threshold_facts` that are there, in its order."""
    names = {
        "public": "public key",
        "ceremony": "ceremony",
        "party": "of party",
        "recipient": "for party",
        "participants": "participants",
        "ciphertext": "of the sum",
        "received": "has deals of",
        "answered": "answered",
        "memory": "remembers in a file",
    }
    rows: list[tuple[str, object]] = []
    for name, title in names.items():
        value = facts.get(name)
        if isinstance(value, list):
            value = ", ".join(map(str, value)) or "nobody"
        elif isinstance(value, bool):
            value = "yes" if value else "no"
        elif name == "answered" and value is not None:
            value = f"{value:,} ciphertexts"
        if value is not None:
            rows.append((title, value))
    return rows
