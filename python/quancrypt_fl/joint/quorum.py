"""Which clients open a sum, and what happens if one of them falls silent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from quancrypt_fl.errors import NotOpenedError
from quancrypt_fl.joint.opened import OpenedSum
from quancrypt_fl.method.meter import RoundMeter
from quancrypt_fl.method.participation import choose, lose
from quancrypt_fl.method.roles import Again
from quancrypt_fl.seeds import generator

__all__ = ["ATTEMPTS", "Answer", "Quorum"]

ATTEMPTS = 3
"""Sums that are tried in one exchange, the first included."""

Answer = Callable[[int, bytes, Sequence[int]], bytes]
"""A client's sealed part of opening a serialized sum together with the named participants."""


class Quorum:
    """Asks ``needed`` of the clients in a sum for their parts.

    Who is asked is fixed before anybody answers. If one falls silent, the parts of the others are
    worth nothing, and none of them may answer that sum again. So the clients that are left encrypt
    the same updates afresh, the server adds these and what it has of the silent ones, and others
    are asked. A client that fell silent is not asked again for this sum.

    Parameters
    ----------
    needed
        Clients that open a sum together.
    answers
        How clients answer, for ``"updates"`` and for ``"reports"``.
    dropout
        Probability that a client that is asked falls silent.
    seed
        Of the run: decides who is asked and who falls silent.
    """

    def __init__(
        self, needed: int, answers: Mapping[str, Answer], dropout: float, seed: int
    ) -> None:
        self._needed = needed
        self._answers = dict(answers)
        self._dropout = dropout
        self._seed = seed

    @property
    def repeats(self) -> bool:
        """Only if somebody may fall silent."""
        return self._dropout > 0

    def opened(
        self,
        what: str,
        total: bytes,
        clients: Sequence[int],
        again: Again,
        meter: RoundMeter,
        t: int,
    ) -> bytes:
        """The sum with its parts: an :class:`~quancrypt_fl.joint.opened.OpenedSum`, serialized.

        Raises
        ------
        NotOpenedError
            If fewer than ``needed`` clients are left, or all attempts have failed.
        """
        away: set[int] = set()
        note = meter.openings[what] = {"participants": [], "attempts": 0, "lost": []}
        for attempt in range(ATTEMPTS):
            present = [client for client in clients if client not in away]
            if len(present) < self._needed:
                raise NotOpenedError(
                    f"{len(present)} of the {len(clients)} clients in the sum of {what} are left; "
                    f"{self._needed} open it together"
                )
            if attempt:
                total = again(away)
            chosen = self._chosen(what, present, t, attempt)
            silent = lose(chosen, self._dropout, self._generator("open-dropout", what, t, attempt))
            parts = self._parts(what, total, chosen, silent, meter)
            away |= silent
            note |= {"attempts": attempt + 1, "lost": sorted(away)}
            if not silent:
                note["participants"] = chosen
                return OpenedSum(total, parts).to_bytes()
        raise NotOpenedError(
            f"in each of {ATTEMPTS} attempts to open the sum of {what} a client fell silent"
        )

    def _chosen(self, what: str, present: Sequence[int], t: int, attempt: int) -> list[int]:
        places = choose(len(present), self._needed, self._generator("opening", what, t, attempt))
        return [present[place] for place in places]

    def _parts(
        self,
        what: str,
        total: bytes,
        chosen: list[int],
        silent: frozenset[int],
        meter: RoundMeter,
    ) -> dict[int, bytes]:
        """What those answer that do."""
        parts = {}
        for client in chosen:
            meter.asked(len(total))
            if client in silent:
                continue
            with meter.phase("open"):
                parts[client] = self._answers[what](client, total, chosen)
            meter.answered(what, len(parts[client]))
        return parts

    def _generator(self, use: str, what: str, t: int, attempt: int) -> np.random.Generator:
        """Of updates by its name alone; reports have a stream of their own."""
        name = use if what == "updates" else f"{use}-{what}"
        return generator(self._seed, name, t, attempt)
