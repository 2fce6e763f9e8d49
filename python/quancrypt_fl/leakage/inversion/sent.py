"""A guess's gradient as it would arrive: the attacker knows what is done to updates.

Adam's first step is ``lr * r / (|r| + eps)`` with ``r = g + decay * w``: the sign of the gradient,
whose derivative is 0. As long as steps stay small the gradient hardly turns, and further steps go
the same way. An attacker who knows this compares signs, and puts ``tanh(r / s)`` for the sign of a
guess's gradient, which can be descended on (after the surrogate gradients of networks with binary
weights; Hubara et al., NeurIPS 2016).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from quancrypt_fl.leakage.gradients import WEIGHT_DECAY, Update
from quancrypt_fl.leakage.views import Observation

__all__ = ["as_sent"]

_SOFTNESS = 0.1  # s in root mean squares of r: smaller ones are nearer to a sign, and flatter
_AT_BOUND = 1 - 1e-4  # of a clip bound: rounding moves clipped values by less


def as_sent(found: Update, network: nn.Module, seen: Observation) -> Mapping[str, Tensor]:
    """What is done to updates, done to a guess's gradient.

    Local epochs take the sign; a bound of the L2 norm scales; what was not sent is 0; and a value
    that was clipped may be larger in truth, so that a guess's beyond it is as good as equal.

    Parameters
    ----------
    found
        The gradient of a guess, by name.
    network
        The global model, from whose weights local epochs start.
    seen
        What it is to be compared with.
    """
    if seen.epochs:
        found = _signs(found, dict(network.named_parameters()), seen)
    if seen.norm is not None:
        norm = torch.stack([values.pow(2).sum() for values in found.values()]).sum().sqrt()
        scale = seen.norm / norm.clamp(min=seen.norm)
        found = {name: values * scale for name, values in found.items()}
    sent = {}
    for name, values in found.items():
        target, shown = seen.tensors[name], values
        if name in seen.bounds:
            clipped = target.abs() >= seen.bounds[name] * _AT_BOUND
            beyond = clipped & (values * target.sign() > target.abs())
            shown = torch.where(beyond, target, shown)
        if name in seen.seen:
            shown = shown * seen.seen[name]
        sent[name] = shown
    return sent


def _signs(found: Update, weights: Mapping[str, Tensor], seen: Observation) -> dict[str, Tensor]:
    """Smooth signs, as large as the values that were sent are on average."""
    signs = {}
    for name, gradient in found.items():
        raw = gradient + WEIGHT_DECAY * weights[name].detach()
        softness = _SOFTNESS * raw.detach().pow(2).mean().sqrt().clamp(min=1e-20)
        sent = seen.tensors[name].abs()
        kept = seen.seen[name].sum() if name in seen.seen else sent.new_tensor(sent.numel())
        signs[name] = torch.tanh(raw / softness) * (sent.sum() / kept.clamp(min=1))
    return signs
