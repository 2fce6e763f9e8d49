"""What a receipt claims beside encryption, in sentences: privacy, influence, groups.

Receipts may come from files that nobody vouches for: a value that is not what it should be leaves
its sentence out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["claim_lines"]

_LARGEST_COUNT = 2**31


def claim_lines(receipt: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Label and text of what a receipt claims."""
    lines = [
        ("Privacy", _privacy(receipt.get("privacy"))),
        ("Aggregation", _groups(receipt.get("aggregation"))),
        ("One client can", _influence(receipt.get("influence"))),
    ]
    return [(label, text) for label, text in lines if text]


def _privacy(claim: Any) -> str:
    if not isinstance(claim, Mapping):
        return ""
    epsilon, delta, clip = (_number(claim.get(name)) for name in ("epsilon", "delta", "clip"))
    rounds = _count(claim.get("rounds"))
    if epsilon is None or delta is None or clip is None or rounds is None:
        return ""
    text = (
        f"ε = {epsilon:.2f} at δ = {delta:g} after {rounds:,} "
        f"round{'' if rounds == 1 else 's'}, for one client's updates, clipped to {clip:g}"
    )
    least = _count(claim.get("least_shares"))
    if least is not None:
        text += f"; no sum with the noise of fewer than {least:,} clients is opened"
    others = [
        f"{who} {found:.2f}"
        for key, who in (
            ("epsilon_against_participants", "against a participant"),
            ("epsilon_of_single_updates", "against who opens single updates"),
        )
        if (found := _number(claim.get(key))) is not None
    ]
    return f"{text}; ε {', '.join(others)}" if others else text


def _groups(claim: Any) -> str:
    if not isinstance(claim, Mapping) or claim.get("rule") != "median-of-groups":
        return ""
    names = ("groups", "smallest_group", "tolerated_groups")
    groups, smallest, tolerated = (_count(claim.get(name)) for name in names)
    if groups is None or smallest is None or tolerated is None:
        return ""
    return (
        f"median of the means of {groups:,} groups, of which {tolerated:,} may hold anything; "
        f"clients see every group's mean, of as few as {smallest:,} updates"
    )


def _influence(claim: Any) -> str:
    if not isinstance(claim, Mapping):
        return ""
    names = ("coordinate", "malformed_coordinate", "l2")
    coordinate, malformed, norm = (_number(claim.get(name)) for name in names)
    if coordinate is None or malformed is None or norm is None:
        return ""
    ratio = _number(claim.get("l2_over_update"))
    beside = "" if ratio is None else f", {ratio:.2f} x what the last round did"
    text = (
        f"move a weight by {coordinate:.3g} at most and all together by {norm:.3g} (L2){beside}; "
        f"with a malformed ciphertext, a weight by {malformed:.3g}"
    )
    bound = _number(claim.get("next_bound"))
    return text if bound is None else f"{text}; have the next clip bounds rise to {bound:.3g}"


def _number(value: Any) -> float | None:
    """A finite number that is not negative."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < math.inf and abs(value) < 2.0**1000 else None


def _count(value: Any) -> int | None:
    fits = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST_COUNT
    return value if fits else None
