"""The final model of a training, for who holds the clients' key."""

from __future__ import annotations

from flwr.app import ArrayRecord

import quancrypt_native as qn
from quancrypt_fl.flower.held import Held
from quancrypt_fl.flower.snapshot import SnapshotError, open_snapshot, seal_snapshot
from quancrypt_fl.flower.snapshot_prefix import says_of_itself
from quancrypt_fl.flower.training_run import SNAPSHOT

__all__ = ["open_model", "resealed"]


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
    return _opened(arrays[SNAPSHOT].numpy().tobytes(), secret)


def resealed(data: bytes, old: qn.SecretKey, new: qn.SecretKey) -> bytes:
    """The same global state, bit for bit, under another key.

    Parameters
    ----------
    data
        What a client sealed: ``final-model.sealed``, or the array of ``Result.arrays``.
    old, new
        The key that opens it, and the one that is to.

    Raises
    ------
    SnapshotError
        If it is damaged, or it is under another key.
    """
    return seal_snapshot(_opened(data, old), says_of_itself(data)[0], new)


def _opened(data: bytes, secret: qn.SecretKey) -> Held:
    training, finished, chain = says_of_itself(data)
    return open_snapshot(data, training, secret, round=finished, chain=chain)
