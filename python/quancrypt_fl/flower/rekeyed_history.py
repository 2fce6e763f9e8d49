"""A training of which the clients have another key from now on: what the server does, without it.

A client has opened the model with the old key and sealed it with the new one
(:func:`quancrypt_fl.flower.final.resealed`). Here it takes the place of all that is under the old
key.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quancrypt_fl.errors import ConfigError
from quancrypt_fl.flower.history import History
from quancrypt_fl.flower.nodes import NodeBook
from quancrypt_fl.flower.snapshot_prefix import said_by

__all__ = ["KEYS", "keys_of", "rekey_history"]

KEYS = "keys"
"""Name of the note that says which key served from which round on."""


def rekey_history(folder: Path, sealed: bytes, old_key: str, new_key: str) -> int:
    """Let clients with the new key go on with a training. May be called again to finish.

    Parameters
    ----------
    folder
        The history of the training (``QuanCryptStrategy(state=...)``), which no server uses now.
    sealed
        The model after its last finished round, sealed with the new key.
    old_key, new_key
        Fingerprints of the keys.

    Returns
    -------
    int
        Finished rounds.

    Raises
    ------
    ConfigError
        If the training is under a third key, or the model is of another training or round.
    SnapshotError, HistoryError
        If the model is none, or the folder cannot be read or written.
    """
    said = said_by(sealed)
    with History.resume(folder) as history:
        if said.training != history.training:
            raise ConfigError(
                f"the model is of the training {said.training}; {folder} is of {history.training}"
            )
        if said.round != history.finished:
            raise ConfigError(
                f"the model is of the state after round {said.round}, and the training has "
                f"finished {history.finished}: seal the model after that round"
            )
        noted = history.read("nodes")
        book = NodeBook.from_document(noted) if noted else NodeBook()
        if book.key_id not in (None, old_key, new_key):
            raise ConfigError(
                f"the training is under the key {book.key_id}, which is neither the old one "
                f"({old_key}) nor the new one ({new_key})"
            )
        keys = keys_of(history.read(KEYS), old_key)
        if keys[-1]["fingerprint"] != new_key:
            keys.append({"fingerprint": new_key, "from_round": history.finished + 1})
            if len(keys) > 1 and keys[-2]["from_round"] == keys[-1]["from_round"]:
                del keys[-2]  # it served no round
        history.rekey(said.chain, sealed)
        history.note(KEYS, keys)
        book.key_id = new_key
        history.note("nodes", book.to_document())
        return history.finished


def keys_of(note: Any, key_id: str | None) -> list[dict[str, Any]]:
    """Which key served from which round on, as receipts have it; without a note, ``key_id``."""
    if note:
        return [dict(entry) for entry in note if isinstance(entry, Mapping)]
    return [{"fingerprint": key_id, "from_round": 1}] if key_id else []
