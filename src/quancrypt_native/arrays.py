"""NumPy arrays and torch tensors of any shape -> flat contiguous memory, copied only if needed."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from quancrypt_native._validate import positive
from quancrypt_native.errors import ParameterError
from quancrypt_native.layout import (
    MAX_CLIP,
    MAX_TENSORS,
    MIN_CLIP,
    Layout,
    TensorSpec,
    is_utf8,
    tensor_label,
)

ArrayLike = Any
"""A NumPy array or scalar, or anything with ``__array__`` or torch's ``detach().numpy()``."""


def as_numpy(x: ArrayLike, name: str | None) -> npt.NDArray[Any]:
    """``x`` as a NumPy array, without a copy where its memory is reachable."""
    label = tensor_label(name)
    if isinstance(x, np.ma.MaskedArray):  # its hidden values would be encrypted with the rest
        raise ParameterError(f"{label} is a masked array; allowed: plain arrays, as of x.filled(0)")
    if isinstance(x, np.ndarray | np.generic):
        return np.asarray(x)
    if hasattr(x, "detach") and hasattr(x, "cpu"):  # a torch tensor, without importing torch
        try:
            return np.asarray(x.detach().cpu().numpy())
        except (TypeError, RuntimeError) as error:
            raise ParameterError(
                f"{label} is a torch tensor of dtype {x.dtype} that NumPy cannot hold ({error}); "
                "make it dense and cast it to float32 or float64"
            ) from None
    if hasattr(x, "__array__") and not isinstance(x, type):
        return np.asarray(x)
    allowed = "a NumPy array, a torch tensor or a dict of them"
    if name is not None:  # dicts are not nested
        allowed = "a NumPy array or a torch tensor"
    raise ParameterError(f"{label} is a {type(x).__name__}; allowed: {allowed}")


def floats(x: ArrayLike, name: str | None) -> npt.NDArray[Any]:
    """``x`` as a native, aligned float32 or float64 array of its own shape."""
    array = as_numpy(x, name)
    if array.dtype.kind != "f" or array.dtype.itemsize not in (4, 8):
        raise ParameterError(
            f"{tensor_label(name)} has dtype {array.dtype}; allowed: float32, float64"
        )
    native = np.dtype(np.float32 if array.dtype.itemsize == 4 else np.float64)
    # The core knows NumPy's own dtype objects only; equal ones come from files and byte orders.
    return array.astype(native, copy=False).view(native)


def integers(x: ArrayLike, name: str | None, q_max: int) -> npt.NDArray[np.uint16]:
    """Integers in ``[-q_max, q_max]`` as offset-binary fields of the same shape."""
    array = as_numpy(x, name)
    label = tensor_label(name)
    if array.dtype.kind not in "iu":
        raise ParameterError(f"{label} has dtype {array.dtype}; allowed: integers")
    outside = (array > q_max) | (array < -q_max)
    if outside.any():
        position = np.unravel_index(int(np.argmax(outside)), array.shape)
        raise ParameterError(
            f"{label} holds {array[position]} at {[int(i) for i in position]}; "
            f"allowed: {-q_max} to {q_max}"
        )
    return (array.astype(np.int32) + q_max).astype(np.uint16)


def flat(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """One-dimensional, C-ordered, contiguous, aligned; a view where possible."""
    if array.flags.c_contiguous and array.flags.aligned:
        return array.reshape(-1)
    return np.require(array.reshape(-1), requirements=["C", "A"])


def named(x: ArrayLike) -> tuple[dict[str | None, ArrayLike], bool]:
    """A mapping as a dict, or one bare array under the name None."""
    if not isinstance(x, Mapping):
        return {None: x}, True
    if len(x) > MAX_TENSORS:
        raise ParameterError(f"{len(x)} tensors are too many; allowed: {MAX_TENSORS}")
    for name in x:
        if not isinstance(name, str) or not is_utf8(name):
            raise ParameterError(f"a tensor is named {name!r}; allowed: strings of valid Unicode")
    return dict(x), False


def clip_bounds(clip: Any, names: list[str | None], required: bool) -> list[float | None]:
    """The clip bound of each tensor: one number for all, or a mapping with exactly the names."""
    if clip is None:
        if required:
            raise ParameterError("clip is missing: packed encoding needs a clip bound")
        return [None] * len(names)
    if not isinstance(clip, Mapping):
        bound = positive("clip", clip, MIN_CLIP, MAX_CLIP)
        return [bound] * len(names)
    for name in clip:
        if name not in names:
            raise ParameterError(f"clip names tensor '{name}', which is not in the update")
    bounds: list[float | None] = []
    for name in names:
        if name not in clip:
            which = "one array needs a number" if name is None else f"tensor '{name}' has none"
            raise ParameterError(f"clip is incomplete: {which}")
        bounds.append(positive(f"clip of tensor '{name}'", clip[name], MIN_CLIP, MAX_CLIP))
    return bounds


def layout_of(
    arrays: Mapping[str | None, npt.NDArray[Any]],
    bounds: list[float | None],
    *,
    single: bool,
    integer: bool,
) -> Layout:
    """The layout of arrays that were taken apart by :func:`named`."""
    tensors = tuple(
        TensorSpec("" if name is None else name, tuple(map(int, array.shape)), bound)
        for (name, array), bound in zip(arrays.items(), bounds, strict=True)
    )
    return Layout(tensors, single, integer)


def float_update(
    x: ArrayLike, clip: Any, *, clip_required: bool
) -> tuple[list[npt.NDArray[Any]], list[float | None], Layout]:
    """Arrays of floats, the clip bound of each, and their layout."""
    tensors, single = named(x)
    values = {name: floats(value, name) for name, value in tensors.items()}
    bounds = clip_bounds(clip, list(values), required=clip_required)
    return list(values.values()), bounds, layout_of(values, bounds, single=single, integer=False)


def segments(
    values: list[npt.NDArray[Any]], bounds: list[float | None]
) -> list[tuple[npt.NDArray[Any], float]]:
    """What the core packs: contiguous memory and its clip bound."""
    return [(flat(value), bound or 1.0) for value, bound in zip(values, bounds, strict=True)]
