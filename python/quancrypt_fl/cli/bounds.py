"""``--clip``: one bound for all tensors, a JSON file of bounds, or bounds from mean magnitudes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.cli.errors import CommandError
from quancrypt_fl.cli.storage import read
from quancrypt_fl.errors import MethodError
from quancrypt_fl.method.clipping import clip_bounds, mean_magnitudes

__all__ = [
    "DEFAULT_FACTOR",
    "EQUAL_BOUNDS",
    "bounds_to_bytes",
    "clip_bounds_of",
    "clip_file",
    "clipped_values",
]

DEFAULT_FACTOR = 3.0

EQUAL_BOUNDS = (
    "clip bounds must be equal for all clients whose updates are added: "
    "agree on one number, or on one JSON file"
)


def clip_bounds_of(option: str, tensors: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """The bound of every tensor.

    Parameters
    ----------
    option
        A positive number; ``auto`` or ``auto:FACTOR`` for ``FACTOR * mean(|x|)`` of each tensor,
        as in QuanCrypt-FL; or the name of a JSON file, ``{"tensor": bound, ...}``.
    tensors
        What is going to be encrypted.
    """
    name, colon, factor = option.partition(":")
    if name == "auto":
        given = _number(factor) if colon else DEFAULT_FACTOR
        return _from_means(tensors, _positive(given, f"the factor of --clip {option}"))
    number = _number(option)
    if isinstance(number, str):
        return _from_file(option, tensors)
    return dict.fromkeys(tensors, _positive(number, "--clip"))


def clip_file(option: str) -> Path | None:
    """The JSON file that ``--clip`` names, or None."""
    named = option.partition(":")[0] != "auto" and isinstance(_number(option), str)
    return Path(option) if named else None


def bounds_to_bytes(bounds: Mapping[str, float]) -> bytes:
    """The JSON file that ``--clip`` reads."""
    return json.dumps(dict(bounds), indent=1, allow_nan=False).encode() + b"\n"


def clipped_values(array: NDArray[Any], bound: float) -> int:
    """How many values lie outside ``[-bound, bound]``."""
    return int(np.count_nonzero(np.abs(array) > bound))


def _from_means(tensors: Mapping[str, NDArray[Any]], factor: float) -> dict[str, float]:
    try:
        means = mean_magnitudes(tensors)
    except MethodError as error:
        raise CommandError(str(error)) from error
    for name, array in tensors.items():
        # The smallest bound would stand for it, and cut away what other clients have here.
        if array.size and means[name] == 0:
            raise CommandError(
                f"tensor '{name}' is all zero, so 'auto' finds no bound for it: "
                "give bounds in a JSON file, as --save-clip writes them"
            )
    return clip_bounds(means, factor)


def _from_file(option: str, tensors: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    path = Path(option)
    if not path.exists():
        raise CommandError(
            f"--clip is '{option}'; allowed: a positive number, auto, auto:FACTOR, "
            "or an existing JSON file"
        )
    try:
        document = json.loads(read(path).decode())
    except (ValueError, RecursionError) as error:
        raise CommandError(f"{path}: no valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise CommandError(f'{path}: clip bounds are a JSON object, {{"tensor": bound, ...}}')
    for name in document:
        if name not in tensors:
            raise CommandError(f"{path}: bounds tensor '{name}', which the input does not hold")
    for name in tensors:
        if name not in document:
            raise CommandError(f"{path}: holds no bound for tensor '{name}'")
    return {
        name: _positive(document[name], f"{path}: the bound of tensor '{name}'") for name in tensors
    }


def _positive(value: object, what: str) -> float:
    number = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = float(min(value, math.inf))
    if not 0 < number < math.inf:
        raise CommandError(f"{what} is {value!r}; allowed: a positive number")
    return number


def _number(text: str) -> object:
    """The number that a text is, or the text."""
    try:
        return float(text)
    except ValueError:
        return text
