"""The signing key that lies beside a client's key of updates, under the same passphrase."""

from __future__ import annotations

from pathlib import Path

import quancrypt_native as qn
from quancrypt_fl.cli.errors import naming
from quancrypt_fl.cli.storage import check_output, read

__all__ = ["SIGNING_KEY_FILE", "resealed_signing_key"]

SIGNING_KEY_FILE = "signing.key"


def resealed_signing_key(key: Path, old: bytes, new: bytes) -> tuple[Path, bytes] | None:
    """The signing key beside ``key`` under another passphrase; None if there is none to change.

    It is to be written before ``key`` is: a command that was killed in between finds it under the
    new passphrase, and goes on with ``key``.

    Parameters
    ----------
    key
        The key of updates.
    old, new
        Passphrases.
    """
    path = key.with_name(SIGNING_KEY_FILE)
    if not path.exists():
        return None
    from quancrypt_fl.envelopes.signer import Signer

    check_output(path, force=True)  # no links: what they lead to would stay as it is
    data = read(path)
    try:
        signer = Signer.from_bytes(data, passphrase=old)
    except qn.PassphraseError:
        with naming(path):
            Signer.from_bytes(data, passphrase=new)
        return None
    except qn.QuanCryptError:
        with naming(path):
            raise
    sealed = signer.to_bytes(passphrase=new)
    Signer.from_bytes(sealed, passphrase=new)
    return path, sealed
