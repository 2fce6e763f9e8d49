"""The final model of a training, for who holds the clients' key."""

from __future__ import annotations

from flwr.app import ArrayRecord

import quancrypt_native as qn
from quancrypt_fl.flower.held import Held
from quancrypt_fl.flower.snapshot import SnapshotError, open_snapshot
from quancrypt_fl.flower.snapshot_prefix import says_of_itself
from quancrypt_fl.flower.training_run import SNAPSHOT

__all__ = ["open_model"]


def open_model(arrays: ArrayRecord, secret: qn.SecretKey) -> Held:
    """Open ``Result.arrays`` of a :class:`QuanCryptStrategy`.

    Parameters
    ----------
    arrays
        What the strategy returned: the model as one of the clients sealed it.
    secret
        The clients' key.

    Returns
    -------
    Held
        ``.state.weights``: float32 tensors by name; ``.state.round``: rounds finished. Tensors that
        are not of floats keep their initial values, and are not in it.

    Raises
    ------
    SnapshotError
        If there is none, it is damaged, or it is under another key.
    """
    if SNAPSHOT not in arrays:
        raise SnapshotError(f"the arrays {sorted(arrays)} hold no sealed model ({SNAPSHOT})")
    data = arrays[SNAPSHOT].numpy().tobytes()
    training, finished, chain = says_of_itself(data)
    return open_snapshot(data, training, secret, round=finished, chain=chain)
