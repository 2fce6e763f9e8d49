"""Discrete Gaussian noise of the OpenDP library.

OpenDP samples exactly, with rational arithmetic (Canonne, Kamath and Steinke, arXiv 2004.00010),
from the randomness of the operating system: no seed, no floating-point noise.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.baselines.envelope import required

__all__ = ["Noise", "discrete_gaussian", "sampler_name"]

Noise = Callable[[int], NDArray[np.int64]]
"""From a number of values to as many integers of noise, one-dimensional."""


def discrete_gaussian(scale: float) -> Noise:
    """Noise with ``P(x)`` proportional to ``exp(-x^2 / (2 scale^2))`` on all integers.

    Raises
    ------
    MethodError
        If OpenDP is not installed.
    """
    (library,) = required("opendp.prelude", extra="privacy")
    library.enable_features("contrib")
    domain = library.vector_domain(library.atom_domain(T="i64"))
    measurement = library.m.make_gaussian(domain, library.l2_distance(T=float), scale=scale)

    def draw(values: int) -> NDArray[np.int64]:
        return np.asarray(measurement([0] * values), dtype=np.int64).reshape(values)

    return draw


def sampler_name() -> str:
    """The sampler and its version, for a receipt."""
    (metadata,) = required("importlib.metadata", extra="privacy")
    return f"OpenDP {metadata.version('opendp')}, randomness of the operating system"
