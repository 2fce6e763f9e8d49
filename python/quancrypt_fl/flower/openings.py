"""Which sums a client has helped to open, over the whole life of a joint key: this only grows.

A client opens sums of the latest state of a training that it knows, and never goes back: not to an
older round, and not to another state of the same one. What it opens in all is bounded, whatever a
server calls a round or a training.

As JSON::

    {"version": 2, "sums": 7,
     "trainings": {"<id>": {"round": 3, "chain": "<id of the state>", "opened": ["<SHA-256>"]}}}

``sums`` counts all of them; ``opened`` are those of the state that was opened last.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from quancrypt_fl.errors import MethodError
from quancrypt_fl.method.quancrypt import Layout

__all__ = ["MOST_OPENINGS", "MOST_SUMS", "MOST_TRAININGS", "Asking", "Openings"]

MOST_OPENINGS = 6
"""Sums of which a client gives its part in one round: reports and uploads, three attempts each."""

MOST_SUMS = 10_000
"""Sums of which it gives its part with one joint key, in all rounds and trainings together."""

MOST_TRAININGS = 1_000
"""Trainings in which it does."""

_HEX64 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Asking:
    """What a part is asked for.

    Attributes
    ----------
    training
        Id of the training.
    round, chain
        The state in whose round the sum was formed, which the client holds: rounds finished, and
        chain id.
    layouts
        What a sum of that round can consist of.
    """

    training: str
    round: int
    chain: str
    layouts: tuple[Layout, ...]


@dataclass(frozen=True)
class _Latest:
    round: int
    chain: str
    opened: tuple[str, ...] = ()


@dataclass(frozen=True)
class Openings:
    """The record of one party.

    Attributes
    ----------
    sums
        How many sums it has helped to open.
    """

    sums: int = 0
    _trainings: Mapping[str, _Latest] = field(default_factory=dict)

    def with_sum(self, asking: Asking, digest: str) -> Openings:
        """The record with one more sum.

        Raises
        ------
        MethodError
            Why the sum must not be opened.
        """
        latest = self._trainings.get(asking.training)
        if latest is None:
            self._require_room()
            latest = _Latest(asking.round, asking.chain)
        elif asking.round < latest.round:
            raise MethodError(
                f"this site has opened a sum of round {latest.round + 1} of this training, and "
                f"opens none of round {asking.round + 1} any more: begin another training"
            )
        elif asking.round > latest.round:
            latest = _Latest(asking.round, asking.chain)
        elif asking.chain != latest.chain:
            raise MethodError(
                f"this site has opened a sum of another model's round {asking.round + 1} in this "
                "training: begin another one"
            )
        if digest in latest.opened:
            raise MethodError(
                "this site has answered for this sum before, and does so once: sum fresh uploads"
            )
        if len(latest.opened) >= MOST_OPENINGS:
            raise MethodError(
                f"this site has answered for {len(latest.opened)} sums of this round; allowed: "
                f"{MOST_OPENINGS}"
            )
        if self.sums >= MOST_SUMS:
            raise MethodError(
                f"this site has answered for {self.sums:,} sums under this joint key; allowed: "
                f"{MOST_SUMS:,}. Make new kits"
            )
        latest = replace(latest, opened=(*latest.opened, digest))
        return Openings(self.sums + 1, {**self._trainings, asking.training: latest})

    def _require_room(self) -> None:
        if len(self._trainings) >= MOST_TRAININGS:
            raise MethodError(
                f"this site has opened sums of {len(self._trainings):,} trainings under this joint "
                f"key; allowed: {MOST_TRAININGS:,}. Make new kits"
            )

    def to_document(self) -> dict[str, Any]:
        """As JSON has it."""
        trainings = {name: vars(latest) for name, latest in self._trainings.items()}
        return {"version": 2, "sums": self.sums, "trainings": trainings}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Openings:
        """Read :meth:`to_document`'s output, or what a version before has written.

        Raises
        ------
        ValueError
            If it is neither.
        """
        if not document:
            return cls()
        if "version" not in document and isinstance(document.get("sums"), list):
            return cls(sums=len(document["sums"]))  # of the last state alone, of any training
        try:
            if document["version"] != 2 or type(document["sums"]) is not int:
                raise ValueError("another version, or no number of sums")
            return cls(
                document["sums"],
                {str(name): _latest(each) for name, each in document["trainings"].items()},
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from None


def _latest(document: Mapping[str, Any]) -> _Latest:
    number, chain, opened = document["round"], document["chain"], document["opened"]
    texts = [chain, *opened]
    if type(number) is not int or not all(_HEX64.fullmatch(str(text)) for text in texts):
        raise ValueError("a training's state is none")
    return _Latest(number, chain, tuple(opened))
