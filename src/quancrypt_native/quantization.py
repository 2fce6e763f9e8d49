"""The quantizer on its own: what encryption applies, for plaintext comparisons."""

import math
import secrets
from typing import Any

import numpy as np
import numpy.typing as npt

from quancrypt_native import _core, arrays
from quancrypt_native._validate import choice, integer, positive
from quancrypt_native.errors import ParameterError
from quancrypt_native.layout import MAX_CLIP, MIN_CLIP, Layout, TensorSpec
from quancrypt_native.parameters import Parameters


def quantize(x: arrays.ArrayLike, clip: float, bits: int) -> npt.NDArray[np.int16]:
    """Integers ``round(clip(x, -c, c) * q_max / c)``, ties to even, as encryption computes them.

    Parameters
    ----------
    x
        float32 or float64, any shape; the arithmetic is that of the dtype.
    clip
        Bound ``c > 0``.
    bits
        2 to 16; ``q_max = 2**(bits-1) - 1``.

    Returns
    -------
    int16 array of the same shape, in ``[-q_max, q_max]``.
    """
    array = arrays.floats(x, None)
    bound = positive("clip", clip, MIN_CLIP, MAX_CLIP)
    q_max = 2 ** (integer("bits", bits, 2, 16) - 1) - 1
    fields, bad = _core.quantize(arrays.flat(array), bound, q_max)
    if bad >= 0:
        layout = Layout((TensorSpec("", array.shape, bound),), single=True, integers=False)
        raise not_finite(layout, bad)
    q = (fields.astype(np.int32) - q_max).astype(np.int16)
    return np.asarray(q.reshape(array.shape))


def quantize_update(
    x: arrays.ArrayLike,
    clip: Any,
    params: Parameters,
    *,
    rounding: str = "nearest",
    rng: np.random.Generator | None = None,
) -> Any:
    """The integers that :meth:`Encryptor.encrypt` encrypts, given the same arguments.

    For a plaintext twin of an encrypted run, and for what rounding left out of an update. With
    stochastic rounding the same generator state gives the same integers as in encryption.

    Parameters
    ----------
    x, clip, rounding, rng
        See :meth:`Encryptor.encrypt`.
    params
        Parameters of the packed encoding.

    Returns
    -------
    int16 array, or dict of them, of the shapes of ``x``, in ``[-q_max, q_max]``.
    """
    params.require_packed("quantize_update")
    values, bounds, layout = arrays.float_update(x, clip, clip_required=True)
    dither = dither_seed(rounding, rng)
    fields = _core.quantize_packed(params._core, arrays.segments(values, bounds), dither)
    if isinstance(fields, int):
        raise not_finite(layout, fields)
    q = (fields.astype(np.int32) - params.q_max).astype(np.int16)
    parts = np.split(q, np.cumsum([value.size for value in values])[:-1]) if values else []
    shaped = {
        tensor.name: part.reshape(tensor.shape)
        for tensor, part in zip(layout.tensors, parts, strict=True)
    }
    return shaped[""] if layout.single else shaped


def dither_seed(rounding: str, rng: np.random.Generator | None) -> bytes | None:
    """Seed of stochastic rounding, drawn from ``rng`` or the system; None for nearest."""
    choice("rounding", rounding, ("nearest", "stochastic"))
    if rounding == "nearest":
        if rng is not None:
            raise ParameterError("rng is given, but rounding is 'nearest'; allowed: 'stochastic'")
        return None
    if rng is None:
        return secrets.token_bytes(32)
    if not isinstance(rng, np.random.Generator):
        raise ParameterError(f"rng is a {type(rng).__name__}; allowed: numpy.random.Generator")
    return rng.bytes(32)


def not_finite(layout: Layout, position: int) -> ParameterError:
    """The error for the value at ``position`` of an update."""
    return ParameterError(f"{layout.locate(position)} is NaN or infinite; allowed: finite values")


def dequantize(q: Any, clip: float, bits: int) -> npt.NDArray[np.float32]:
    """float32 values ``q * c / q_max``; ``q``: any integer or float array (sums, means)."""
    array = arrays.as_numpy(q, "q")
    if array.dtype.kind not in "iuf":
        raise ParameterError(f"q has dtype {array.dtype}; allowed: integers or floats")
    bound = positive("clip", clip, MIN_CLIP, MAX_CLIP)
    q_max = 2 ** (integer("bits", bits, 2, 16) - 1) - 1
    return np.asarray(array.astype(np.float64) * (bound / q_max), dtype=np.float32)


def mean_clip_bound(x: arrays.ArrayLike, factor: float = 3.0) -> float:
    """Mean-based clip bound ``factor * mean(|x|)`` (QuanCrypt-FL, arXiv 2411.05260).

    0.0 for an all-zero array, which no encryption accepts as a bound: take a floor of your own.
    """
    array = arrays.floats(x, None)
    factor = positive("factor", factor, 1e-6, 1e6)
    if array.size == 0:
        raise ParameterError("x is empty: it has no mean")
    bound = factor * float(np.mean(np.abs(array), dtype=np.float64))
    if not math.isfinite(bound):
        raise ParameterError("x holds NaN or infinity; allowed: finite values")
    return bound
