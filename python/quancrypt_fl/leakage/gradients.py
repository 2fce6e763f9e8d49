"""The update of a client, and what an attacker computes of a guess in the same way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = [
    "WEIGHT_DECAY",
    "Update",
    "batch_statistics",
    "gradient",
    "local_difference",
    "mean_of",
    "update_of",
]

WEIGHT_DECAY = 1e-4
"""Of clients' local epochs, which everybody knows."""

Update = Mapping[str, Tensor]
"""Tensors by name: gradients by the names of parameters, and of every batch norm ``NAME.mean`` and
``NAME.var``, the statistics of the batch. The exchanged running statistics give these away: with
momentum 0.1, ``new = 0.9 old + 0.1 batch``."""


def gradient(
    network: nn.Module, images: Tensor, labels: Tensor, *, graph: bool = False
) -> dict[str, Tensor]:
    """Gradient of the mean cross-entropy by every parameter.

    Parameters
    ----------
    images, labels
        Shapes (batch, channels, height, width) and (batch,).
    graph
        Keep what is needed to differentiate the gradient by ``images``.
    """
    loss = nn.functional.cross_entropy(network(images), labels)
    names, parameters = zip(*network.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, create_graph=graph)
    return dict(zip(names, found, strict=True))


@contextmanager
def batch_statistics(network: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Collects mean and variance of what every batch norm gets that normalises by the batch."""
    found: dict[str, Tensor] = {}
    handles = []

    def hook(name: str) -> object:
        def collect(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            del module
            found[f"{name}.mean"] = inputs[0].mean(dim=(0, 2, 3))
            found[f"{name}.var"] = inputs[0].var(dim=(0, 2, 3), unbiased=False)

        return collect

    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d) and module.training:
            handles.append(module.register_forward_pre_hook(hook(name)))  # type: ignore[arg-type]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def update_of(network: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """What one client sends after one step of SGD, divided by minus the learning rate."""
    with batch_statistics(network) as statistics:
        found = gradient(network, images, labels)
    return {name: t.detach() for name, t in {**found, **statistics}.items()}


def local_difference(
    network: nn.Module, images: Tensor, labels: Tensor, epochs: int, lr: float = 1e-3
) -> dict[str, Tensor]:
    """``w_t - w_i`` after ``epochs`` steps of Adam on the client's one batch, as in training.

    The sign is that of a gradient. Adam's first step is ``lr`` times the gradient's sign; weight
    decay 1e-4. The network is left as it was.
    """
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizer = torch.optim.Adam(network.parameters(), lr=lr, weight_decay=WEIGHT_DECAY)
    for _ in range(epochs):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    difference = {n: before[n] - p.detach() for n, p in network.named_parameters()}
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(before[name])
    network.zero_grad(set_to_none=True)
    return difference


def mean_of(updates: Sequence[Update]) -> dict[str, Tensor]:
    """The mean of the updates of several clients, tensor by tensor."""
    return {name: torch.stack([u[name] for u in updates]).mean(dim=0) for name in updates[0]}
