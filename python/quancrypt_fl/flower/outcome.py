"""What a round came to, as the server knows it."""

from __future__ import annotations

from dataclasses import dataclass, field

from flwr.app import MetricRecord

from quancrypt_fl.flower.ledger import Ledger, Total
from quancrypt_fl.flower.opening import Opener
from quancrypt_fl.flower.protocol import Reply
from quancrypt_fl.flower.sums import Sums

__all__ = ["Answer", "Outcome"]


@dataclass(frozen=True)
class Answer:
    """An accepted reply, without its bytes."""

    reply: Reply
    metrics: MetricRecord


@dataclass
class Outcome:
    """What a round came to.

    Attributes
    ----------
    total
        The sum, or None if the round failed; ``failed`` then says why.
    reports
        The sum of reports that set the round's clip bounds, if it had to.
    scale
        Factor to its mean.
    ledger
        Who is in it.
    answers
        Accepted replies of the training, by node.
    upload_bytes, download_bytes
        Of protection, per client: uploads and reports; the sum of reports.
    seconds
        Of the server's own work.
    opener
        With a joint key: how the sums were opened, and what that took.
    """

    total: Total | None = None
    reports: Total | None = None
    failed: str | None = None
    scale: float = 1.0
    ledger: Ledger | None = None
    answers: dict[int, Answer] = field(default_factory=dict)
    upload_bytes: int = 0
    download_bytes: int = 0
    ciphertexts: int = 0
    seconds: float = 0.0
    client_seconds: dict[int, dict[str, float]] = field(default_factory=dict)
    snapshot: bytes | None = None
    opener: Opener | None = None

    def sums(self) -> bytes:
        """What clients have to know of the round: the bytes of its sums; none if it failed."""
        if self.total is None:
            return b""
        if self.reports is None:
            return Sums(self.total.data).to_bytes()
        return Sums(self.total.data, self.reports.data, self.reports.weight).to_bytes()
