"""A joint key in one process: what its sides hold, and what the server takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import quancrypt_native as qn
from quancrypt_fl.audit import secrets_within_reach
from quancrypt_fl.errors import MethodError
from quancrypt_fl.joint.channel import JointChannel
from quancrypt_fl.joint.opened import OpenedSum
from quancrypt_fl.protect import SECRET_TYPES, Channel, PlainIntegers, PlainIntegerSummer, Summer
from quancrypt_native import wire
from quancrypt_native.update import update_header

SIZES = {"bits": 8, "max_weight": 8, "security": 128, "values": 10}
TENSORS, CLIPS = {"w": np.linspace(-1, 1, 7, dtype=np.float32)}, {"w": 1.0}


@pytest.fixture(scope="module")
def channel() -> JointChannel:
    return JointChannel(**SIZES, clients=4, needed=3)


def test_three_of_four_open_what_all_have_encrypted(channel: JointChannel) -> None:
    server, client = channel.server(), channel.client()
    plain, plain_server = PlainIntegers(client._ceremony.params), PlainIntegerSummer()
    for weight in (1, 2, 3):
        server.add(client.protect(TENSORS, CLIPS, 0).data, weight)
        plain_server.add(plain.protect(TENSORS, CLIPS, 0).data, weight)
    total, chosen = server.result(), [0, 1, 3]
    parts = {index: channel.answer(index, total, chosen) for index in chosen}
    mean, weight = client.unprotect(OpenedSum(total, parts).to_bytes())
    expected, expected_weight = plain.unprotect(plain_server.result())
    assert weight == expected_weight == 6
    np.testing.assert_array_equal(mean["w"], expected["w"])


@dataclass
class Holder:
    thing: object


def test_the_audit_finds_parties_and_shares(channel: JointChannel) -> None:
    client, party = channel.client(), channel._parties[0]
    hidden: list[object] = [party, [party], client, client.protect, channel, channel.answer]
    for thing in hidden:
        assert secrets_within_reach(Holder(thing), SECRET_TYPES)
    assert secrets_within_reach(Holder(client._ceremony), SECRET_TYPES) == []


@pytest.mark.parametrize("moment", ["before", "with a sum"])
def test_the_server_holds_no_share(channel: JointChannel, moment: str) -> None:
    server = channel.server()
    if moment == "with a sum":
        server.add(channel.client().protect(TENSORS, CLIPS, 0).data, 1)
    assert secrets_within_reach(server, SECRET_TYPES) == []


def with_a_seed(channel: JointChannel) -> bytes:
    """An upload that claims to be expanded from a seed: half the body, and 32 bytes instead."""
    data = channel.client().protect(TENSORS, CLIPS, 0).data
    update = qn.EncryptedUpdate.from_bytes(data, channel._params)
    header = update_header(channel._params, update.key_id, update.layout, 1, bytes(32))
    return wire.frame(wire.Kind.UPDATE, header, update._body[: update._body.size // 2].tobytes())


def test_uploads_are_seeded_where_a_secret_key_encrypts_and_nowhere_else(
    channel: JointChannel,
) -> None:
    joint = channel.client().protect(TENSORS, CLIPS, 0).data
    channel.server().add(joint, 1)
    seeded = with_a_seed(channel)
    assert qn.EncryptedUpdate.from_bytes(seeded, channel._params).seeded
    with pytest.raises(MethodError, match="an upload is seeded; none under a joint key is"):
        channel.server().add(seeded, 1)
    for mode in ("symmetric", "public"):
        params = qn.Parameters.for_aggregation(bits=8, max_weight=8, key_mode="public", values=10)
        keys = qn.keygen(params)
        key = keys.secret if mode == "symmetric" else keys.public
        upload = qn.Encryptor(params, key).encrypt(TENSORS, CLIPS).to_bytes()
        if mode == "symmetric":
            Summer(params).add(upload, 1)
        else:
            with pytest.raises(MethodError, match="an upload is not seeded"):
                Summer(params).add(upload, 1)
    shared = Channel(**SIZES)
    shared.server().add(shared.client().protect(TENSORS, CLIPS, 0).data, 1)


def test_other_keys_and_weights_are_refused(channel: JointChannel) -> None:
    other = JointChannel(**SIZES, clients=4, needed=3)
    assert other.key_id != channel.key_id
    assert other.ceremony != channel.ceremony
    server = channel.server()
    with pytest.raises(MethodError, match="an upload is under the key"):
        server.add(other.client().protect(TENSORS, CLIPS, 0).data, 1)
    for _ in range(2):
        server.add(channel.client().protect(TENSORS, CLIPS, 0).data, 1)
    with pytest.raises(MethodError, match="claims the weight 2"):
        server.add(server.result(), 1)


REFUSED: list[tuple[dict[str, int], str]] = [
    ({"clients": 1, "needed": 2}, "parties"),
    ({"clients": 129, "needed": 2}, "parties"),
    ({"clients": 3, "needed": 4}, "threshold"),
    ({"clients": 3, "needed": 1}, "threshold"),
]


@pytest.mark.parametrize(("numbers", "named"), REFUSED)
def test_impossible_numbers(numbers: dict[str, Any], named: str) -> None:
    with pytest.raises(qn.ParameterError, match=named):
        JointChannel(**SIZES, **numbers)


def test_facts_are_public_and_say_who_opens(channel: JointChannel) -> None:
    facts = channel.facts()
    assert facts["threshold"] == {"needed": 3, "clients": 4}
    assert facts["parameters"] == channel.parameters()
    assert facts["parameters"]["key_mode"] == "threshold"
    assert facts["parameters"]["parties"] == 4
    assert "each of 4 clients" in facts["key_holders"]
    assert len(bytes.fromhex(channel.ceremony)) == 32
