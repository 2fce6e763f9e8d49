"""Observers of a run on Flower: all of them are told, and one that fails stops nothing."""

from __future__ import annotations

import inspect
import logging
from typing import Any

import pytest

from quancrypt_fl.flower.observing import RunObserver, RunObservers

CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("run_started", (), {"training": "ab", "rounds": 3, "finished": 1, "facts": {"bits": 8}}),
    ("waiting", (), {"connected": 1, "needed": 2}),
    ("round_started", (), {"round": 2, "asked": {5: "a", 6: "b"}}),
    ("phase_started", (), {"round": 2, "phase": "train+upload", "asked": [5, 6]}),
    ("answered", (), {"round": 2, "phase": "train+upload", "node": 5, "name": "a",
                      "seconds": {"train": 1.0}, "nbytes": 10}),
    ("refused", (), {"round": 2, "phase": "train+upload", "node": 6, "name": "b", "reason": "no"}),
    ("envelope_refused", (), {"round": 2, "phase": "train+upload", "node": 6,
                              "reason": "replay", "member": "b"}),
    ("lost", (), {"round": 2, "phase": "train+upload", "node": 6, "name": "b", "reason": "late"}),
    ("ignored", (), {"round": 2, "node": 6, "name": "b", "reason": "twice"}),
    ("note", ("text",), {}),
    ("round_finished", ({"round": 2},), {}),
    ("run_finished", (None, "error"), {}),
    ("run_stopped", (), {}),
]  # fmt: skip


class Recorder(RunObserver):
    """Keeps every call."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattribute__(self, name: str) -> Any:
        if name in STEPS:
            calls = object.__getattribute__(self, "calls")
            return lambda *args, **kwargs: calls.append((name, args, kwargs))
        return object.__getattribute__(self, name)


STEPS = {name for name, thing in vars(RunObserver).items() if inspect.isfunction(thing)}


def tell(observer: RunObserver) -> None:
    for name, args, kwargs in CALLS:
        getattr(observer, name)(*args, **kwargs)


def test_every_step_is_told_to_all() -> None:
    assert {name for name, _, _ in CALLS} == STEPS
    tell(RunObserver())  # does nothing
    first, second = Recorder(), Recorder()
    tell(RunObservers(first, second))
    assert first.calls == second.calls == CALLS


def test_the_group_has_the_signatures_of_one() -> None:
    for name in STEPS:
        one, group = getattr(RunObserver, name), getattr(RunObservers, name)
        assert inspect.signature(one) == inspect.signature(group), name


def test_an_observer_that_fails_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(RunObserver):
        told = 0

        def note(self, text: str) -> None:
            self.told += 1
            raise ValueError("disk on fire")

    broken, sound = Broken(), Recorder()
    group = RunObservers(broken, sound)
    with caplog.at_level(logging.WARNING):
        group.note("one")
        group.note("two")
    assert broken.told == 1
    assert [args for _, args, _ in sound.calls] == [("one",), ("two",)]
    assert "Broken failed and is dropped" in caplog.text
    assert "disk on fire" in caplog.text
