"""Steps 8 and 9 of a round for groups: each is summed and opened apart, and the median counts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.errors import NotOpenedError
from quancrypt_fl.method.exchange import Exchange
from quancrypt_fl.method.fedavg import FedAvg
from quancrypt_fl.method.groups import LEAST_IN_A_GROUP, median, median_bounds
from quancrypt_fl.method.influence import largest_share
from quancrypt_fl.method.meter import RoundMeter
from quancrypt_fl.method.pruning import Mask
from quancrypt_fl.method.roles import (
    Coordinator,
    EachByItself,
    GlobalState,
    Participant,
    Sealed,
    Tensors,
    Update,
)
from quancrypt_fl.method.weighting import Share, arrivals_scale

__all__ = ["Groups", "bounds_by_group", "sum_up_by_group"]

Pair = tuple[Participant, Update]
Opened = TypeVar("Opened")


@dataclass(frozen=True)
class Groups:
    """Groups of consecutive participants.

    Attributes
    ----------
    sizes
        Participants of each, in order; their sum is the number of participants.
    unreadable
        What opening a sum raises if an upload in it was malformed: the group is then left out.
    """

    sizes: Sequence[int]
    unreadable: tuple[type[Exception], ...] = ()

    def of(self, pairs: Iterator[Pair]) -> Iterator[list[Pair]]:
        """The participants and updates of one group after the other."""
        for size in self.sizes:
            yield list(islice(pairs, size))


def bounds_by_group(
    groups: Groups,
    state: GlobalState,
    clients: Sequence[Participant],
    updates: Iterable[Update],
    server: Coordinator,
    method: FedAvg,
    meter: RoundMeter,
    encrypt: Callable[[Participant, Update], Sealed],
) -> dict[str, float]:
    """The exchange of reports: the median of the bounds that each group agrees on.

    Raises
    ------
    NotOpenedError
        If no group's sum could be opened.
    """

    def agreed(total: bytes, shares: Sequence[Share]) -> dict[str, float]:
        del shares
        return method.agreed(*clients[0].reports.unprotect(total))

    found = []
    for group in groups.of(zip(clients, updates, strict=True)):
        with Exchange("reports", server.reports, EachByItself(), meter, state.round) as exchange:
            for client, update in group:
                exchange.upload(client, update, encrypt)
            found.append(_opened(groups, exchange, meter, agreed))
    bounds = median_bounds(found)
    if bounds is None:
        raise NotOpenedError("no group's sum of reports could be opened")
    return bounds


def sum_up_by_group(
    groups: Groups,
    state: GlobalState,
    clients: Sequence[Participant],
    updates: Iterable[Update],
    server: Coordinator,
    method: FedAvg,
    masks: Mapping[str, Mask],
    meter: RoundMeter,
    encrypt: Callable[[Participant, Update], Sealed],
    lost: Collection[int],
    min_arrivals: int,
) -> GlobalState:
    """The state after a round: the median of the groups' means, each of which counts once.

    A group of which fewer than ``min_arrivals`` updates arrive (at least two) is thrown away
    unopened, and one whose sum cannot be read is left out; their clients have sent nothing. If no
    group is left, the round leaves the weights as they were.
    """
    least = max(LEAST_IN_A_GROUP, min_arrivals)
    means: list[Tensors] = []
    bounds: list[Mapping[str, float] | None] = []
    counted: list[Sequence[Share]] = []

    def read(total: bytes, shares: Sequence[Share]) -> tuple[Tensors, Mapping[str, float] | None]:
        mean, own_bounds = method.incoming(*clients[0].updates.unprotect(total), state)
        scale = np.float32(arrivals_scale(shares, 0))
        return mean if scale == 1 else _scaled(mean, scale), own_bounds

    for group in groups.of(zip(clients, updates, strict=True)):
        present = [pair for pair in group if pair[0].index not in lost]
        residuals = [client.memory.residual for client, _ in present]
        with Exchange("updates", server.updates, EachByItself(), meter, state.round) as exchange:
            for client, update in present:
                exchange.upload(client, update, encrypt)
            opened = _opened(groups, exchange, meter, read, least)
        if opened is None:
            for (client, _), residual in zip(present, residuals, strict=True):
                client.memory.residual = residual
            continue
        means.append(opened[0])
        bounds.append(opened[1])
        counted.append(exchange.shares)
    meter.groups = {"formed": len(groups.sizes), "opened": len(means)}
    if not means:
        return replace(state, round=state.round + 1)
    with meter.phase("unprotect"):
        after = method.advance(state, median(means), median_bounds(bounds), masks)
    share = max(largest_share(shares) for shares in counted)
    scale = max(arrivals_scale(shares, 0) for shares in counted)
    meter.influence = method.influence(state, after, masks, share, scale)
    return after


def _opened(
    groups: Groups,
    exchange: Exchange,
    meter: RoundMeter,
    read: Callable[[bytes, Sequence[Share]], Opened],
    least: int = 1,
) -> Opened | None:
    """What clients read of a group's sum; None if it is too small a group's, or unreadable."""
    if not exchange.shares:
        return None
    total = exchange.total()
    if len(exchange.shares) < least:
        return None
    meter.downloaded(len(total))
    try:
        with meter.phase("unprotect"):
            return read(total, exchange.shares)
    except groups.unreadable:
        return None


def _scaled(tensors: Tensors, scale: np.float32) -> dict[str, NDArray[np.float32]]:
    return {name: tensor * scale for name, tensor in tensors.items()}
