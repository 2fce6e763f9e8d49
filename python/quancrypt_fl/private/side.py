"""A client's side that adds noise between quantization and encryption."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.errors import MethodError
from quancrypt_fl.method.private import bounded_integers
from quancrypt_fl.method.roles import ClientSide, Sealed, Tensors
from quancrypt_fl.private.accounting import Mechanism
from quancrypt_fl.private.noise import Noise

__all__ = ["NoisySide"]


class NoisySide:
    """Clips an update as a whole, makes integers of it, adds noise, and has them encrypted.

    Parameters
    ----------
    inner
        Encrypts integers and opens sums: a tensor with the clip bound ``q_max`` passes its
        quantizer unchanged, as it rounds to nearest.
    mechanism
        The noise of the run.
    rounding
        From a round to the generator of stochastic rounding; privacy does not rest on it.
    noise
        Gives the noise, from the randomness of the operating system.
    """

    def __init__(
        self,
        inner: ClientSide,
        mechanism: Mechanism,
        rounding: Callable[[int], np.random.Generator],
        noise: Noise,
    ) -> None:
        self._inner = inner
        self._mechanism = mechanism
        self._rounding = rounding
        self._noise = noise

    def protect(self, tensors: Tensors, clips: Mapping[str, float], t: int) -> Sealed:
        """Clip, round, add noise, encrypt; ``clips`` is empty. Every call draws fresh noise."""
        del clips
        mechanism = self._mechanism
        if sum(tensor.size for tensor in tensors.values()) > mechanism.values:
            raise MethodError(
                f"an update of more than the {mechanism.values} values that noise is made for"
            )
        integers = bounded_integers(
            tensors, mechanism.clip, mechanism.step, mechanism.norm, self._rounding(t)
        )
        noisy = {name: self._noised(integer) for name, integer in integers.items()}
        return self._inner.protect(noisy, dict.fromkeys(noisy, float(mechanism.q_max)), t)

    def quantized(self, tensors: Tensors, clips: Mapping[str, float], t: int) -> Tensors:
        """Refused: what a client carries over from one round to the next must not hold noise."""
        raise MethodError("updates with noise are not carried over: error_feedback is not allowed")

    def unprotect(self, data: bytes) -> tuple[dict[str, NDArray[np.float32]], int]:
        """Means in the units of weights, and the total weight."""
        mean, weight = self._inner.unprotect(data)
        step = np.float32(self._mechanism.step)
        return {name: tensor * step for name, tensor in mean.items()}, weight

    def _noised(self, integers: NDArray[np.int64]) -> NDArray[np.float32]:
        """Integers below 2^15 in float32, exactly."""
        q_max = self._mechanism.q_max
        noisy = integers + self._noise(integers.size).reshape(integers.shape)
        return np.asarray(np.clip(noisy, -q_max, q_max), dtype=np.float32)
