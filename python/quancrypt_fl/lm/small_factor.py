"""The mode ``sb`` within LoRA's own layers: its B is a fixed matrix times a small square."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quancrypt_fl.lm.loading import ModelError

__all__ = ["SmallFactor", "orthonormal_factors"]

_OVERSAMPLING, _ITERATIONS = 8, 4  # of the randomised decomposition; four passes suffice (Halko)


class SmallFactor(nn.Module):
    """``lora_B``'s weight as ``left @ small``, of which only ``small`` is trained.

    Parameters
    ----------
    left
        Orthonormal columns, shape (out, rank).
    """

    left: Tensor

    def __init__(self, left: Tensor) -> None:
        super().__init__()
        self.register_buffer("left", left.clone())

    def forward(self, small: Tensor) -> Tensor:
        """From the square, shape (rank, rank), to the weight, shape (out, rank)."""
        return self.left @ small

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The square of which :meth:`forward` makes ``weight``, or what is nearest to it."""
        return self.left.T @ weight


def orthonormal_factors(weight: Tensor, rank: int, start: str, name: str) -> tuple[Tensor, Tensor]:
    """Frozen B (out, rank) and A (rank, in) for a weight of shape (out, in).

    Parameters
    ----------
    start
        ``"svd"``: the weight's first singular vectors, on both sides; ``"random"``: orthonormal
        vectors from torch's random state.
    name
        For the error's message.

    Raises
    ------
    ModelError
        If the rank is above that of any such matrix.
    """
    smaller = min(weight.shape)
    if rank > smaller:
        raise ModelError(
            f"rank = {rank} is above the {smaller} that {name} of shape {tuple(weight.shape)} "
            "allows with mode sb"
        )
    if start == "svd":
        wanted = min(smaller, rank + _OVERSAMPLING)
        left, _, right = torch.svd_lowrank(weight, q=wanted, niter=_ITERATIONS)
    else:
        left, _ = torch.linalg.qr(torch.randn(weight.shape[0], rank))
        right, _ = torch.linalg.qr(torch.randn(weight.shape[1], rank))
    return left[:, :rank].contiguous(), right[:, :rank].T.contiguous()
