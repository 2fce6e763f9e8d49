"""What a client reads of the sums that a server sends, and what its replies must not tell of it.

Whoever can put a ciphertext of its own making into a sum and learns whether it opens gets the key,
bit by bit (SECURITY.md, "Exact sums and published decryptions"). So what is public of a sum is
checked first, and the server hears of it; whether the rest opens, only the client's log does.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import quancrypt_native as qn
from quancrypt_fl.flower.client_keys import Updates
from quancrypt_fl.flower.protocol import ProtocolError
from quancrypt_fl.method.quancrypt import Layout, QuanCrypt
from quancrypt_fl.method.roles import GlobalState, Tensors, Update
from quancrypt_fl.protect import has_layout

__all__ = ["ClientSums", "layouts_of", "without_bounds"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClientSums:
    """Reads sums.

    Attributes
    ----------
    updates
        What opens them.
    params
        Encryption parameters.
    method
        The method as it is in the round of the sums: see :meth:`.FedAvg.at`.
    """

    updates: Updates
    params: qn.Parameters
    method: QuanCrypt

    def bounds(self, reports: bytes, weight: int) -> dict[str, float] | None:
        """Clip bounds from a sum of reports; None if it does not open.

        Raises
        ------
        ProtocolError
            If it is not of the weight or layout that it must have. As all of what this raises, it
            does not depend on what the sum decrypts to.
        """
        mean = self._mean(reports, weight, self.method.report_layout(), "the sum of reports")
        return None if mean is None else self.method.agreed(mean, weight)

    def mean(
        self, data: bytes, weight: int, state: GlobalState, names: Collection[str]
    ) -> Tensors | None:
        """Means of the updates of the round that begins with a state; None if it does not open.

        Raises
        ------
        ProtocolError
            As of :meth:`bounds`.
        """
        layout = self.method.upload_layout(_shapes(state, names), state.round)
        return self._mean(data, weight, layout, f"the sum of round {state.round + 1}")

    def _mean(self, data: bytes, weight: int, layout: Layout, what: str) -> Tensors | None:
        total = qn.EncryptedUpdate.parse(self.updates.total_of(data), self.params)
        if total.weight != weight:
            raise ProtocolError(
                f"{what} has the weight {total.weight}, the server's ledger says {weight}"
            )
        if not has_layout(total, layout):
            raise ProtocolError(f"{what} is not of the tensors that it must be of")
        try:
            return self.updates.unprotect(data)[0]
        except qn.DecryptionError as error:
            # One upload was not well-formed. It fails for everybody, so all go on alike.
            _LOG.warning("%s does not open, and the model stays as it was: %s", what, error)
            return None


def layouts_of(
    method: QuanCrypt, state: GlobalState, names: Collection[str]
) -> tuple[Layout, Layout]:
    """What sums of the round that begins with a state consist of: of reports, and of updates."""
    return (
        method.at(state.round).report_layout(),
        method.upload_layout(_shapes(state, names), state.round),
    )


def without_bounds(
    method: QuanCrypt, update: Update
) -> tuple[dict[str, NDArray[np.float32]], dict[str, float]]:
    """What a client uploads that has no clip bounds, as the sum of reports did not open: zeros.

    Beside them its statistics, which need no bounds and set those of the next round.
    """
    statistics, clips = method.report(update)
    zeros = {name: np.zeros_like(tensor) for name, tensor in update.tensors.items()}
    return {**zeros, **statistics}, {**dict.fromkeys(zeros, 1.0), **clips}


def _shapes(state: GlobalState, names: Collection[str]) -> Mapping[str, tuple[int, ...]]:
    return {name: state.weights[name].shape for name in names}
