"""What a round took: seconds per phase, bytes per client, ciphertexts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

__all__ = ["PHASES", "RoundMeter"]

PHASES = ("train", "protect", "aggregate", "unprotect", "evaluate")
"""``protect`` is clip, quantize, encrypt and serialize for all clients; ``aggregate`` parse, add
and serialize by the summing side; ``unprotect`` parse, decrypt and update for one client."""


@dataclass
class RoundMeter:
    """Collects the figures of one round.

    Attributes
    ----------
    seconds
        Wall-clock seconds per phase of :data:`PHASES`.
    participants
        Clients that trained.
    arrived
        Clients whose update arrived.
    """

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    participants: int = 0
    arrived: int = 0
    _reported: int = 0
    _uploaded: int = 0
    _report_ciphertexts: int = 0
    _ciphertexts: int = 0
    _download: int = 0
    _loss_sum: float = 0.0
    _samples: int = 0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time spent in the block to phase ``name``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start

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
        """Serialized bytes that one client sent and received; a mean where uploads differ."""
        upload = self._per_client(self._reported, self._uploaded)
        return {"upload": round(upload), "download": self._download}

    def _per_client(self, reports: int, updates: int) -> float:
        """All participants report; updates come from those that arrived."""
        return reports / self.participants + updates / max(1, self.arrived)
