"""Three members, their keys, and a gate for one run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from quancrypt_fl.envelopes import Gate, Members, Purpose
from quancrypt_fl.envelopes.signer import Signer

RUN, PARAMS, KEY = "01" * 16, "02" * 16, "03" * 16
ROUND, SENDER = 5, 2**63 + 11
BOUND: Mapping[str, Any] = {
    "purpose": Purpose.UPLOAD,
    "run": RUN,
    "round": ROUND,
    "params": PARAMS,
    "key": KEY,
    "sender": SENDER,
}
"""What an envelope of the gate's round is bound to."""


@pytest.fixture(scope="session")
def signers() -> list[Signer]:
    return [Signer.generate(f"client-{number}") for number in (1, 2, 3)]


@pytest.fixture(scope="session")
def members(signers: list[Signer]) -> Members:
    return Members(signer.member for signer in signers)


@pytest.fixture
def gate(members: Members) -> Gate:
    return Gate(members, run=RUN, params=PARAMS, key=KEY)
