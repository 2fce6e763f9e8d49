"""Replies fetched one at a time; one whose bytes are slow to come does not hold up the others.

Flower's ``pull_messages`` returns once a reply is complete. While its sender uploads, or has died
over it, that can take minutes (the SuperLink gives an upload up 180 s after its last byte).
"""

from __future__ import annotations

import threading

from flwr.app import Message
from flwr.serverapp import Grid

__all__ = ["Pulls"]

_HOLD = 2.0  # seconds that one pull may keep the others waiting
_AT_MOST = 4  # pulls aside: each can hold an upload in memory


class Pulls:
    """Fetches replies; what takes long goes on aside, in a thread.

    Parameters
    ----------
    grid
        Flower's way to the nodes. Its ``pull_messages`` is called from several threads.
    hold
        Seconds to wait for one pull before it goes on aside.
    at_most
        Pulls aside at a time. While there are so many, no other one begins.
    """

    def __init__(self, grid: Grid, *, hold: float = _HOLD, at_most: int = _AT_MOST) -> None:
        self._grid = grid
        self._hold = hold
        self._at_most = at_most
        self._aside: dict[str, _Pull] = {}
        self._ended = threading.Event()  # some pull, since the last look

    def __contains__(self, key: str) -> bool:
        """Whether the reply to a message is on its way."""
        return key in self._aside

    def __len__(self) -> int:
        return len(self._aside)

    def fetch(self, key: str) -> list[Message] | None:
        """The replies to a message; None while they are on their way, or must wait for others.

        Raises
        ------
        BaseException
            Whatever ``pull_messages`` raises.
        """
        pull = self._aside.get(key)
        if pull is None:
            if len(self._aside) >= self._at_most:
                return None
            pull = _Pull(self._grid, key, self._ended)
            pull.start()
            pull.join(self._hold)
        if pull.is_alive():
            self._aside[key] = pull
            return None
        self._aside.pop(key, None)
        return pull.outcome()

    def wait(self, seconds: float) -> None:
        """Wait until a pull has ended, at most some seconds of real time."""
        self._ended.clear()
        if all(pull.is_alive() for pull in self._aside.values()):
            self._ended.wait(seconds)


class _Pull(threading.Thread):
    """One call of ``pull_messages``. A daemon: a process does not wait for it at its end."""

    def __init__(self, grid: Grid, key: str, ended: threading.Event) -> None:
        super().__init__(name="quancrypt-pull", daemon=True)
        self._grid = grid
        self._key = key
        self._event = ended
        self._replies: list[Message] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._replies = list(self._grid.pull_messages([self._key]))
        except BaseException as error:
            self._error = error
        finally:
            self._event.set()

    def outcome(self) -> list[Message]:
        if self._error is not None:
            raise self._error
        return self._replies
