"""Median of groups: a mean for each of several groups of clients, and the median of these.

One client can move a mean as far as its weight allows. It can move the mean of its own group only,
and while fewer than half of the groups hold such a client, every coordinate of the median lies
between the smallest and the largest mean of the other groups. The price: clients see the mean of
every group, which tells more about its few members than the mean of all tells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.errors import MethodError
from quancrypt_fl.method.roles import Tensors

__all__ = ["LEAST_IN_A_GROUP", "breakdown", "by_group", "median", "median_bounds"]

LEAST_IN_A_GROUP = 2
"""Fewest updates in a group's sum: the sum of one would be that one's update."""


def by_group(clients: int, groups: int, rng: np.random.Generator) -> list[list[int]]:
    """Divide ``clients`` positions at random into groups whose sizes differ by at most one.

    Returns
    -------
    list
        Positions of each group in ascending order, larger groups first.

    Raises
    ------
    MethodError
        If there are not at least two clients for each group.
    """
    if groups < 1 or clients < LEAST_IN_A_GROUP * groups:
        raise MethodError(
            f"{clients} clients in {groups} groups; allowed: at least {LEAST_IN_A_GROUP} clients "
            "in each"
        )
    order = rng.permutation(clients)
    return [sorted(part.tolist()) for part in np.array_split(order, groups)]


def breakdown(groups: int) -> int:
    """How many of so many groups may hold anything, and the median still be bounded by the rest."""
    return (groups - 1) // 2


def median(means: Sequence[Tensors]) -> dict[str, NDArray[np.float32]]:
    """Coordinate-wise median of the means of groups, each of which counts once.

    Of an even number it is the mean of the two in the middle, in float32.
    """
    return {
        name: np.asarray(np.median([mean[name] for mean in means], axis=0), dtype=np.float32)
        for name in means[0]
    }


def median_bounds(bounds: Sequence[Mapping[str, float] | None]) -> dict[str, float] | None:
    """Median of the groups' clip bounds, tensor by tensor; None where a method has none."""
    known = [bound for bound in bounds if bound is not None]
    if not known:
        return None
    return {name: float(np.median([bound[name] for bound in known])) for name in known[0]}
