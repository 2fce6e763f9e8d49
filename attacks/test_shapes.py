"""Shapes that overlap, overflow, or say more than is there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fuzz.python.frames import rehashed
from tests.native.conftest import Party
from tests.native.wire_objects import WireObject

import quancrypt_native as qn
from attacks.conftest import forged
from quancrypt_fl.flower.tensors_file import TensorsFileError, pack, unpack
from quancrypt_native.layout import MAX_TENSORS

HUGE: list[list[int]] = [
    [2**32, 2**32],  # 2^64 = 0 in 64 bits
    [2**63, 2],
    [2**44 + 1],
    [2**45, 0],  # no value, and more than NumPy can index
    [2**22] * 2 + [2],
]


@pytest.mark.parametrize("shape", HUGE, ids=str)
def test_products_that_overflow(objects: dict[str, WireObject], shape: list[int]) -> None:
    """Idea: dimensions whose product is small modulo 2^64, and huge in truth.
    Refused by: `layout._is_shape`, in integers without a limit, against 2^44 values."""
    item = objects["sum"]
    with pytest.raises(qn.WireFormatError, match="no valid shape"):
        item.read(forged(item, tensors=[["a", shape, 1.0]]))


def test_sums_of_sizes_that_overflow(objects: dict[str, WireObject]) -> None:
    """Idea: tensors that are admissible one by one, and too many values together.
    Refused by: the limit of 2^44 values over all tensors."""
    item = objects["sum"]
    tensors = [[str(i), [2**43], 1.0] for i in range(4)]
    with pytest.raises(qn.WireFormatError, match="values are too many"):
        item.read(forged(item, tensors=tensors))


@pytest.mark.parametrize("shape", [[-1], [1.0], [True], ["2"], None, {}, [[1]], [1] * 33])
def test_shapes_that_are_none(objects: dict[str, WireObject], shape: Any) -> None:
    """Idea: negative, fractional, textual or nested dimensions, or more than NumPy has.
    Refused by: `layout._is_shape`: at most 32 integers, none negative."""
    item = objects["sum"]
    with pytest.raises(qn.WireFormatError, match="no valid shape"):
        item.read(forged(item, tensors=[["a", shape, 1.0]]))


def test_more_values_than_bytes(objects: dict[str, WireObject]) -> None:
    """Idea: a shape of a million values over the body of one ciphertext, so that decryption reads
    on behind it.
    Refused by: the size of the body, which must be exactly that of the stated values."""
    item = objects["sum"]
    for shape in ([1_000_000], [2**40], [0]):
        with pytest.raises(qn.WireFormatError, match="the body has"):
            item.read(forged(item, tensors=[["a", shape, 1.0]]))


def test_one_name_for_two_tensors(objects: dict[str, WireObject]) -> None:
    """Idea: two tensors of one name, of which the second overwrites the first in a mapping.
    Refused by: `Layout.from_header`: each name stands once."""
    item = objects["sum"]
    with pytest.raises(qn.WireFormatError, match="no name of its own"):
        item.read(forged(item, tensors=[["a", [2], 1.0], ["a", [2], 1.0]]))


def test_a_million_tensors(objects: dict[str, WireObject]) -> None:
    """Idea: as many empty tensors as a header holds: each costs memory, none costs a byte of body.
    Refused by: the limit of 2^18 tensors."""
    item = objects["sum"]
    tensors = [[str(i), [0], 1.0] for i in range(MAX_TENSORS + 1)]
    with pytest.raises(qn.WireFormatError, match="'tensors'"):
        item.read(forged(item, tensors=tensors, body=b""))


def test_other_shapes_join_no_sum(victim: Party, objects: dict[str, WireObject]) -> None:
    """Idea: the right number of values in other shapes, so that a sum mixes up tensors.
    Refused by: `Layout.require_same`: names, shapes and clip bounds are those of the first."""
    item = objects["sum"]
    total = qn.Aggregator(victim.params)
    total.add(item.data)
    for tensors in (
        [["a", [3, 2], 1.0], ["b", [4], 2.0]],
        [["b", [2, 3], 1.0], ["a", [4], 2.0]],
        [["a", [2, 3], 1.0], ["b", [4], 2.5]],
        [["a", [2, 3], 1.0], ["b", [2], 2.0], ["c", [2], 2.0]],
    ):
        with pytest.raises(qn.ParameterError):
            total.add(forged(item, tensors=tensors))
    assert total.count == 1


def test_tensors_that_overlap_in_a_file() -> None:
    """Idea: two tensors of a snapshot over the same bytes, or with a gap between them.
    Refused by: `tensors_file.unpack`: each lies where the one before ends, and the last ends the
    file."""
    data = pack({}, {"a": np.ones(2, np.float32), "b": np.ones(2, np.float32)})
    for before, after in ((b"[8,16]", b"[0,8] "), (b"[8,16]", b"[4,12]"), (b"[8,16]", b"[9,17]")):
        changed = rehashed(bytes(data).replace(before, after))
        with pytest.raises(TensorsFileError, match="does not lie where the one before ends"):
            unpack(bytearray(changed))
