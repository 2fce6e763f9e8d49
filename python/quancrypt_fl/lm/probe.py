"""``lora_error``: how far the average of factors is from the average of their products.

The federation averages what travels, and gets ``s B' A'`` of the averaged factors; what it should
get is ``s sum_k p_k B_k A_k``. The error is

    || s sum_k p_k B_k A_k - s B' A' ||_F / || s sum_k p_k B_k A_k ||_F

over all adapted weights together, of the factors as clients trained them: before clipping,
quantization and encryption, whose error is another matter. In the modes ``ffa``, ``sb`` and
``alternate`` it is zero but for rounding in float64.

Norms are measured on fixed Gaussian probes X: of a matrix M, ``E ||M X||^2 = columns * ||M||^2``.
So no product is ever formed, and no client's factors are kept: each client adds its ``B (A X)``
and its factors to sums as soon as it has trained. A deployment could not do that: nobody there
sees the factors of one client.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.lm.adapters import Adapter, Factors
from quancrypt_fl.seeds import generator

__all__ = ["COLUMNS", "FactorProbe"]

COLUMNS = 16
"""Probe vectors per weight: the norm of one is known to about 1 part in 6, of many far better."""


class FactorProbe:
    """The error of one round after the other.

    Parameters
    ----------
    adapter
        Whose factors are looked at.
    seed
        Decides the probes.
    """

    def __init__(self, adapter: Adapter, seed: int) -> None:
        self._adapter = adapter
        self._seed = seed
        self._parts: Mapping[int, float] = {}
        self._products: dict[str, NDArray[np.float64]] = {}
        self._means: dict[str, NDArray[np.float64]] = {}

    def begin(self, parts: Mapping[int, float]) -> None:
        """Begin a round, of clients with these parts of the mean; others do not count."""
        self._parts = parts
        self._products, self._means = {}, {}

    def add(self, client: int, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """Add what a client has trained."""
        part = self._parts.get(client, 0.0)
        if part == 0.0:
            return
        for number, factors in enumerate(self._adapter.factors(weights)):
            _add(self._products, factors.layer, part * self._probed(number, factors))
        for name, tensor in weights.items():
            if ".lora_" in name:
                _add(self._means, name, part * tensor.astype(np.float64))

    def error(self) -> float | None:
        """The relative error of the round, None if no client's update arrived."""
        if not self._products:
            return None
        wrong = wanted = 0.0
        for number, factors in enumerate(self._adapter.factors(self._means)):
            product = self._products[factors.layer]
            wrong += float(np.square(product - self._probed(number, factors)).sum())
            wanted += float(np.square(product).sum())
        return math.sqrt(wrong / wanted) if wanted > 0 else 0.0

    def _probed(self, number: int, factors: Factors) -> NDArray[np.float64]:
        """``B (A X)``, shape (out, :data:`COLUMNS`)."""
        rng = generator(self._seed, "lora-error", number)
        product: NDArray[np.float64] = factors.b @ (
            factors.a @ rng.standard_normal((factors.a.shape[1], COLUMNS))
        )
        return product


def _add(sums: dict[str, NDArray[np.float64]], name: str, tensor: NDArray[np.float64]) -> None:
    sums[name] = sums[name] + tensor if name in sums else tensor
