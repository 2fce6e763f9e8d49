"""Ranks of clients as they are written; see :mod:`.ranks`."""

from __future__ import annotations

__all__ = ["parse_ranks"]


def parse_ranks(text: str) -> tuple[int, ...]:
    """Ranks from numbers separated by commas.

    Raises
    ------
    ValueError
        If it is something else: says what is allowed.
    """
    try:
        ranks = tuple(int(part) for part in text.split(","))
    except ValueError:
        ranks = ()
    if not ranks or min(ranks) < 1:
        raise ValueError(
            f"client_ranks = {text!r}; allowed: whole numbers from 1 on with commas, as 8,8,4"
        )
    return ranks
