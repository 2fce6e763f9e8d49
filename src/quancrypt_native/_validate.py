"""Checks of plain arguments, with messages that name the argument, what was given and allowed."""

import math
import operator
from collections.abc import Sequence

from quancrypt_native.errors import ParameterError


def integer(name: str, value: object, low: int, high: int) -> int:
    """``value`` as an int in ``[low, high]``; bool and float are refused."""
    if isinstance(value, bool):
        raise ParameterError(f"{name} is {value!r}; allowed: an integer from {low} to {high}")
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise ParameterError(
            f"{name} is {value!r}; allowed: an integer from {low} to {high}"
        ) from None
    if not low <= number <= high:
        raise ParameterError(f"{name} is {number}; allowed: {low} to {high}")
    return number


def choice(name: str, value: object, allowed: Sequence[object]) -> None:
    """Raise unless ``value`` is one of ``allowed``."""
    # Arrays compare element by element, and 8192.0 equals 8192: types first.
    if isinstance(value, bool) or not isinstance(value, int | str) or value not in allowed:
        options = ", ".join(str(option) for option in allowed)
        raise ParameterError(f"{name} is {value!r}; allowed: {options}")


def positive(name: str, value: object, low: float, high: float) -> float:
    """``value`` as a finite float in ``[low, high]``, both positive."""
    if isinstance(value, bool | str | bytes):
        raise ParameterError(f"{name} is {value!r}; allowed: a number from {low:g} to {high:g}")
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise ParameterError(
            f"{name} is {value!r}; allowed: a number from {low:g} to {high:g}"
        ) from None
    if math.isnan(number) or not low <= number <= high:
        raise ParameterError(f"{name} is {number:g}; allowed: {low:g} to {high:g}")
    return number
