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
9. Clients decrypt the sum, form the mean, and update: ``w_{t+1} = (1 - lambda) * w_t + lambda *
   (w_t + mean)`` (:mod:`.smoothing`); they may prune the result.
10. The new weights are evaluated (not here).

:func:`federated_round` runs them where all parts are in reach, as in a simulation. A deployment
calls the same pieces where they belong. What is particular to a method stands in
:class:`~quancrypt_fl.method.quancrypt.QuanCrypt`, what all share in
:class:`~quancrypt_fl.method.fedavg.FedAvg`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.method.fedavg import FedAvg
from quancrypt_fl.method.meter import RoundMeter
from quancrypt_fl.method.pruning import Mask, scatter, select
from quancrypt_fl.method.roles import (
    Coordinator,
    GlobalState,
    Participant,
    Sealed,
    Tensors,
    Update,
    Uploader,
)
from quancrypt_fl.method.weighting import Share

__all__ = [
    "Sealed",
    "Tensors",
    "arrivals_scale",
    "federated_round",
    "form_update",
    "in_memory",
    "local_update",
    "protect",
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
        Holds all updates where clients have to agree on bounds between training and upload. In all
        other rounds updates are made, sent and added one by one: one is in memory at a time.
    """
    masks = method.masks(state)
    shares = method.shares([client.samples for client in clients])
    made = (
        local_update(client, share, state, method, masks, meter)
        for client, share in zip(clients, shares, strict=True)
    )
    if not method.must_agree(state):
        return _sum_up(state, clients, made, server, method, masks, meter, lost, min_arrivals)
    with hold(made) as updates:
        bounds = _agree_on_bounds(state, clients, updates, server, method, meter)
        state = replace(state, bounds=bounds)
        return _sum_up(state, clients, updates, server, method, masks, meter, lost, min_arrivals)


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


def form_update(
    client: Uploader,
    trained: Tensors,
    share: Share,
    state: GlobalState,
    method: FedAvg,
    masks: Mapping[str, Mask],
) -> Update:
    """What a client that has trained has to send."""
    whole: dict[str, NDArray[np.float32]] = {}
    for name, before in state.weights.items():
        after = trained[name]
        tensor = after if method.update == "weights" else after - before
        if share.scale != 1.0:
            tensor = tensor * np.float32(share.scale)
        if name in client.memory.residual:
            tensor = tensor + client.memory.residual[name]
        whole[name] = tensor
    prepared = method.prepare(whole, state, client.index)
    tensors = {name: select(tensor, masks[name]) for name, tensor in prepared.items()}
    return Update(tensors, share, whole if method.error_feedback else None)


def protect(
    client: Uploader,
    update: Update,
    state: GlobalState,
    method: FedAvg,
    masks: Mapping[str, Mask],
) -> Sealed:
    """Steps 5 to 7: the update as the client uploads it. What it leaves out, the client keeps."""
    tensors, clips = method.outgoing(update, state)
    upload = client.updates.protect(tensors, clips, state.round)
    if update.whole is not None:
        sent = method.sent(client.updates.quantized(tensors, clips, state.round), state)
        client.memory.residual = {
            name: whole - scatter(sent[name], masks[name]) for name, whole in update.whole.items()
        }
    return upload


def _agree_on_bounds(
    state: GlobalState,
    clients: Sequence[Participant],
    updates: Iterable[Update],
    server: Coordinator,
    method: FedAvg,
    meter: RoundMeter,
) -> dict[str, float]:
    """The exchange of reports alone that precedes the upload of updates."""
    for client, update in zip(clients, updates, strict=True):
        with meter.phase("protect"):
            upload = client.reports.protect(*method.report(update), state.round)
        meter.reported(len(upload.data), upload.ciphertexts)
        with meter.phase("aggregate"):
            server.reports.add(upload.data, update.share.weight)
    with meter.phase("aggregate"):
        total = server.reports.result()
    meter.downloaded(len(total))
    with meter.phase("unprotect"):
        return method.agreed(*clients[0].reports.unprotect(total))


def _sum_up(
    state: GlobalState,
    clients: Sequence[Participant],
    updates: Iterable[Update],
    server: Coordinator,
    method: FedAvg,
    masks: Mapping[str, Mask],
    meter: RoundMeter,
    lost: Collection[int],
    min_arrivals: int,
) -> GlobalState:
    """Steps 5 to 9. If too few updates arrive, the round leaves the weights as they were."""
    arrived: list[Share] = []
    for client, update in zip(clients, updates, strict=True):
        if client.index in lost:
            continue
        with meter.phase("protect"):
            upload = protect(client, update, state, method, masks)
        meter.uploaded(len(upload.data), upload.ciphertexts)
        with meter.phase("aggregate"):
            server.updates.add(upload.data, update.share.weight)
        arrived.append(update.share)
    if not arrived:
        return replace(state, round=state.round + 1)
    with meter.phase("aggregate"):
        total = server.updates.result()
    if len(arrived) < min_arrivals:
        return replace(state, round=state.round + 1)
    meter.downloaded(len(total))
    with meter.phase("unprotect"):
        mean, weight = clients[0].updates.unprotect(total)
        return method.apply(state, mean, weight, masks, arrivals_scale(arrived, len(clients)))


def arrivals_scale(arrived: Sequence[Share], participants: int) -> float:
    """What undoes that the shares of lost clients are missing from a mean of scaled updates."""
    if len(arrived) == participants:
        return 1.0
    return sum(share.weight for share in arrived) / sum(s.weight * s.scale for s in arrived)
