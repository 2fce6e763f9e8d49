"""What the server writes down of a round."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from tests.fl.flower.federation import Federation

import quancrypt_native as qn
from quancrypt_fl.protect import Protector

OPENING = 0.05  # seconds more than it takes


def test_a_rounds_seconds_hold_the_opening_of_its_sum(
    params: qn.Parameters, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients open a round's sum when they evaluate the model after it."""
    real = Protector.unprotect

    def slow(self: Protector, data: Any) -> Any:
        time.sleep(OPENING)
        return real(self, data)

    monkeypatch.setattr(Protector, "unprotect", slow)
    federation = Federation(params, key_file)
    federation.train()
    records = federation.last.records
    assert len(records) == 3
    for record in records:
        assert record["seconds"]["unprotect"] >= OPENING
