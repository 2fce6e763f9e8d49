"""Values of documents that nobody vouches for: a type and a range each, or an error that says so.

Every function takes a mapping, a key and the place of the mapping (``rounds[3].``, or nothing) and
raises :class:`UntrustedError` that names place, value and what is allowed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "UntrustedError",
    "count",
    "entries",
    "number",
    "optional_count",
    "optional_number",
    "reported_share",
    "require_schema",
    "section",
    "shorten",
    "text",
]

LARGEST = 2**63
_LONGEST = 200  # characters of a value that are shown


class UntrustedError(ValueError):
    """A file is not what its name says; the message names no secret and is meant to be shown."""


def shorten(value: object, limit: int = _LONGEST) -> str:
    r"""``value`` as text that can be encoded and shown, cut off after ``limit`` characters.

    Control characters, line ends and marks that change the direction of text are escaped, as in
    ``\x1b``: they would make a name look like another one.
    """
    shown = value if isinstance(value, str) else repr(value)
    # Lone surrogates, from names of files or from JSON escapes, are no text that can be written.
    shown = shown[: limit + 1].encode("utf-8", "replace").decode()
    shown = shown if len(shown) <= limit else shown[: limit - 1] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)


def section(document: Any, key: str, place: str = "", *, required: bool = True) -> dict[str, Any]:
    """An object; an absent one is empty where it is not ``required``."""
    value = _get(document, key, place, required=required)
    if value is None and not required:
        return {}
    if not isinstance(value, dict):
        raise UntrustedError(f"{place}{key} is not an object: {shorten(value, 40)}")
    return value


def entries(document: Any, key: str, place: str = "", *, largest: int) -> Sequence[Any]:
    """A list of one to ``largest`` items."""
    value = _get(document, key, place)
    if not isinstance(value, list) or not 1 <= len(value) <= largest:
        raise UntrustedError(f"{place}{key} is not a list of 1 to {largest:,} items")
    return value


def text(document: Any, key: str, place: str = "", default: str | None = None) -> str:
    """A string of at most 200 characters (longer ones are cut); an empty one is as good as none."""
    value = _get(document, key, place, required=default is None)
    if value in (None, "") and default is not None:
        return default
    if not isinstance(value, str) or not value:
        raise UntrustedError(f"{place}{key} is not text: {shorten(value, 40)}")
    return shorten(value)


def number(
    document: Any, key: str, place: str = "", *, low: float = -math.inf, high: float = math.inf
) -> float:
    """A finite number in ``[low, high]``."""
    found = optional_number(document, key, place, low=low, high=high)
    if found is None:
        raise UntrustedError(f"{place}{key} is missing")
    return found


def optional_number(
    document: Any, key: str, place: str = "", *, low: float = -math.inf, high: float = math.inf
) -> float | None:
    """Like :func:`number`, or None if it is absent or null."""
    value = _get(document, key, place, required=False)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > LARGEST:
        raise UntrustedError(f"{place}{key} is not a number: {shorten(value, 40)}")
    if not low <= value <= high:  # NaN too
        raise UntrustedError(f"{place}{key} = {value!r} is not in [{low:g}, {high:g}]")
    return float(value)


def reported_share(document: Any, key: str, place: str = "") -> float | None:
    """A share that clients report: one outside ``[0, 1]`` (per cent, nonsense) is not known.

    Clients of a deployed run measure what they like; it must not make a whole file unreadable.
    """
    found = optional_number(document, key, place)
    return found if found is not None and 0 <= found <= 1 else None


def count(document: Any, key: str, place: str = "", *, low: int = 0) -> int:
    """A whole number from ``low`` to ``2**63``."""
    found = optional_count(document, key, place, low=low)
    if found is None:
        raise UntrustedError(f"{place}{key} is missing")
    return found


def optional_count(document: Any, key: str, place: str = "", *, low: int = 0) -> int | None:
    """Like :func:`count`, or None if it is absent or null."""
    value = _get(document, key, place, required=False)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= LARGEST:
        raise UntrustedError(
            f"{place}{key} is not a whole number from {low} up: {shorten(value, 40)}"
        )
    return value


def _get(document: Any, key: str, place: str, *, required: bool = True) -> Any:
    if not isinstance(document, Mapping):
        where = place.rstrip(".") or "the document"
        raise UntrustedError(f"{where} is not an object: {shorten(document, 40)}")
    if required and document.get(key) is None:
        raise UntrustedError(f"{place}{key} is missing")
    return document.get(key)


def require_schema(document: Any, expected: int) -> None:
    """Refuse a document whose ``schema`` is not the one that this version reads."""
    schema = count(document, "schema")
    if schema != expected:
        raise UntrustedError(f"schema {schema}; this version reads schema {expected}")
