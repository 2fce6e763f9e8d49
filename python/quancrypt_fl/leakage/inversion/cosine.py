"""Inverting gradients by direction: cosine distance and total variation, signed Adam.

Geiping et al., NeurIPS 2020, equation 4:
``x* = argmin_x 1 - <grad(x, y), g> / (|grad(x, y)| |g|) + tv * TV(x)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from quancrypt_fl.leakage.gradients import Update, gradient
from quancrypt_fl.leakage.inversion.sent import as_sent
from quancrypt_fl.leakage.inversion.target import Budget, Target

__all__ = ["cosine_distance", "invert_by_cosine", "search", "total_variation"]

_LR = 0.1
_DROPS = (3 / 8, 5 / 8, 7 / 8)  # of the iterations: there the step falls to a tenth

Loss = Callable[[Tensor], Tensor]


def invert_by_cosine(target: Target, budget: Budget) -> tuple[Tensor, dict[str, Any]]:
    """Images whose gradient points where the seen one does, of all restarts."""

    def loss(images: Tensor) -> Tensor:
        found = gradient(target.network, images, target.labels, graph=True)
        distance = cosine_distance(as_sent(found, target.network, target.seen), target.seen.tensors)
        return distance + budget.tv * total_variation(images)

    return search(target, budget, loss)


def cosine_distance(sent: Update, seen: Update) -> Tensor:
    """``1 - cos`` of the angle between all parameters' gradients, as they are sent."""
    inner = [(values * seen[name]).sum() for name, values in sent.items()]
    own = [values.pow(2).sum() for values in sent.values()]
    other = [seen[name].pow(2).sum() for name in sent]
    norms = torch.stack(own).sum().sqrt() * torch.stack(other).sum().sqrt()
    return 1 - torch.stack(inner).sum() / norms.clamp(min=1e-20)


def total_variation(images: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels, down and across."""
    down = (images[..., 1:, :] - images[..., :-1, :]).abs().mean()
    return down + (images[..., :, 1:] - images[..., :, :-1]).abs().mean()


def search(target: Target, budget: Budget, loss: Loss) -> tuple[Tensor, dict[str, Any]]:
    """Adam on the sign of the gradient, within the range of a pixel; the best of all restarts."""
    best, best_loss = None, math.inf
    drops = [int(budget.iterations * share) for share in _DROPS]
    for start in target.starts(budget.restarts):
        images = target.boxed(start).requires_grad_()
        optimizer = torch.optim.Adam([images], lr=_LR)
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, drops, gamma=0.1)
        value = math.inf
        for _ in range(budget.iterations):
            optimizer.zero_grad()
            now = loss(images)
            (slope,) = torch.autograd.grad(now, images)
            images.grad = slope.sign()
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                images.copy_(target.boxed(images))
            value = now.item()
        if best is None or value < best_loss:
            best, best_loss = images.detach(), value
    assert best is not None
    return best, {"loss": best_loss, "restarts": budget.restarts}
