"""Plain FedAvg: float32 differences in the clear, averaged by number of samples."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from quancrypt_fl.errors import MethodError
from quancrypt_fl.method.roles import NOTHING_TO_SUM, Sealed, Tensors
from quancrypt_fl.method.uploads import check_alike, parsed

__all__ = ["PlainProtector", "PlainSummer"]

_WEIGHT = "total weight"


class PlainProtector:
    """A client's side: serializes, protects nothing."""

    def protect(self, tensors: Tensors, clips: Mapping[str, float], t: int) -> Sealed:
        """The tensors in safetensors format; ``clips`` is empty and ``t`` plays no part."""
        del clips, t
        return Sealed(save(dict(tensors)), ciphertexts=0)

    def quantized(self, tensors: Tensors, clips: Mapping[str, float], t: int) -> Tensors:
        """The tensors: nothing is rounded."""
        del clips, t
        return tensors

    def unprotect(self, data: bytes) -> tuple[dict[str, NDArray[np.float32]], int]:
        """The means and the total weight that the server wrote."""
        tensors = load(data)
        weight = int(tensors.pop(_WEIGHT)[0])
        return tensors, weight


class PlainSummer:
    """The server's side: sums in float64, in the order of arrival, and divides."""

    def __init__(self) -> None:
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._weight = 0

    def add(self, data: bytes, weight: int) -> None:
        """Check one upload and add it ``weight`` times.

        Raises
        ------
        MethodError
            If the bytes are not finite float32 tensors, or have other names or shapes than the
            ones before. The sum is then what it was.
        """
        tensors = parsed(data, np.float32)
        if _WEIGHT in tensors:
            raise MethodError(f"an upload has a tensor {_WEIGHT!r}, as only sums have")
        if self._weight:
            check_alike(tensors, self._sums)
        for name, tensor in tensors.items():
            scaled = tensor.astype(np.float64) * weight
            self._sums[name] = np.asarray(self._sums.get(name, 0.0) + scaled)
        self._weight += weight

    def result(self) -> bytes:
        """The weighted mean since the last call, float32, with the total weight."""
        if self._weight == 0:
            raise MethodError(NOTHING_TO_SUM)
        mean = {name: np.asarray(s / self._weight, np.float32) for name, s in self._sums.items()}
        data = save({**mean, _WEIGHT: np.array([self._weight], dtype=np.int64)})
        self._sums, self._weight = {}, 0
        return data
