"""A client's side of signed replies: its signing key, opened once, and the seal of each reply."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from flwr.app import Message, RecordDict

from quancrypt_fl.envelopes.signer import Signer
from quancrypt_fl.errors import ConfigError
from quancrypt_fl.flower.programs import PASSPHRASE
from quancrypt_fl.flower.protocol import Reply
from quancrypt_fl.flower.signed_reply import purpose_of, signed_parts, with_seal

__all__ = ["open_signer", "sign"]


def open_signer(path: Path) -> Signer:
    """The signing key in a file, under the passphrase of the environment.

    Raises
    ------
    ConfigError
        If there is no passphrase.
    PassphraseError, WireFormatError
        If the file does not open with it, or is no signing key.
    """
    return _opened(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _opened(path: Path, version: int) -> Signer:
    """Scrypt takes a while: a process that serves many messages opens its key once."""
    del version
    passphrase = os.environ.get(PASSPHRASE, "")
    if not passphrase:
        raise ConfigError(f"{path}: its passphrase is not in the environment ({PASSPHRASE})")
    return Signer.from_bytes(path.read_bytes(), passphrase=os.fsencode(passphrase))


def sign(content: RecordDict, reply: Reply, request: Message, signer: Signer) -> RecordDict:
    """Seal the content of a reply for the node, the round and the run of a request."""
    seal = signer.seal(
        signed_parts(content),
        purpose=purpose_of(reply),
        run=reply.training,
        round=reply.round,
        params=reply.params,
        key=reply.key,
        sender=request.metadata.dst_node_id,
    )
    return with_seal(content, seal)
