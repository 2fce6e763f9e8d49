"""One federated round of QuanCrypt-FL (arXiv 2411.05260), in the order in which it happens.

1. Clients hold the global weights ``w_t``; the summing side holds none.
2. The round's pruning mask follows from ``w_t`` and ``t`` (:mod:`.pruning`).
3. Each client trains on its own data and forms the difference ``delta_i = w_i - w_t``, or takes the
   whole weights ``w_i``, and adds what earlier rounds left out, if it keeps that.
4. Pruned coordinates are dropped: neither encrypted nor sent.
5. The kept ones are clipped per tensor to a bound that all clients share (:mod:`.clipping`), agreed
   on under encryption (:mod:`.statistics`).
6. They are quantized to ``b`` bits,
7. packed and encrypted: steps 5 to 7 are one pass in the native package.
8. The summing side adds ciphertexts, weighted (:mod:`.weighting`). It has no secret key. Clients
   that are lost by now are not waited for.
9. Clients decrypt the sum, which under a joint key some of them have to open first, form the mean,
   and update: ``w_{t+1} = (1 - lambda) * w_t + lambda * (w_t + mean)`` (:mod:`.smoothing`), or by
   an outer optimizer with momentum (:mod:`.outer`); they may prune the result.
10. The new weights are evaluated (not here).

:func:`federated_round` runs them where all parts are in reach, as in a simulation. A deployment
calls the same pieces where they belong. What is particular to a method stands in
:class:`~quancrypt_fl.method.quancrypt.QuanCrypt`, what all share in
:class:`~quancrypt_fl.method.fedavg.FedAvg`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

from quancrypt_fl.errors import NotOpenedError
from quancrypt_fl.method.exchange import Exchange
from quancrypt_fl.method.fedavg import FedAvg
from quancrypt_fl.method.grouped import Groups, bounds_by_group, sum_up_by_group
from quancrypt_fl.method.influence import largest_share
from quancrypt_fl.method.meter import RoundMeter
from quancrypt_fl.method.pruning import Mask
from quancrypt_fl.method.roles import (
    Coordinator,
    EachByItself,
    GlobalState,
    Opening,
    Participant,
    Sealed,
    Tensors,
    Update,
)
from quancrypt_fl.method.updates import form_update, protect
from quancrypt_fl.method.weighting import Share, arrivals_scale

__all__ = [
    "Sealed",
    "Tensors",
    "arrivals_scale",
    "federated_round",
    "in_memory",
    "local_update",
]

Hold = Callable[[Iterable[Update]], AbstractContextManager[Iterable[Update]]]


def in_memory(updates: Iterable[Update]) -> AbstractContextManager[Iterable[Update]]:
    """Hold updates as they are."""
    return nullcontext(list(updates))


def federated_round(
    state: GlobalState,
    clients: Sequence[Participant],
    server: Coordinator,
    method: FedAvg,
    meter: RoundMeter,
    *,
    lost: Collection[int] = (),
    min_arrivals: int = 1,
    hold: Hold = in_memory,
    opening: Opening | None = None,
    groups: Groups | None = None,
) -> GlobalState:
    """Run one round and return the state after it; times and bytes go to ``meter``.

    Parameters
    ----------
    state
        State before the round.
    clients
        The round's participants.
    server
        The summing side.
    method
        What all of them have agreed on.
    meter
        Collects times and bytes.
    lost
        Indices of clients that fall silent before they upload their update.
    min_arrivals
        Updates below which the sum is thrown away unopened: the sum of one is that one's update.
    hold
        Holds all updates where clients have to agree on bounds between training and upload, or may
        have to upload them again. In all other rounds updates are made, sent and added one by one:
        one is in memory at a time.
    opening
        How clients get to read a sum; by default each has the key.
    groups
        Sum consecutive participants in groups, each opened apart, and take the median of the
        groups' means (:mod:`.grouped`); by default all are one sum.
    """
    opening = opening or EachByItself()
    method = method.at(state.round)
    masks = method.masks(state)
    shares = method.shares([client.samples for client in clients])
    made = (
        local_update(client, share, state, method, masks, meter)
        for client, share in zip(clients, shares, strict=True)
    )
    setting = _Setting(server, method, masks, meter, opening, groups, lost, min_arrivals)
    residuals = [client.memory.residual for client in clients]
    start = state
    try:
        if not method.must_agree(state) and not opening.repeats:
            state = _sum_up(state, clients, made, setting)
        else:
            with hold(made) as updates:
                if method.must_agree(state):
                    agreed = _agree_on_bounds(state, clients, updates, setting)
                    state = replace(state, bounds={**(state.bounds or {}), **agreed})
                state = _sum_up(state, clients, updates, setting)
    except NotOpenedError as error:
        meter.failed = str(error)
        state = replace(state, round=state.round + 1)
    if waiting := {name for name, factor in method.report_factors.items() if factor == 0}:
        bounds = {name: b for name, b in (state.bounds or {}).items() if name not in waiting}
        state = replace(state, bounds={**bounds, **_known(start, waiting)})
    if state.weights is start.weights:  # no sum was opened: nobody has sent anything
        for client, residual in zip(clients, residuals, strict=True):
            client.memory.residual = residual
    return state


def _known(state: GlobalState, names: Collection[str]) -> dict[str, float]:
    """Clip bounds that a state already had; the others are agreed on when somebody can."""
    return {name: bound for name, bound in (state.bounds or {}).items() if name in names}


@dataclass(frozen=True)
class _Setting:
    """What stays the same within a round; see :func:`federated_round`."""

    server: Coordinator
    method: FedAvg
    masks: Mapping[str, Mask]
    meter: RoundMeter
    opening: Opening
    groups: Groups | None
    lost: Collection[int]
    min_arrivals: int


def local_update(
    client: Participant,
    share: Share,
    state: GlobalState,
    method: FedAvg,
    masks: Mapping[str, Mask],
    meter: RoundMeter,
) -> Update:
    """Steps 3 and 4: train, and keep what the masks keep of what there is to send."""
    with meter.phase("train"):
        trained = client.train(state)
    meter.trained(trained.loss, client.samples)
    with meter.phase("protect"):
        return form_update(client, trained.weights, share, state, method, masks)


def _agree_on_bounds(
    state: GlobalState,
    clients: Sequence[Participant],
    updates: Iterable[Update],
    setting: _Setting,
) -> dict[str, float]:
    """The exchange of reports alone that precedes the upload of updates."""
    method, meter = setting.method, setting.meter

    def encrypt(client: Participant, update: Update) -> Sealed:
        return client.reports.protect(*method.report(update), state.round)

    if setting.groups is not None:
        return bounds_by_group(
            setting.groups, state, clients, updates, setting.server, method, meter, encrypt
        )

    def present() -> Iterator[tuple[Participant, Update]]:
        return zip(clients, updates, strict=True)

    summing = setting.server.reports
    with Exchange("reports", summing, setting.opening, meter, state.round) as exchange:
        for client, update in present():
            exchange.upload(client, update, encrypt)
        total = exchange.opened(exchange.total(), present, encrypt)
    meter.downloaded(len(total))
    with meter.phase("unprotect"):
        reporting = replace(method, factors=method.report_factors)
        return reporting.agreed(*clients[0].reports.unprotect(total))


def _sum_up(
    state: GlobalState,
    clients: Sequence[Participant],
    updates: Iterable[Update],
    setting: _Setting,
) -> GlobalState:
    """Steps 5 to 9. If too few updates arrive, the round leaves the weights as they were."""
    method, masks, meter = setting.method, setting.masks, setting.meter

    def first(client: Participant, update: Update) -> Sealed:
        return protect(client, update, state, method, masks)

    if setting.groups is not None:
        return sum_up_by_group(
            setting.groups, state, clients, updates, setting.server, method, masks, meter,
            encrypt=first, lost=setting.lost, min_arrivals=setting.min_arrivals,
        )  # fmt: skip

    def again(client: Participant, update: Update) -> Sealed:
        return client.updates.protect(*method.outgoing(update, state), state.round)

    def present() -> Iterator[tuple[Participant, Update]]:
        pairs = zip(clients, updates, strict=True)
        return (pair for pair in pairs if pair[0].index not in setting.lost)

    unchanged = replace(state, round=state.round + 1)
    summing = setting.server.updates
    with Exchange("updates", summing, setting.opening, meter, state.round) as exchange:
        for client, update in present():
            exchange.upload(client, update, first)
        if not exchange.shares:
            return unchanged
        total = exchange.total()
        if len(exchange.shares) < setting.min_arrivals:
            return unchanged
        total = exchange.opened(total, present, again)
    meter.downloaded(len(total))
    with meter.phase("unprotect"):
        mean, weight = clients[0].updates.unprotect(total)
        scale = arrivals_scale(exchange.shares, len(clients))
        after = method.apply(state, mean, weight, masks, scale)
    share = largest_share(exchange.shares)
    meter.influence = method.influence(state, after, masks, share, scale)
    return after
