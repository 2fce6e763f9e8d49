"""One exchange of a round: clients upload, the server adds, clients get what they can read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from types import TracebackType
from typing import Self

from quancrypt_fl.method.meter import RoundMeter
from quancrypt_fl.method.roles import Opening, Participant, Sealed, SummingSide, Update
from quancrypt_fl.method.spool import KeptUploads
from quancrypt_fl.method.weighting import Share

__all__ = ["Exchange"]

Encrypt = Callable[[Participant, Update], Sealed]


class Exchange:
    """The uploads of one sum; a context, at whose end they are forgotten.

    Parameters
    ----------
    what
        ``"updates"`` or ``"reports"``.
    summing
        The server's side.
    opening
        How clients get to read the sum. Where it repeats, the server keeps all uploads meanwhile.
    meter
        Collects times and bytes.
    t
        The round.

    Attributes
    ----------
    shares
        Of the clients whose uploads arrived, in order.
    """

    def __init__(
        self, what: str, summing: SummingSide, opening: Opening, meter: RoundMeter, t: int
    ) -> None:
        self._what = what
        self._summing = summing
        self._opening = opening
        self._meter = meter
        self._t = t
        self._clients: list[int] = []
        self._kept = KeptUploads() if opening.repeats else None
        self.shares: list[Share] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._kept is not None:
            self._kept.close()

    def upload(self, client: Participant, update: Update, encrypt: Encrypt) -> None:
        """A client encrypts and uploads, and the server adds."""
        with self._meter.phase("protect"):
            upload = encrypt(client, update)
        note = self._meter.reported if self._what == "reports" else self._meter.uploaded
        note(len(upload.data), upload.ciphertexts)
        self._add(upload.data, update.share)
        if self._kept is not None:
            self._kept.append(upload.data)
        self._clients.append(client.index)
        self.shares.append(update.share)

    def total(self) -> bytes:
        """The serialized sum."""
        with self._meter.phase("aggregate"):
            return self._summing.result()

    def opened(
        self,
        total: bytes,
        pairs: Callable[[], Iterable[tuple[Participant, Update]]],
        encrypt: Encrypt,
    ) -> bytes:
        """What clients get of the sum.

        Parameters
        ----------
        total
            The sum.
        pairs
            The clients that have uploaded and their updates, in order, as often as the sum has to
            be made again.
        encrypt
            Encrypts an update afresh, and does nothing else.

        Raises
        ------
        NotOpenedError
            If it cannot be opened.
        """

        def again(away: Collection[int]) -> bytes:
            assert self._kept is not None
            for (client, update), before in zip(pairs(), self._kept, strict=True):
                if client.index in away:
                    self._add(before, update.share)
                    continue
                with self._meter.phase("protect"):
                    upload = encrypt(client, update)
                self._meter.repeated(self._what, len(upload.data), upload.ciphertexts)
                self._add(upload.data, update.share)
            return self.total()

        return self._opening.opened(self._what, total, self._clients, again, self._meter, self._t)

    def _add(self, data: bytes, share: Share) -> None:
        with self._meter.phase("aggregate"):
            self._summing.add(data, share.weight)
