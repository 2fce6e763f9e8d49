"""What travels of a sum that clients open together, against the plain integers of the same run."""

from __future__ import annotations

import numpy as np
import pytest
from tests.fl.joint.conftest import JointKey

import quancrypt_native as qn
from quancrypt_fl.errors import MethodError
from quancrypt_fl.joint.opened import OpenedSum
from quancrypt_fl.joint.protector import JointProtector, sealed_part
from quancrypt_fl.protect import PlainIntegers, PlainIntegerSummer

CLIPS = {"weight": 0.05, "bias": 0.1}


@pytest.fixture
def protector(joint_key: JointKey) -> JointProtector:
    return JointProtector(joint_key.ceremony, joint_key.public, joint_key.group)


def updates(count: int = 4) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(3)
    return [
        {
            "weight": rng.normal(0, 0.03, (20, 30)).astype(np.float32),
            "bias": rng.normal(0, 0.05, 30).astype(np.float32),
        }
        for _ in range(count)
    ]


def summed(joint_key: JointKey, protector: JointProtector) -> bytes:
    total = qn.Aggregator(joint_key.ceremony.params)
    for update in updates():
        data = protector.protect(update, CLIPS, 0).data
        total.add(qn.EncryptedUpdate.from_bytes(data, joint_key.ceremony.params))
    return total.result().to_bytes()


def opened(joint_key: JointKey, data: bytes, participants: list[int]) -> OpenedSum:
    parts = {
        index: sealed_part(joint_key.parties[index], joint_key.group, data, participants)
        for index in participants
    }
    return OpenedSum(data, parts)


def test_an_opened_sum_is_the_plain_mean_bit_for_bit(
    joint_key: JointKey, protector: JointProtector
) -> None:
    plain, server = PlainIntegers(joint_key.ceremony.params), PlainIntegerSummer()
    for update in updates():
        server.add(plain.protect(update, CLIPS, 0).data, 1)
    expected, expected_weight = plain.unprotect(server.result())
    data = opened(joint_key, summed(joint_key, protector), [0, 2, 4]).to_bytes()
    mean, weight = protector.unprotect(data)
    assert weight == expected_weight == 4
    for name, tensor in expected.items():
        assert mean[name].dtype == np.float32
        np.testing.assert_array_equal(mean[name], tensor)


def test_the_server_cannot_read_a_part(joint_key: JointKey, protector: JointProtector) -> None:
    """Not even with the parts of enough participants: they are sealed for the clients."""
    data = summed(joint_key, protector)
    parts = opened(joint_key, data, [0, 1, 2]).parts
    total = qn.EncryptedUpdate.from_bytes(data, joint_key.ceremony.params)
    with pytest.raises(qn.QuanCryptError):
        joint_key.ceremony.decrypt_mean(total, parts)
    stranger = qn.keygen(qn.Parameters.for_aggregation(bits=8, max_weight=16, values=1000)).secret
    other = JointProtector(joint_key.ceremony, joint_key.public, stranger)
    with pytest.raises(MethodError, match="a part does not open"):
        other.unprotect(OpenedSum(data, parts).to_bytes())


def test_parts_belong_to_their_sum_and_participants(
    joint_key: JointKey, protector: JointProtector
) -> None:
    first, second = (opened(joint_key, summed(joint_key, protector), [0, 1, 2]) for _ in range(2))
    for mixed in (
        OpenedSum(first.total, second.parts),
        OpenedSum(first.total, {**first.parts, 2: second.parts[2]}),
        OpenedSum(first.total, {i: first.parts[i] for i in (0, 1)}),
        OpenedSum(first.total, {0: first.parts[1], 1: first.parts[0], 2: first.parts[2]}),
    ):
        with pytest.raises(MethodError, match="a part does not open"):
            protector.unprotect(mixed.to_bytes())
    protector.unprotect(first.to_bytes())


def test_a_sum_is_answered_once(joint_key: JointKey, protector: JointProtector) -> None:
    data = summed(joint_key, protector)
    sealed_part(joint_key.parties[0], joint_key.group, data, [0, 1, 2])
    with pytest.raises(qn.threshold.AnsweredError):
        sealed_part(joint_key.parties[0], joint_key.group, data, [0, 3, 4])


def test_bytes_round_trip() -> None:
    given = OpenedSum(b"sum", {7: b"seven", 0: b"", 127: b"x"})
    assert OpenedSum.from_bytes(given.to_bytes()) == given


@pytest.mark.parametrize("count", [0, 1, 129])
def test_too_few_or_too_many_parts(count: int) -> None:
    with pytest.raises(MethodError, match=f"{count} parts; allowed: 2 to 128"):
        OpenedSum(b"", dict.fromkeys(range(count), b"")).to_bytes()


def test_every_damaged_byte_and_length_is_refused_or_a_part_fails(
    joint_key: JointKey, protector: JointProtector
) -> None:
    data = opened(joint_key, summed(joint_key, protector), [1, 2, 3]).to_bytes()
    table = 14 + 3 * 9
    for at in [*range(table), table + 5, len(data) // 2, len(data) - 1]:
        for bit in range(8):
            damaged = bytearray(data)
            damaged[at] ^= 1 << bit
            with pytest.raises((MethodError, qn.QuanCryptError)):
                protector.unprotect(bytes(damaged))
    for end in [*range(0, table, 3), table, len(data) - 1]:
        with pytest.raises(MethodError):
            OpenedSum.from_bytes(data[:end])
    with pytest.raises(MethodError, match="it says"):
        OpenedSum.from_bytes(data + b"\0")
