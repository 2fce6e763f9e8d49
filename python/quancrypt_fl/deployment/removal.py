"""A client that leaves: its login and its signing key are no longer taken.

Its place stays free: no other client's number changes, nor the division of the data. The clients'
key is another matter, which every client has: :mod:`quancrypt_fl.deployment.rotation`.
"""

from __future__ import annotations

from pathlib import Path

from quancrypt_fl.atomic_files import sync_folder, write_atomically
from quancrypt_fl.deployment import kits
from quancrypt_fl.deployment.admission import alone
from quancrypt_fl.deployment.membership import without
from quancrypt_fl.errors import FederatedError

__all__ = ["RemovalError", "remove"]

_PUBLIC_MODE = 0o644


class RemovalError(FederatedError, ValueError):
    """A client cannot be removed as asked."""


def remove(folder: Path, name: str) -> kits.ServerKit:
    """Take a client out of a server's kit; a server that is running shuts it out by itself.

    The list of sites is replaced at once, as the first step: the kit is sound after each of them. A
    removal that was interrupted is finished by repeating it.

    Parameters
    ----------
    folder
        ``KITS/server``.
    name
        Of the client.

    Returns
    -------
    ServerKit
        Without the client, loaded again.

    Raises
    ------
    RemovalError
        If there is no such client, or too few would be left for a round.
    KitError
        If the kit is damaged.
    """
    kits.check_name(name)
    with alone(folder):
        kit = kits.ServerKit.load(folder)
        members = without(kit.members, name)
        public_key = folder / kits.SUPERNODES / f"{name}.pub"
        partitions = {site.name: site.partition for site in kit.sites}
        listed = partitions.pop(name, None) is not None
        if not listed and members is None and not public_key.exists():
            raise RemovalError(
                f"{folder}: there is no client {name}; allowed: {', '.join(partitions)}"
            )
        least = kit.least_clients
        if listed and len(partitions) < least:
            raise RemovalError(
                f"{folder}: without {name} there would be {len(partitions)} of the {least} clients "
                "that a round needs; admit another one first"
            )
        try:
            if listed:
                text = kits.sites_text(partitions, kit.config.clients).encode()
                write_atomically(folder / kits.CLIENTS, text, mode=_PUBLIC_MODE)
            if members is not None:
                write_atomically(kit.members, members, mode=_PUBLIC_MODE)
            public_key.unlink(missing_ok=True)
            sync_folder(public_key.parent)
        except OSError as error:
            raise RemovalError(
                f"{folder}: cannot be written: {error.strerror or error}; repeat the removal"
            ) from error
        return kits.ServerKit.load(folder)
