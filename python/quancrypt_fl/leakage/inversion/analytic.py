"""Analytic recovery of fully connected layers, and batch-norm statistics, as further evidence.

The gradients of a linear layer ``z = W h + b`` at one sample are ``dW = dz h^T`` and ``db = dz``:
every row of ``dW`` is ``h`` times its entry of ``db`` (Phong et al. 2018; Geiping et al. 2020,
proposition 3.1). Where the layer comes first, ``h`` is the image. Where convolutions come before
it, an image is sought whose features are ``h``. Statistics of a batch norm, which the exchanged
running statistics give away, are matched too (Yin et al., GradInversion, CVPR 2021, equation 11).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from quancrypt_fl.leakage.gradients import batch_statistics, gradient
from quancrypt_fl.leakage.inversion.cosine import cosine_distance, search, total_variation
from quancrypt_fl.leakage.inversion.sent import as_sent
from quancrypt_fl.leakage.inversion.target import Budget, Target
from quancrypt_fl.leakage.networks import first_linear
from quancrypt_fl.leakage.views import Observation

__all__ = ["invert_analytically", "layer_input"]

_STATISTICS_WEIGHT = 0.1


def layer_input(seen: Observation, name: str) -> tuple[Tensor, Tensor]:
    """Input of the linear layer ``name`` at one sample, by least squares over its rows.

    ``h_j = sum_i db_i dW_ij / sum_i db_i^2``, over entries that were sent and are not clipped.

    Returns
    -------
    features, known
        Shape (inputs,) both; False where no entry tells anything.
    """
    weight, bias = seen.tensors[f"{name}.weight"], seen.tensors[f"{name}.bias"]
    known = torch.ones_like(weight)
    for part, values in ((f"{name}.weight", weight), (f"{name}.bias", bias)):
        if part in seen.bounds:
            inside = (values.abs() < seen.bounds[part] * (1 - 1e-4)).to(weight.dtype)
            if not bool(inside.any()):
                inside = torch.ones_like(values)
            known = known * (inside if inside.ndim > 1 else inside[:, None])
        if part in seen.seen and values.ndim > 1:
            known = known * seen.seen[part]
    above = (known * bias[:, None] * weight).sum(dim=0)
    below = (known * bias[:, None].pow(2)).sum(dim=0)
    return above / below.clamp(min=1e-30), below > 0


def invert_analytically(target: Target, budget: Budget) -> tuple[Tensor, dict[str, Any]]:
    """Images by all evidence: the first linear layer's input, statistics, and the gradient.

    For a batch of several images, the sum of their features is no image's: the gradient and
    statistics alone count.
    """
    name, layer = first_linear(target.network)
    one = len(target.labels) == 1
    features, known = layer_input(target.seen, name)
    if one and features.numel() == math.prod(target.shape) and _is_first(target.network, layer):
        middle = ((target.low + target.high) / 2).expand(target.shape)
        image = torch.where(known.reshape(target.shape), features.reshape(target.shape), middle)
        return target.boxed(image[None]), {"loss": 0.0, "restarts": 1}
    size = features[known].pow(2).mean().clamp(min=1e-20)
    one = one and bool(known.any()) and not target.seen.epochs  # signs give no features

    def loss(images: Tensor) -> Tensor:
        collected: list[Tensor] = []
        handle = layer.register_forward_pre_hook(lambda _, given: collected.append(given[0]))
        try:
            with batch_statistics(target.network) as statistics:
                found = gradient(target.network, images, target.labels, graph=True)
        finally:
            handle.remove()
        sent = as_sent(found, target.network, target.seen)
        total = cosine_distance(sent, target.seen.tensors) + budget.tv * total_variation(images)
        if one:
            total = total + (collected[0][0] - features)[known].pow(2).mean() / size
        for key, value in statistics.items():
            if len(target.labels) > 1:  # several clients' statistics are not those of one batch
                break
            if key not in target.seen.tensors:  # after local epochs they are those of many batches
                continue
            seen = target.seen.tensors[key]
            scale = seen.pow(2).mean().clamp(min=1e-20)
            total = total + _STATISTICS_WEIGHT * (value - seen).pow(2).mean() / scale
        return total

    return search(target, budget, loss)


def _is_first(network: nn.Module, layer: nn.Linear) -> bool:
    with_weights = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    return with_weights[0] is layer
