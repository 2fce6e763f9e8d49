"""Clients that come later: what their makers tell the server, and the server's list of sites.

An admission holds names and public keys, nothing secret. Who hands one to the server's operator
decides who may connect: it is to come by a way that nobody else can change.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from quancrypt_fl.atomic_files import write_atomically
from quancrypt_fl.deployment import kits, toml
from quancrypt_fl.deployment.membership import with_newcomers
from quancrypt_fl.deployment.tables import SCHEMA, KitError, Table
from quancrypt_fl.errors import FederatedError

__all__ = ["ADMISSION", "Admission", "AdmissionError", "Newcomer", "admit", "alone"]

ADMISSION = "admission.toml"
_PUBLIC_MODE = 0o644
_SIGNING_KEY = re.compile("[0-9a-f]{64}")
_HEAD = (
    "# Clients to be let in by the server: quancrypt server KIT --admit THIS. Nothing is secret.\n"
)


class AdmissionError(FederatedError, ValueError):
    """Clients cannot be let in as asked."""


@dataclass(frozen=True)
class Newcomer:
    """A client that comes later; ``public_key``: of its SuperNode, OpenSSH, one line;
    ``signing_key``: the public one of its uploads, 64 hexadecimal digits.
    """

    name: str
    partition: int
    public_key: str
    signing_key: str


@dataclass(frozen=True)
class Admission:
    """What the server is told of newcomers."""

    key_id: str
    """Of the clients' key, which they share."""
    parameters_id: str
    newcomers: tuple[Newcomer, ...]

    def to_bytes(self) -> bytes:
        """As the file has it."""
        identity = {"id": self.key_id, "parameters": self.parameters_id}
        clients: list[dict[str, toml.Value]] = [
            {
                "name": one.name,
                "partition": one.partition,
                "public_key": one.public_key,
                "signing_key": one.signing_key,
            }
            for one in self.newcomers
        ]
        tables = [toml.table({"schema": SCHEMA}), toml.table(identity, "[key]")]
        tables += [toml.table(client, "[[client]]") for client in clients]
        return (_HEAD + "\n".join(tables)).encode()

    @classmethod
    def read(cls, path: Path) -> Admission:
        """Read and check a file.

        Raises
        ------
        KitError
            Naming the file, what it holds, and what is allowed.
        """
        file = Table.read(path)
        key = file.table("key")
        key_id = key.text("id", kits.HEXADECIMAL, "32 hexadecimal digits")
        parameters_id = key.text("parameters", kits.HEXADECIMAL, "32 hexadecimal digits")
        key.finish()
        newcomers = []
        for table in file.tables("client"):
            name = kits.check_name(table.text("name"), table.place)
            partition = table.number("partition", 0, 65_535)
            line = table.text("public_key", kits.SSH_EC_KEY, "a public key of ECDSA, OpenSSH")
            signing = table.text("signing_key", _SIGNING_KEY, "64 hexadecimal digits")
            table.finish()
            newcomers.append(Newcomer(name, partition, line, signing))
        file.finish()
        if not newcomers:
            raise KitError(f"{path}: no [[client]]; allowed: one or more")
        return cls(key_id, parameters_id, tuple(newcomers))


def admit(folder: Path, admission: Admission) -> kits.ServerKit:
    """Add newcomers to a server's kit; a server that is running lets them in by itself.

    All or nothing: the list of sites is replaced at once, as the last step. Newcomers who are there
    already, with the same key, stay as they are.

    Parameters
    ----------
    folder
        ``KITS/server``.
    admission
        From :meth:`Admission.read`.

    Returns
    -------
    ServerKit
        With the newcomers, loaded again.

    Raises
    ------
    AdmissionError
        If they belong to another deployment, or a name or a place is taken.
    KitError
        If more clients than before do not fit the run, or the kit is damaged.
    """
    with alone(folder):
        kit = kits.ServerKit.load(folder)
        partitions, places = _with(kit, admission)
        if len(partitions) == len(kit.sites):
            return kit
        kits.with_clients(kit.config, places, str(folder))  # they fit, or it says why not
        known = {site.name for site in kit.sites}  # what is said of these changes nothing
        new = [one for one in admission.newcomers if one.name not in known]
        members = with_newcomers(kit.members, {one.name: one.signing_key for one in new})
        try:
            for one in admission.newcomers:
                path = folder / kits.SUPERNODES / f"{one.name}.pub"
                line = one.public_key.rstrip("\n").encode() + b"\n"
                write_atomically(path, line, mode=_PUBLIC_MODE)
            write_atomically(kit.members, members, mode=_PUBLIC_MODE)
            listed = kits.sites_text(partitions, places).encode()
            write_atomically(folder / kits.CLIENTS, listed, mode=_PUBLIC_MODE)
        except OSError as error:
            raise AdmissionError(
                f"{folder}: cannot be written: {error.strerror or error}"
            ) from error
        return kits.ServerKit.load(folder)


def _with(kit: kits.ServerKit, admission: Admission) -> tuple[dict[str, int], int]:
    """Partitions of the sites by their names, with the newcomers', and the number of places."""
    for mine, theirs, what in (
        (kit.key_id, admission.key_id, "key of the clients"),
        (kit.parameters_id, admission.parameters_id, "parameters"),
    ):
        if mine != theirs:
            raise AdmissionError(
                f"the newcomers are of another deployment: their {what} is {theirs}, that of "
                f"{kit.folder} {mine}"
            )
    partitions = {site.name: site.partition for site in kit.sites}
    places = kit.config.clients
    free = set(range(places)) - set(partitions.values())
    known = {site.name: site.public_key.read_text().strip() for site in kit.sites}
    for one in admission.newcomers:
        if known.get(one.name) == one.public_key.strip():
            continue  # told a second time
        taken = [name for name in partitions if name.lower() == one.name.lower()]
        if taken:
            raise AdmissionError(
                f"{one.name}: there is a client {taken[0]} already, with another key; make the "
                "newcomer's kit again with another --name"
            )
        if one.partition != places and one.partition not in free:
            instead = "".join(f" or --place {place + 1}" for place in sorted(free)[:1])
            raise AdmissionError(
                f"{one.name} was made as client {one.partition + 1} of the deployment, which has "
                f"{places}; make its kit again with --present {places}{instead}"
            )
        if one.public_key.split()[1] in {line.split()[1] for line in known.values()}:
            raise AdmissionError(f"{one.name}: its public key is that of another client")
        partitions[one.name] = one.partition
        places = max(places, one.partition + 1)
        free.discard(one.partition)
        known[one.name] = one.public_key.strip()
    return partitions, places


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Two changes of a server's list wait for each other; the running server is not in the way."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield  # there is no such kit, which loading it says better
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
