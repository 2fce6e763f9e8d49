"""Which tensors an encrypted update holds: names, shapes and clip bounds, all public."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Self

from quancrypt_native.errors import ParameterError, WireFormatError

MAX_TENSORS = 2**18
MAX_DIMENSIONS = 32
MAX_VALUES = 2**44
MIN_CLIP = 1e-30
MAX_CLIP = 1e30


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor of an update; ``clip`` is None where values are not clipped."""

    name: str
    shape: tuple[int, ...]
    clip: float | None

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Layout:
    """The tensors in their order; ``single`` marks an update made from one bare array."""

    tensors: tuple[TensorSpec, ...]
    single: bool
    integers: bool

    @property
    def values(self) -> int:
        """Number of values in all tensors."""
        return sum(tensor.size for tensor in self.tensors)

    def locate(self, number: int) -> str:
        """Where value ``number`` stands, for messages: ``'conv.weight'[3, 1]``."""
        for tensor in self.tensors:
            if number < tensor.size:
                index = []
                for length in reversed(tensor.shape):
                    number, position = divmod(number, length)
                    index.append(position)
                place = ", ".join(map(str, reversed(index)))
                return f"x[{place}]" if self.single else f"{shown(tensor.name)}[{place}]"
            number -= tensor.size
        raise IndexError(number)

    def require_same(self, other: "Layout") -> None:
        """Raise :class:`ParameterError` naming the first tensor that differs."""
        if self == other:
            return
        if self.integers != other.integers:
            raise ParameterError("integer and float updates do not add up")
        if self.single != other.single:
            raise ParameterError(
                "an update of one array and an update of named tensors do not add up"
            )
        for mine, theirs in zip_longest(self.tensors, other.tensors):
            if mine == theirs:
                continue
            if mine is None:
                raise ParameterError(f"{tensor_label(theirs.name)} is not in the sum so far")
            if theirs is None:
                raise ParameterError(f"{tensor_label(mine.name)} is missing")
            if mine.name != theirs.name:
                raise ParameterError(
                    f"{tensor_label(theirs.name)} stands where {shown(mine.name)} is expected"
                )
            label = "the array" if self.single else tensor_label(mine.name)
            if mine.shape != theirs.shape:
                raise ParameterError(f"{label} has shape {theirs.shape}; expected {mine.shape}")
            raise ParameterError(f"{label} has clip bound {theirs.clip}; expected {mine.clip}")

    def to_header(self) -> list[Any]:
        """As JSON values."""
        return [[tensor.name, list(tensor.shape), tensor.clip] for tensor in self.tensors]

    @classmethod
    def from_header(cls, items: Iterable[Any], *, single: bool, integers: bool) -> Self:
        """Read and validate :meth:`to_header`'s value."""
        tensors = []
        names = set()
        for position, item in enumerate(items):
            if not (isinstance(item, list) and len(item) == 3):
                raise WireFormatError(f"tensor {position} is not [name, shape, clip]")
            name, shape, clip = item
            if not isinstance(name, str) or name in names or not is_utf8(name):
                raise WireFormatError(f"tensor {position} has no name of its own")
            names.add(name)
            if not _is_shape(shape):
                raise WireFormatError(f"tensor {position} has no valid shape")
            if clip is not None and not (
                isinstance(clip, float) and MIN_CLIP <= clip <= MAX_CLIP and not integers
            ):
                raise WireFormatError(f"tensor {position} has no valid clip bound")
            tensors.append(TensorSpec(name, tuple(shape), clip))
        layout = cls(tuple(tensors), single, integers)
        if single and len(tensors) != 1:
            raise WireFormatError(f"a single array with {len(tensors)} tensors")
        if single and tensors[0].name:
            raise WireFormatError(f"a single array named '{tensors[0].name[:60]}'")
        if layout.values > MAX_VALUES:
            raise WireFormatError(f"{layout.values} values are too many; allowed: {MAX_VALUES}")
        return layout


def _is_shape(shape: Any) -> bool:
    if not (isinstance(shape, list) and len(shape) <= MAX_DIMENSIONS):
        return False
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in shape):
        return False
    # NumPy refuses even empty arrays whose other dimensions are huge.
    return bool(math.prod(n for n in shape if n > 0) <= MAX_VALUES)


def is_utf8(name: str) -> bool:
    """Whether every reader of the wire format can hold the name: no lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def tensor_label(name: str | None) -> str:
    """How messages call a tensor."""
    return "x" if name is None else f"tensor {shown(name)}"


def shown(name: str) -> str:
    """A name for messages: quoted, with control characters escaped, and not too long."""
    return repr(name if len(name) <= 200 else name[:197] + "...")


def shapes_of(tensors: Sequence[TensorSpec]) -> dict[str, tuple[int, ...]]:
    """Names to shapes."""
    return {tensor.name: tensor.shape for tensor in tensors}
