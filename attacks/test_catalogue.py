"""The table in README.md is that of the tests."""

from __future__ import annotations

from attacks.catalogue import README, attacks, table


def test_every_attack_is_in_the_table() -> None:
    """Idea: none; the table in README.md lists every test here.
    Refused by: nothing."""
    assert len(attacks()) >= 40
    assert README.read_text(encoding="utf-8").endswith(table())
