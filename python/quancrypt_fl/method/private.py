"""Updates as integers of bounded norm, to which noise is added before encryption.

One step ``gamma`` for all coordinates replaces clip bounds of single tensors: noise protects a
whole update, whose Euclidean norm is bounded, and clip bounds made from data would have to be paid
for. So nothing is reported and nothing but the update is sent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.errors import MethodError
from quancrypt_fl.method.fedavg import Clips
from quancrypt_fl.method.quancrypt import Layout, QuanCrypt
from quancrypt_fl.method.roles import GlobalState, Tensors, Update

__all__ = ["PrivateQuanCrypt", "bounded_integers"]

_TRIES = 64  # each succeeds with probability 0.39 or more; then coordinates are cut off instead


@dataclass(frozen=True, kw_only=True)
class PrivateQuanCrypt(QuanCrypt):
    """QuanCrypt-FL without statistics; a client's side clips, rounds and adds noise.

    Attributes
    ----------
    step
        ``gamma``: what one unit of an integer stands for.
    q_max
        Largest integer that is encrypted.
    """

    step: float
    q_max: int

    def must_agree(self, state: GlobalState) -> bool:
        """There is nothing to agree on."""
        del state
        return False

    def outgoing(self, update: Update, state: GlobalState) -> tuple[Tensors, Clips]:
        """The tensors as they are: what makes integers of them knows the bound of their norm."""
        del state
        return update.tensors, {}

    def incoming(
        self, mean: Tensors, weight: int, state: GlobalState
    ) -> tuple[Tensors, dict[str, float] | None]:
        """The mean; no bounds for the next round."""
        del weight, state
        return mean, None

    def upload_layout(self, shapes: Mapping[str, tuple[int, ...]], t: int) -> Layout:
        """Shape and clip bound of an upload's tensors: integers up to ``q_max``."""
        return self._kept_layout(shapes, t, float(self.q_max))

    def _next_bound(self, share: float) -> float | None:
        del share
        return None

    def bounds_of(self, state: GlobalState) -> dict[str, float]:
        """Largest value that an integer stands for, the same for all tensors."""
        return dict.fromkeys(state.weights, self.q_max * self.step)


def bounded_integers(
    tensors: Tensors, clip: float, step: float, norm: float, rng: np.random.Generator
) -> dict[str, NDArray[np.int64]]:
    """Round an update of norm at most ``clip`` to multiples of ``step``, norm at most ``norm``.

    Rounding is stochastic, and drawn anew until the integers' norm is within its bound
    (conditional rounding; Kairouz, Liu and Steinke, arXiv 2102.06387, section 4.1). Should that
    not happen in many draws, values are cut off towards zero, which cannot exceed it.

    Parameters
    ----------
    tensors
        The update; it is scaled down where its Euclidean norm is above ``clip``.
    clip, step
        ``C`` and ``gamma``.
    norm
        Largest Euclidean norm of the integers, above ``clip / step``.
    rng
        Of the rounding; privacy does not rest on it.

    Raises
    ------
    MethodError
        If the update holds NaN or infinity: local training diverged.
    """
    parts = [tensor.reshape(-1).astype(np.float64) for tensor in tensors.values()]
    values = np.concatenate(parts) if parts else np.zeros(0)
    length = float(np.linalg.norm(values))
    if not math.isfinite(length):
        raise MethodError("an update holds NaN or infinity: local training diverged")
    values *= min(1.0, clip / length if length > 0 else 1.0) / step
    limit, largest = math.floor(norm * norm), math.ceil(clip / step)
    for _ in range(_TRIES):
        rounded = _integers(np.floor(values + rng.random(values.size)), largest)
        if int(rounded @ rounded) <= limit:
            break
    else:
        rounded = _integers(np.trunc(values), largest)
        if int(rounded @ rounded) > limit:
            raise MethodError(f"norm is {norm}; allowed: above clip / step = {clip / step}")
    ends = np.cumsum([part.size for part in parts])[:-1]
    return {
        name: part.reshape(tensors[name].shape)
        for name, part in zip(tensors, np.split(rounded, ends), strict=True)
    }


def _integers(values: NDArray[np.float64], largest: int) -> NDArray[np.int64]:
    return np.clip(values, -largest, largest).astype(np.int64)
