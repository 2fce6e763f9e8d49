"""A history against a plain account of it, over any order of events."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.fl.flower.histories import (
    INITIAL,
    assert_leads_on,
    begun,
    core,
    files,
    grown,
    kept,
    sealed,
)

from quancrypt_fl.flower.history import History, HistoryGapError


class Histories(RuleBasedStateMachine):
    """A history in a folder beside one in memory that never restarts, and a plain account."""

    @initialize(limit_bytes=st.sampled_from([0, 150, 400, 2000]))
    def begin(self, limit_bytes: int) -> None:
        self.place = tempfile.TemporaryDirectory()
        self.folder = Path(self.place.name)
        self.limit = limit_bytes
        self.history, self.twin = begun(self.folder, limit_bytes), begun(None, limit_bytes)
        self.snapshots: list[int] = []  # accepted and not dropped
        self.ever = False
        self.floor = 0  # rounds before it may be unreachable through lost sums

    def teardown(self) -> None:
        if hasattr(self, "place"):
            self.history.close()
            self.place.cleanup()

    def both(self, action: Callable[[History], Any]) -> Any:
        results = [action(self.history), action(self.twin)]
        assert results[0] == results[1]
        return results[0]

    @rule(size=st.sampled_from([0, 50, 100, 300]))
    def append(self, size: int) -> None:
        self.both(lambda h: grown(h, size) and None)

    @rule(back=st.integers(0, 3), size=st.sampled_from([20, 500]))
    def keep_snapshot(self, back: int, size: int) -> None:
        after = max(self.history.finished - back, 0)
        if self.both(lambda h: sealed(h, after, size)):
            self.snapshots.append(after)
            self.ever = True
            assert f"snapshot-{after:05d}.bin" in files(self.folder)

    @precondition(lambda self: self.snapshots)
    @rule()
    def used(self) -> None:
        self.both(lambda h: h.snapshot_used(self.snapshots[-1]))

    @precondition(lambda self: self.snapshots)
    @rule()
    def drop_snapshot(self) -> None:
        self.both(lambda h: h.drop_snapshot(self.snapshots[-1]))
        self.snapshots.pop()

    @precondition(lambda self: self.history.finished)
    @rule(back=st.integers(1, 3), vanishes=st.booleans())
    def lose_sum(self, back: int, vanishes: bool) -> None:
        lost = self.history.finished - back
        if lost not in kept(self.folder):
            return
        if vanishes:
            (self.folder / f"sum-{lost:05d}.bin").unlink()
            self.restart()
        else:
            self.history.drop_sum(lost)
        self.twin.drop_sum(lost)
        self.floor = max(self.floor, lost + 1)
        self.snapshots = [each for each in self.snapshots if each > lost]

    @rule()
    def restart(self) -> None:
        self.history.close()
        self.history = History.resume(self.folder)

    @rule(text=st.text(max_size=5))
    def note(self, text: str) -> None:
        self.both(lambda h: h.note("round", text))
        if self.history.finished:
            self.both(lambda h: h.amend(h.finished - 1, {"text": text}))

    @invariant()
    def shows_the_same_as_its_twin(self) -> None:
        if hasattr(self, "place"):
            assert core(self.history) == core(self.twin)
            assert self.both(lambda h: h.wants_snapshot(3)) in (True, False)

    @invariant()
    def leads_on_the_cheapest_way_that_the_files_allow(self) -> None:
        if not hasattr(self, "place"):
            return
        history, rounds = self.history, self.history.rounds
        there = kept(self.folder)
        snapshots = {
            int(path.name[9:14]): path.stat().st_size for path in self.folder.glob("snapshot-*")
        }
        for have in (None, *range(history.finished + 1)):
            starts = {0: len(INITIAL), **snapshots}
            if have is not None:
                starts[have] = 0
            costs = [
                cost + sum(link.size for link in rounds[base:])
                for base, cost in starts.items()
                if all(link.round in there for link in rounds[base:] if link.weight)
            ]
            if costs:
                assert history.catch_up(have).nbytes == min(costs)
                assert_leads_on(history, have)
            else:
                with pytest.raises(HistoryGapError):
                    history.catch_up(have)
                assert have is not None or history.wants_snapshot(0)

    @invariant()
    def keeps_what_is_needed_and_little_more(self) -> None:
        if not hasattr(self, "place"):
            return
        rounds, there = self.history.rounds, kept(self.folder)
        stay = files(self.folder, "snapshot-*.bin")
        self.snapshots = [n for n in self.snapshots if f"snapshot-{n:05d}.bin" in stay]
        assert len(self.snapshots) == len(stay) <= 2
        newest = self.snapshots[-1] if self.snapshots else 0
        if self.snapshots or not self.ever:
            needed = {link.round for link in rounds[max(newest, self.floor) :] if link.weight}
            assert needed <= there
        before = [link.round for link in rounds[:newest] if link.weight][-1:]
        bound = sum(link.size for link in rounds[before[0] if before else newest :])
        assert sum(rounds[each].size for each in there) <= max(self.limit, bound)
        assert not files(self.folder, "*.tmp")


def test_any_order_of_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    run_state_machine_as_test(
        Histories,
        settings=settings(
            max_examples=40, stateful_step_count=15, deadline=None, derandomize=True, database=None
        ),
    )
