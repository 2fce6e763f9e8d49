"""A client's own steps of a round (:mod:`.rounds`): what it has to send, and how it leaves."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.method.fedavg import FedAvg
from quancrypt_fl.method.pruning import Mask, scatter, select
from quancrypt_fl.method.roles import GlobalState, Sealed, Tensors, Update, Uploader
from quancrypt_fl.method.weighting import Share

__all__ = ["form_update", "protect"]


def form_update(
    client: Uploader,
    trained: Tensors,
    share: Share,
    state: GlobalState,
    method: FedAvg,
    masks: Mapping[str, Mask],
) -> Update:
    """Steps 3 and 4: what a client that has trained has to send."""
    whole: dict[str, NDArray[np.float32]] = {}
    for name in masks:
        before, after = state.weights[name], trained[name]
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
        left_out = {
            name: whole - scatter(sent[name], masks[name]) for name, whole in update.whole.items()
        }
        client.memory.residual = {**client.memory.residual, **left_out}
    return upload
