"""Was it really encrypted? What a receipt says, as a verdict and a list of facts.

The receipt comes from the file: the verdict repeats what the file says and never goes beyond.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quancrypt_fl.claims import claim_lines
from quancrypt_fl.report.values import shorten

__all__ = ["Receipt", "parse_receipt"]

_MOST_KEYS = 8
_MOST_PRIMES = 16
_TEXTS = (
    ("Library", "library"),
    ("Key holders", "key_holders"),
    ("The server sees", "server_sees"),
    ("How it is known", "how_known"),
)
_LEAST_SECURITY = 112  # bits; less is no longer accepted (NIST SP 800-57)
_LONG = 600  # characters of a sentence


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a run says about its protection.

    Attributes
    ----------
    level
        ``good``: encrypted at 112 bits of security or more, and the summing side held no key;
        ``warning``: encrypted, but one of the two does not hold or is not said; ``plain``: not
        encrypted; ``unknown``: no receipt.
    verdict
        One sentence.
    short
        A word or two for a table.
    facts
        Label and text of the rest.
    """

    level: str
    verdict: str
    short: str
    facts: tuple[tuple[str, str], ...]


def parse_receipt(receipt: Mapping[str, Any]) -> Receipt:
    """Read a receipt; whatever it lacks is left out, for other methods have other receipts."""
    protected = receipt.get("protected")
    facts = tuple((label, value) for label, value in _facts(receipt) if value)
    if protected is False:
        return Receipt(
            "plain", "Not encrypted: updates travelled in the clear.", "in the clear", facts
        )
    if protected is not True:
        return Receipt("unknown", "The file does not say.", "not stated", facts)
    held = receipt.get("aggregator_held_secret_key")
    security = receipt.get("security_bits")
    known = security if isinstance(security, int) and _is_int(security) else None
    if held is not True and known is None:
        verdict = "Encrypted; the file does not say at how many bits of security."
        return Receipt("warning", verdict, "encrypted, security not stated", facts)
    if held is not True and known is not None and known < _LEAST_SECURITY:
        verdict = (
            f"Encrypted, but with {known} bits of security: {_LEAST_SECURITY} are the least "
            "that counts as protection."
        )
        return Receipt("warning", verdict, "encrypted, too weakly", facts)
    if held is False:
        verdict = "Encrypted; the summing side held no secret key."
        return Receipt("good", verdict, "encrypted", facts)
    if held is True:
        verdict = "Encrypted, but the summing side held a secret key."
        return Receipt("warning", verdict, "encrypted, server had the key", facts)
    verdict = "Encrypted; the file does not say whether the summing side held a secret key."
    return Receipt("warning", verdict, "encrypted, key holder not stated", facts)


def _facts(receipt: Mapping[str, Any]) -> list[tuple[str, str]]:
    security = receipt.get("security_bits")
    parameters = receipt.get("parameters")
    texts = {label: _text(receipt.get(key)) for label, key in _TEXTS}
    return [
        ("Scheme", _text(receipt.get("scheme"))),
        ("Library", texts["Library"]),
        ("Security", f"{security} bits" if _is_int(security) else ""),
        *(_parameters(parameters) if isinstance(parameters, dict) else ()),
        ("Key fingerprints", _keys(receipt.get("keys"))),
        ("Joint key", _joint(receipt.get("threshold"), receipt.get("keys"))),
        ("Uploads", _uploads(receipt.get("rounds"))),
        ("Key holders", texts["Key holders"]),
        ("The server sees", texts["The server sees"]),
        *claim_lines(receipt),
        ("How it is known", texts["How it is known"]),
    ]


def _parameters(parameters: Mapping[str, Any]) -> list[tuple[str, str]]:
    """CKKS parameters in one line, or whatever another scheme has."""
    primes = parameters.get("coeff_modulus")
    names = ("poly_degree", "bits", "max_weight")
    if not (isinstance(primes, list) and all(_is_int(parameters.get(name)) for name in names)):
        shown = ", ".join(
            f"{shorten(name, 40)} {shorten(value, 60)}"
            for name, value in list(parameters.items())[:20]
            if isinstance(value, str | int | float)
        )
        return [("Parameters", shown)]
    sizes = " + ".join(str(p.bit_length()) for p in primes[:_MOST_PRIMES] if _is_int(p))
    line = f"ring degree N = {parameters['poly_degree']}, primes of {sizes} bits"
    if _is_int(parameters.get("fields")) and _is_int(parameters.get("field_bits")):
        line += (
            f"; {parameters['bits']}-bit values in {parameters['fields']} fields of "
            f"{parameters['field_bits']} bits"
        )
    line += f"; total weight up to {parameters['max_weight']}"
    return [("Parameters", line), ("Parameter set", _text(parameters.get("fingerprint")))]


def _keys(keys: Any) -> str:
    if not isinstance(keys, list):
        return ""
    shown = [
        f"{_text(key.get('fingerprint'), 64)} (from round {key['from_round']})"
        for key in keys[:_MOST_KEYS]
        if isinstance(key, dict) and _is_int(key.get("from_round"))
    ]
    more = f" and {len(keys) - _MOST_KEYS:,} more" if len(keys) > _MOST_KEYS else ""
    return ", ".join(shown) + more


def _joint(threshold: Any, keys: Any) -> str:
    """How many clients open a sum, and which ceremonies made the keys."""
    if not (isinstance(threshold, dict) and isinstance(keys, list)):
        return ""
    needed, clients = threshold.get("needed"), threshold.get("clients")
    if not (_is_int(needed) and _is_int(clients)):
        return ""
    made = ", ".join(
        _text(key["ceremony"], 64)
        for key in keys[:_MOST_KEYS]
        if isinstance(key, dict) and isinstance(key.get("ceremony"), str)
    )
    return f"{needed:,} of {clients:,} clients open a sum" + (f"; ceremony {made}" if made else "")


def _uploads(rounds: Any) -> str:
    """Ciphertexts of the last round: the first one includes the exchange of statistics."""
    if not (isinstance(rounds, list) and rounds and isinstance(rounds[-1], dict)):
        return ""
    last = rounds[-1]
    names = ("uploads", "ciphertexts_per_client", "upload_bytes_per_client")
    if not all(_is_int(last.get(name)) for name in names):
        return ""
    uploads, ciphertexts, size = (last[name] for name in names)
    noun = "ciphertext" if ciphertexts == 1 else "ciphertexts"
    return f"{uploads:,} in the last round, of {ciphertexts:,} {noun} and {size:,} bytes each"


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**256


def _text(value: Any, limit: int = _LONG) -> str:
    return shorten(value, limit) if isinstance(value, str) else ""
