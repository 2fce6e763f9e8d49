"""A clock that stands still until somebody sleeps: time-outs that take no real time."""

from __future__ import annotations


class FakeClock:
    """Pass ``clock=fake, sleep=fake.sleep`` to the code under test, and ``clock=fake`` to the grid.

    Parameters
    ----------
    start : float
        The first reading, in seconds.
    limit : float
        A sleep beyond ``start + limit`` raises: the code under test would wait for ever.
    """

    def __init__(self, start: float = 1000.0, limit: float = 1e6) -> None:
        self.now = start
        self.end = start + limit
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        if seconds < 0:
            raise ValueError(f"sleep of {seconds} s: must not be negative")
        self.slept.append(seconds)
        # A sleep of nothing still costs something, so that a loop around it ends.
        self.advance(max(seconds, 1e-3))

    def advance(self, seconds: float) -> None:
        self.now += seconds
        if self.now > self.end:
            raise AssertionError(f"slept past {self.end} s: the code under test waits for ever")
