"""Figures as people read them."""

from __future__ import annotations

__all__ = ["duration", "factor", "size"]


def duration(seconds: float) -> str:
    """A time in a unit that suits it, three digits."""
    for unit, length in (("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3)):
        if seconds >= length:
            return f"{_digits(seconds / length)} {unit}"
    return f"{_digits(seconds * 1e6)} µs"


def size(count: float) -> str:
    """Bytes in a decimal unit that suits them, three digits."""
    for unit, length in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= length:
            return f"{_digits(count / length)} {unit}"
    return f"{count:.0f} bytes"


def factor(ratio: float) -> str:
    """``1,234 x``, ``12.3 x``, ``1.95 x``."""
    if ratio >= 100:
        return f"{ratio:,.0f} x"
    return f"{ratio:.1f} x" if ratio >= 10 else f"{ratio:.2f} x"


def _digits(number: float) -> str:
    """Three digits, or all before the point."""
    return f"{number:,.0f}" if number >= 99.95 else f"{number:.3g}"
