"""How much each client counts in the encrypted sum (step 8 of a round).

Under encryption a weight is a small integer, and the total of a round is bounded by the
``max_weight`` that the ciphertext's fields were made for: each doubling of ``max_weight`` costs one
bit per value, and the relative error of a client's share is at most about
``clients / (2 * max_weight)``. Three ways:

- ``integer``: sample counts become integer weights, by largest remainders.
- ``prescaled``: each client scales its update by its share before clipping; weights are 1, shares
  are exact, and ``max_weight`` need only be the number of clients, but large clients reach the
  clip bound sooner and small ones use fewer of the quantizer's steps.
- ``uniform``: every client counts the same, as in the paper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from quancrypt_fl.errors import MethodError

__all__ = ["Share", "arrivals_scale", "check_scale", "integer_weights", "sample_shares", "shares"]

_MAX_TOTALS_TRIED = 256


@dataclass(frozen=True)
class Share:
    """A client's part in a round: ``weight`` under encryption, ``scale`` before clipping."""

    weight: int
    scale: float = 1.0


def shares(weighting: str, counts: Sequence[int], max_weight: int) -> list[Share]:
    """The share of each client, from its number of training samples.

    Parameters
    ----------
    weighting
        ``"integer"``, ``"prescaled"`` or ``"uniform"``.
    counts
        Training samples per client, each at least 1.
    max_weight
        Largest total weight that the encryption parameters allow.
    """
    _check(counts, max_weight)
    if weighting == "integer":
        return [Share(weight) for weight in integer_weights(counts, max_weight)]
    if weighting == "prescaled":
        total = sum(counts)
        return [Share(1, len(counts) * count / total) for count in counts]
    if weighting == "uniform":
        return [Share(1) for _ in counts]
    raise MethodError(f"weighting {weighting!r} is not one of integer, prescaled, uniform")


def check_scale(weighting: str, scale: float, max_weight: int) -> None:
    """Raise :class:`MethodError` for a scale that no sample counts lead to.

    A prescaled share is ``clients * count / total``, at most the number of clients.
    """
    largest = float(max_weight) if weighting == "prescaled" else 1.0
    if not 0 < scale <= largest or (weighting != "prescaled" and scale != 1.0):
        allowed = f"above 0, up to {largest:g}" if weighting == "prescaled" else "1"
        raise MethodError(f"a scale of {scale:g} with {weighting} weighting; allowed: {allowed}")


def sample_shares(counts: Sequence[int]) -> list[Share]:
    """Exact FedAvg shares for methods that sum in the clear: the sample counts themselves."""
    return [Share(count) for count in counts]


def arrivals_scale(arrived: Sequence[Share], participants: int) -> float:
    """What undoes that the shares of lost clients are missing from a mean of scaled updates."""
    if len(arrived) == participants:
        return 1.0
    return sum(share.weight for share in arrived) / sum(s.weight * s.scale for s in arrived)


def integer_weights(counts: Sequence[int], max_weight: int) -> list[int]:
    """Integer weights, as proportional to ``counts`` as a total of ``max_weight`` allows.

    Totals up to ``max_weight`` (a spread of 256 of them, if there are more) are filled by largest
    remainders; the total whose shares come closest to the exact ones wins, the smallest where
    several do. Equal counts get equal weights, more samples never get less weight, and every client
    gets at least 1.

    Raises
    ------
    MethodError
        If there are no clients, a count is below 1, or there are more clients than ``max_weight``.
    """
    _check(counts, max_weight)
    exact = [Fraction(count, sum(counts)) for count in counts]
    best: list[int] = []
    best_error = math.inf
    for total in _totals(len(counts), max_weight):
        weights = _largest_remainders(counts, total)
        given = sum(weights)
        error = sum(
            abs(weight / given - float(share)) for weight, share in zip(weights, exact, strict=True)
        )
        if error < best_error - 1e-12:
            best, best_error = weights, error
    return best


def _largest_remainders(counts: Sequence[int], total: int) -> list[int]:
    """Weights that add up to at most ``total``; clients of equal count are served together."""
    groups: dict[int, int] = {}
    for count in counts:
        groups[count] = groups.get(count, 0) + 1
    weights = dict.fromkeys(groups, 1)
    left, samples = total, sum(counts)
    larger = sorted(groups)
    # Clients whose quota is below 1 get 1 each; the others divide what is left.
    while larger and larger[0] * left < samples:
        count = larger.pop(0)
        left -= groups[count]
        samples -= count * groups[count]
    for count in larger:
        weights[count] = count * left // samples
    spare = left - sum(weights[count] * groups[count] for count in larger)
    by_remainder = sorted(larger, key=lambda count: (-(count * left % samples), -count))
    for count in by_remainder:
        if groups[count] > spare:
            break
        weights[count] += 1
        spare -= groups[count]
    return [weights[count] for count in counts]


def _totals(clients: int, max_weight: int) -> list[int]:
    span = max_weight - clients
    if span < _MAX_TOTALS_TRIED:
        return list(range(clients, max_weight + 1))
    return [clients + span * i // (_MAX_TOTALS_TRIED - 1) for i in range(_MAX_TOTALS_TRIED)]


def _check(counts: Sequence[int], max_weight: int) -> None:
    if not counts:
        raise MethodError("a round needs at least one client")
    if min(counts) < 1:
        raise MethodError(f"client {counts.index(min(counts))} has no training samples")
    if len(counts) > max_weight:
        raise MethodError(
            f"{len(counts)} clients need max_weight of at least {len(counts)}, given {max_weight}"
        )
