"""What a fuzz target of the Python side is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Target:
    """A parser under attack.

    Attributes
    ----------
    run
        Takes any bytes. Returns when they were read, or refused with the errors that the parser
        documents; anything else that it raises is a finding.
    seeds
        Good input of every shape, to begin from.
    mutate
        Changes input so that it gets past lengths and checksums.
    """

    run: Callable[[bytes], None]
    seeds: Sequence[bytes]
    mutate: Callable[[Random, bytes], bytes]
