"""What every inversion starts from, and what it has in common with the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from quancrypt_fl.leakage.networks import last_linear
from quancrypt_fl.leakage.views import Observation

__all__ = ["Attack", "Budget", "Target", "inferred_labels"]

Shape = tuple[int, int, int]

_NOISE_IMAGES = 64


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long an attack may go on.

    Attributes
    ----------
    restarts
        Starting points, of which the one with the smallest loss counts.
    iterations
        Steps from each of them.
    tv
        Weight of the total variation, where the attack has one.
    """

    restarts: int = 1
    iterations: int = 100
    tv: float = 0.0


@dataclass(frozen=True)
class Target:
    """One thing to invert.

    Attributes
    ----------
    network
        The global model, which the attacker knows.
    seen
        What it sees of the update.
    labels
        Labels of the batch, inferred by the attacker, shape (images,).
    low, high
        Smallest and largest value of a pixel as the network gets it, shape (channels, 1, 1).
    shape
        (channels, height, width).
    seed
        Decides the starting points.
    """

    network: nn.Module
    seen: Observation
    labels: Tensor
    low: Tensor
    high: Tensor
    shape: Shape
    seed: int

    def starts(self, restarts: int) -> Iterator[Tensor]:
        """Starting points: normal noise around the middle of the range of a pixel."""
        like = self.low
        rng = torch.Generator().manual_seed(self.seed)
        middle, spread = (self.low + self.high) / 2, (self.high - self.low) / 4
        for _ in range(restarts):
            noise = torch.randn((len(self.labels), *self.shape), generator=rng)
            yield middle + spread * noise.to(like.device, like.dtype)

    def boxed(self, images: Tensor) -> Tensor:
        """Pixels limited to their range."""
        return torch.minimum(torch.maximum(images, self.low), self.high)


Attack = Callable[[Target, Budget], tuple[Tensor, dict[str, Any]]]
"""From a target to images (images, channels, height, width) and facts about the search."""


def inferred_labels(
    network: nn.Module, seen: Observation, images: int, low: Tensor, high: Tensor, shape: Shape
) -> Tensor:
    """Labels of a batch, by the gradient of the last layer, shape (images,).

    For one image, row ``c`` of the weights' gradient is ``(p_c - y_c) h``, and its mean is smallest
    for the label, as features ``h`` after a sigmoid or ReLU are not negative (Zhao et al., iDLG,
    2020). For more, ``db_c = mean(p_c) - n_c / images`` of the biases: ``n_c / images`` is
    estimated with the mean probabilities that the network gives to images of noise, and rounded
    by largest remainders.

    Parameters
    ----------
    network, seen, low, high, shape
        See :class:`Target`.
    images
        How many.
    """
    name, _ = last_linear(network)
    if images == 1:
        rows = seen.tensors[f"{name}.weight"].detach().double()
        sent = seen.seen.get(f"{name}.weight", torch.ones_like(rows)).sum(dim=1)
        return (rows.sum(dim=1) / sent.clamp(min=1)).argmin().reshape(1).cpu()
    slope = seen.tensors[f"{name}.bias"].detach().double().cpu()
    # With fresh weights, outputs depend little on the image: those of noise serve.
    rng = torch.Generator().manual_seed(0)
    noise = torch.rand((_NOISE_IMAGES, *shape), generator=rng).to(low.device, low.dtype)
    with torch.no_grad():
        scores = torch.cat([network((low + one * (high - low))[None]) for one in noise])
    shares = (scores.double().softmax(dim=1).mean(dim=0).cpu() - slope).clamp(min=0)
    shares = shares / shares.sum().clamp(min=1e-12) * images
    counts = shares.floor()
    rest = int(images - counts.sum())
    counts[(shares - counts).argsort(descending=True)[:rest]] += 1
    return torch.repeat_interleave(torch.arange(len(counts)), counts.long())
