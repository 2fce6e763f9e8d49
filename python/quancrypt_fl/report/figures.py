"""Figures as text: bytes, seconds and shares with three significant digits, and no more."""

from __future__ import annotations

__all__ = ["percent", "ratio", "round_size", "seconds", "size"]

NOTHING = "–"
_UNITS = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def percent(share: float | None, digits: int = 2) -> str:
    """``0.9694`` as ``96.94 %``."""
    return NOTHING if share is None else f"{100 * share:.{digits}f} %"


def size(count: float | None) -> str:
    """Bytes in decimal units."""
    if count is None:
        return NOTHING
    for unit, factor in _UNITS:
        if count >= 0.9995 * factor:
            return f"{_three(count / factor)} {unit}"
    return f"{count:.0f} B"


def round_size(count: float) -> str:
    """Bytes of a round number, for an axis: ``40 kB``."""
    for unit, factor in _UNITS:
        if count >= factor:
            return f"{count / factor:g} {unit}"
    return f"{count:g} B"


def seconds(duration: float | None) -> str:
    """A duration in seconds, or in milli- or microseconds below a tenth of one."""
    if duration is None:
        return NOTHING
    if duration >= 0.1 or duration == 0:
        return f"{_three(duration)} s"
    if duration >= 1e-4:
        return f"{_three(duration * 1e3)} ms"
    return f"{_three(duration * 1e6)} µs"


def ratio(value: float | None) -> str:
    """How many times something: ``0.486 ×``."""
    return NOTHING if value is None else f"{_three(value)} ×"


def _three(value: float) -> str:
    if value >= 99.95:
        return f"{value:,.0f}"
    if value >= 9.995:
        return f"{value:.1f}"
    if value >= 0.9995 or value == 0:
        return f"{value:.2f}"
    return f"{value:.3f}" if value >= 0.1 else f"{value:.3g}"
