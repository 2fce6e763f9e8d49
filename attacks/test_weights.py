"""Weights beyond what the parameters hold exactly."""

from __future__ import annotations

from typing import Any

import pytest
from tests.native.conftest import Party
from tests.native.wire_objects import WireObject

import quancrypt_native as qn
from attacks.conftest import forged


@pytest.mark.parametrize("weight", [17, 2**32, 2**63 - 1])
def test_a_sum_of_too_many(objects: dict[str, WireObject], weight: int) -> None:
    """Idea: a sum that says it holds more clients than the fields of a coefficient can.
    Refused by: `max_weight`, when the bytes are read."""
    item = objects["sum"]
    with pytest.raises(qn.CapacityError, match=f"weight {weight} is above max_weight"):
        item.read(forged(item, weight=weight))


@pytest.mark.parametrize("weight", [0, -1, 2**63, 2**64 + 1, 1.0, True, "3", None])
def test_weights_that_are_none(objects: dict[str, WireObject], weight: Any) -> None:
    """Idea: a weight of zero, below it, beyond 64 bits, or of another type.
    Refused by: the header's range 1 to 2^63 - 1, an integer."""
    item = objects["sum"]
    with pytest.raises(qn.WireFormatError, match="'weight'"):
        item.read(forged(item, weight=weight))


def test_a_fresh_update_that_weighs_more(objects: dict[str, WireObject]) -> None:
    """Idea: one client's fresh update that counts for many in the mean.
    Refused by: an update with a seed has weight 1."""
    item = objects["seeded update"]
    with pytest.raises(qn.WireFormatError, match="seeded update has weight 2"):
        item.read(forged(item, weight=2))


@pytest.mark.parametrize("factor", [15, 2**32, 2**62, 2**63 - 1])
def test_products_that_wrap_round(
    victim: Party, objects: dict[str, WireObject], factor: int
) -> None:
    """Idea: a weight times a factor that is small modulo 2^64.
    Refused by: the aggregator, which bounds both before it multiplies; the sum stays as it was."""
    total = qn.Aggregator(victim.params)
    total.add(objects["seeded update"].data, weight=14)
    before = total.result().to_bytes()
    with pytest.raises(qn.CapacityError):
        total.add(objects["seeded update"].data, weight=factor)
    assert (total.weight, total.result().to_bytes()) == (14, before)


def test_one_too_many_at_the_end(victim: Party, objects: dict[str, WireObject]) -> None:
    """Idea: many small summands that pass the limit only together.
    Refused by: the running total of the aggregator."""
    total = qn.Aggregator(victim.params)
    for _ in range(16):
        total.add(objects["seeded update"].data)
    with pytest.raises(qn.CapacityError, match="16 \\+ 1 \\* 1, above max_weight = 16"):
        total.add(objects["seeded update"].data)
    assert total.weight == 16
