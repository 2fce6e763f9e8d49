"""A joint key of five parties, any three of whom open a sum."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import pytest

import quancrypt_native as qn
from quancrypt_native import threshold

PARTIES, THRESHOLD = 5, 3


@dataclass(frozen=True)
class JointKey:
    ceremony: threshold.Ceremony
    parties: list[threshold.Party]
    public: qn.PublicKey
    group: qn.SecretKey


@pytest.fixture(scope="session")
def joint_key() -> JointKey:
    params = qn.Parameters.for_aggregation(
        bits=8, max_weight=16, key_mode="threshold", parties=PARTIES, values=1000
    )
    ceremony = threshold.Ceremony(
        params, parties=PARTIES, threshold=THRESHOLD, common_seed=secrets.token_bytes(32)
    )
    parties = [threshold.Party(ceremony, index) for index in range(PARTIES)]
    for sender in parties:
        for recipient, data in sender.deal().items():
            parties[recipient].receive(sender.index, data)
    public = ceremony.public_key({party.index: party.public_share() for party in parties})
    group = qn.keygen(qn.Parameters.for_aggregation(bits=8, max_weight=16, values=1000)).secret
    return JointKey(ceremony, parties, public, group)
