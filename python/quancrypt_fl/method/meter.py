"""What a round took: seconds per phase, bytes per client, ciphertexts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ALL_PHASES", "PHASES", "RoundMeter"]

PHASES = ("train", "protect", "aggregate", "unprotect", "evaluate")
"""``protect`` is clip, quantize, encrypt and serialize for all clients; ``aggregate`` parse, add
and serialize by the summing side; ``unprotect`` parse, decrypt and update for one client."""

ALL_PHASES = ("train", "protect", "aggregate", "open", "unprotect", "evaluate")
"""With ``open``, which only runs with a joint key have: partial decryption, all that were asked."""


@dataclass
class RoundMeter:
    """Collects the figures of one round.

    Attributes
    ----------
    seconds
        Seconds per phase of :data:`PHASES`, and of ``open`` where there is one.
    clock
        Tells them: by default wall-clock time.
    participants
        Clients that trained.
    arrived
        Clients whose update arrived.
    openings
        How the sum of ``"updates"`` or ``"reports"`` was opened, where clients do that together.
    failed
        Why the round left the weights as they were, where a sum could not be opened.
    groups
        How many were formed and opened, where groups are summed apart.
    influence
        What one client could do at most, where something bounds it.
    """

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    clock: Callable[[], float] = time.perf_counter
    participants: int = 0
    arrived: int = 0
    openings: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: str = ""
    groups: dict[str, int] = field(default_factory=dict)
    influence: dict[str, Any] | None = None
    _reported: int = 0
    _uploaded: int = 0
    _report_ciphertexts: int = 0
    _ciphertexts: int = 0
    _download: int = 0
    _asked: int = 0
    _loss_sum: float = 0.0
    _samples: int = 0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time spent in the block to phase ``name``."""
        start = self.clock()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + self.clock() - start

    def trained(self, loss: float, samples: int) -> None:
        """Note that a client has trained on ``samples`` samples with mean loss ``loss``."""
        self.participants += 1
        self._loss_sum += loss * samples
        self._samples += samples

    def reported(self, size: int, ciphertexts: int) -> None:
        """Note one participant's report of ``size`` bytes, which precedes its update."""
        self._reported += size
        self._report_ciphertexts += ciphertexts

    def uploaded(self, size: int, ciphertexts: int) -> None:
        """Note one client's update of ``size`` bytes."""
        self.arrived += 1
        self._uploaded += size
        self._ciphertexts += ciphertexts

    def repeated(self, what: str, size: int, ciphertexts: int) -> None:
        """Note one of ``"updates"`` or ``"reports"`` that is encrypted and uploaded once more."""
        if what == "reports":
            self.reported(size, ciphertexts)
        else:
            self._uploaded += size
            self._ciphertexts += ciphertexts

    def asked(self, size: int) -> None:
        """Note a sum of ``size`` bytes that one client gets to partially decrypt."""
        self._asked += size

    def answered(self, what: str, size: int) -> None:
        """Note one client's partial decryption of ``"updates"`` or ``"reports"``."""
        self.repeated(what, size, ciphertexts=0)

    def downloaded(self, size: int) -> None:
        """Note a sum of ``size`` bytes, which every client receives."""
        self._download += size

    @property
    def train_loss(self) -> float:
        """Mean training loss over all samples."""
        return self._loss_sum / self._samples

    @property
    def ciphertexts_per_client(self) -> int:
        """Ciphertexts that one client uploaded (the mean, should they differ)."""
        return round(self._per_client(self._report_ciphertexts, self._ciphertexts))

    @property
    def bytes_per_client(self) -> dict[str, int]:
        """Serialized bytes that one client sent and received; a mean where clients differ."""
        upload = self._per_client(self._reported, self._uploaded)
        asked = self._asked / max(1, self.participants)
        return {"upload": round(upload), "download": round(self._download + asked)}

    def _per_client(self, reports: int, updates: int) -> float:
        """All participants report; updates come from those that arrived."""
        return reports / self.participants + updates / max(1, self.arrived)
