"""A site's own keys, which lie beside the clients' key in its kit, under the same passphrase."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import quancrypt_native as qn
from quancrypt_fl.cli.errors import naming
from quancrypt_fl.cli.storage import check_output, read
from quancrypt_native.channels import ChannelKey

if TYPE_CHECKING:
    from quancrypt_fl.envelopes.signer import Signer

__all__ = ["CHANNEL_KEY_FILE", "SIGNING_KEY_FILE", "resealed_keys"]

SIGNING_KEY_FILE = "signing.key"
CHANNEL_KEY_FILE = "channel.key"  # with a threshold key


def resealed_keys(key: Path, old: bytes, new: bytes) -> list[tuple[Path, bytes]]:
    """The site's own keys beside ``key`` under another passphrase: those that there are to change.

    They are to be written before ``key`` is: a command that was killed in between finds them under
    the new passphrase, and goes on with ``key``.

    Parameters
    ----------
    key
        The clients' key.
    old, new
        Passphrases.
    """

    def signer(data: bytes, passphrase: bytes) -> Signer:
        from quancrypt_fl.envelopes.signer import Signer

        return Signer.from_bytes(data, passphrase=passphrase)

    def channel(data: bytes, passphrase: bytes) -> ChannelKey:
        return ChannelKey.from_bytes(data, passphrase=passphrase)

    kinds: dict[str, Callable[[bytes, bytes], Signer | ChannelKey]] = {
        SIGNING_KEY_FILE: signer,
        CHANNEL_KEY_FILE: channel,
    }
    found = []
    for name, opened in kinds.items():
        path = key.with_name(name)
        if path.exists() and (sealed := _resealed(path, opened, old, new)) is not None:
            found.append((path, sealed))
    return found


def _resealed(
    path: Path, opened: Callable[[bytes, bytes], Signer | ChannelKey], old: bytes, new: bytes
) -> bytes | None:
    """A key under the new passphrase; None if it is so already."""
    check_output(path, force=True)  # no links: what they lead to would stay as it is
    data = read(path)
    try:
        own = opened(data, old)
    except qn.PassphraseError:
        with naming(path):
            opened(data, new)
        return None
    except qn.QuanCryptError:
        with naming(path):
            raise
    sealed = own.to_bytes(passphrase=new)
    opened(sealed, new)
    return sealed
