"""One sum that may have to be formed more than once: each time of the same updates.

Whoever reads two sums of a round that differ by one client reads that client's update: a part that
comes late, after others were asked, still opens the sum that it was for. So what a client uploaded
first is kept, and stands in for it in every later sum of the state that it does not encrypt afresh.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from quancrypt_fl.errors import MethodError, NotOpenedError
from quancrypt_fl.flower.ledger import Ledger
from quancrypt_fl.method.spool import KeptUploads

__all__ = ["SameSum"]


class SameSum:
    """The ledgers of one sum; a context, at whose end the uploads are forgotten.

    Parameters
    ----------
    ledger
        Makes an empty one; the same each time.
    repeats
        Whether the sum may be asked for again: first uploads are then kept, beyond 1 GiB in an
        unnamed file.

    Attributes
    ----------
    ledger
        The one that is being filled.
    """

    def __init__(self, ledger: Callable[[], Ledger], *, repeats: bool) -> None:
        self._make = ledger
        self._kept = KeptUploads() if repeats else None
        self._places: dict[int, tuple[int, int]] = {}  # by node: place among those kept, parts
        self._again = False
        self.ledger = ledger()

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

    def add(self, node: int, data: bytes, parts: int = 1) -> None:
        """Add a node's upload; see :meth:`.Ledger.add`.

        Raises
        ------
        MethodError, quancrypt_native.QuanCryptError
            As of :meth:`.Ledger.add`; also if the node was not in the first sum.
        """
        if self._again and node not in self._places:
            raise MethodError("its upload is not in the sum that is formed once more")
        self.ledger.add(node, data, parts)
        if self._kept is not None and not self._again:
            self._places[node] = (len(self._kept), parts)
            self._kept.append(data)

    def begin_again(self) -> None:
        """Form the same sum once more, of fresh uploads as far as they come."""
        self._again = True
        self.ledger = self._make()

    def complete(self) -> list[int]:
        """Add what those uploaded first who have not uploaded afresh; the nodes in the sum.

        Raises
        ------
        NotOpenedError
            If nobody has: clients answer once for a sum.
        """
        if self._kept is None or not self._again:
            return list(self.ledger.entries)
        if not self.ledger.entries:
            raise NotOpenedError("no client has encrypted its update afresh for another attempt")
        for node, (place, parts) in self._places.items():
            if node not in self.ledger.entries:
                self.ledger.add(node, self._kept[place], parts)
        return list(self._places)
