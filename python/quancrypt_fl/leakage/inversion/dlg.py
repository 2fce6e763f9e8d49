"""Deep leakage from gradients: L-BFGS on the squared distance of gradients.

Zhu et al., NeurIPS 2019, equation 4, with the label inferred first (Zhao et al., iDLG, 2020):
``x* = argmin_x || grad(x, y) - g ||^2``.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from quancrypt_fl.leakage.gradients import gradient
from quancrypt_fl.leakage.inversion.sent import as_sent
from quancrypt_fl.leakage.inversion.target import Budget, Target

__all__ = ["invert_by_dlg"]

_HISTORY = 100
_STEPS = 20  # inner steps of one call of L-BFGS, as in the authors' code
_DONE = 1e-9  # relative squared distance


def invert_by_dlg(target: Target, budget: Budget) -> tuple[Tensor, dict[str, Any]]:
    """Images whose gradient is nearest to what is seen, of all restarts; ends early when found."""
    scale = sum(float(t.double().pow(2).sum()) for t in target.seen.tensors.values()) or 1.0
    best, best_loss, tried = None, math.inf, 0
    for start in target.starts(budget.restarts):
        tried += 1
        images, loss = _descend(target, start, budget.iterations, scale)
        if best is None or loss < best_loss:
            best, best_loss = images, loss
        if best_loss < _DONE:
            break
    assert best is not None
    return target.boxed(best), {"loss": best_loss, "restarts": tried}


def _descend(target: Target, start: Tensor, iterations: int, scale: float) -> tuple[Tensor, float]:
    images = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([images], lr=1.0, max_iter=_STEPS, history_size=_HISTORY)
    best, best_loss = start, math.inf

    def closure() -> Tensor:
        optimizer.zero_grad()
        found = gradient(target.network, images, target.labels, graph=True)
        sent = as_sent(found, target.network, target.seen)
        left = [(values - target.seen.tensors[name]).pow(2).sum() for name, values in sent.items()]
        loss = torch.stack(left).sum() / scale
        (images.grad,) = torch.autograd.grad(loss, images)
        return loss.detach()

    for _ in range(max(1, iterations // _STEPS)):
        before = images.detach().clone()
        loss = float(optimizer.step(closure))  # type: ignore[no-untyped-call]
        if not math.isfinite(loss):
            break
        if loss < best_loss:
            stuck = loss > best_loss * (1 - 1e-6)
            best, best_loss = before, loss
            if loss < _DONE or stuck:
                break
    return best.detach(), best_loss
