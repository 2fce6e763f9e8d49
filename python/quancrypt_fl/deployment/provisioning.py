"""Making kits: everything in a hidden folder beside the place, then one rename. All or nothing.

The encryption key comes from outside (:class:`ClientsKey`): here it is bytes, sealed for each site.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from quancrypt_fl.config import QuanCryptConfig
from quancrypt_fl.deployment import kits, readmes, toml
from quancrypt_fl.deployment.addresses import check_host, listening
from quancrypt_fl.deployment.certificates import (
    AUTHORITY_DAYS,
    DEFAULT_DAYS,
    Authority,
    Identity,
    issue,
    make_authority,
    private_pem,
    public_pem,
)
from quancrypt_fl.deployment.nodekeys import NodeKeys, make_node_keys
from quancrypt_fl.errors import FederatedError

__all__ = ["ClientsKey", "Plan", "ProvisionError", "Provisioned", "check_place", "provision"]

_FOLDER_MODE = 0o700
_SECRET_MODE = 0o600
_PUBLIC_MODE = 0o644


class ProvisionError(FederatedError, ValueError):
    """Kits cannot be made as asked, or not there."""


@dataclass(frozen=True)
class ClientsKey:
    """The clients' common key, as kits need it."""

    params: bytes
    """Encryption parameters, serialized."""
    parameters_id: str
    """Their fingerprint."""
    key_id: str
    """Fingerprint of the key, public."""
    seal: Callable[[str], bytes] = field(repr=False)
    """From the name of a site to the secret key, sealed with that site's passphrase."""


@dataclass(frozen=True)
class Plan:
    """What is provisioned.

    Raises
    ------
    ProvisionError
        If names or days are not possible; ``KitError`` and ``AddressError`` likewise.
    """

    names: tuple[str, ...]
    """Of the sites, in the order of their partitions; one per client of ``config``."""
    config: QuanCryptConfig
    """The run."""
    host: str = "localhost"
    """Where clients reach the server."""
    port: int = 8000
    app: str = "builtin"
    """See :data:`~quancrypt_fl.deployment.kits.APPS`."""
    other_hosts: tuple[str, ...] = ()
    """Further names and addresses of the server in its certificate."""
    days: int = DEFAULT_DAYS
    """Validity of the server's certificate."""

    def __post_init__(self) -> None:
        if len(self.names) != self.config.clients:
            raise ProvisionError(
                f"{len(self.names)} names for {self.config.clients} clients; each has one"
            )
        twice = kits.repeated(kits.check_name(name).lower() for name in self.names)
        if twice:
            raise ProvisionError(
                f"more than one client is called {', '.join(twice)}; names differ, and not only "
                "in upper and lower case"
            )
        for host in (self.host, *self.other_hosts):
            check_host(host)
        if not 1 <= self.port <= 65_535:
            raise ProvisionError(f"port = {self.port}; allowed: 1 to 65535")
        if not 1 <= self.days <= AUTHORITY_DAYS:
            raise ProvisionError(
                f"the server's certificate for {self.days} days; allowed: 1 to {AUTHORITY_DAYS}"
            )
        if self.app not in kits.APPS:
            raise ProvisionError(f"app = {self.app!r}; allowed: {', '.join(kits.APPS)}")

    @property
    def address(self) -> str:
        """``HOST:PORT``."""
        return kits.joined_address(self.host, self.port)


@dataclass(frozen=True)
class Provisioned:
    """What was written, loaded again."""

    folder: Path
    server: kits.ServerKit
    clients: tuple[kits.ClientKit, ...]
    certificate: Identity
    """Certificate of the server, for its dates and names."""
    authority: Path | None
    """Folder of the authority's key, if it was kept."""


def check_place(out: Path) -> None:
    """Raise :class:`ProvisionError` unless ``out`` is absent, or an empty folder."""
    if out.is_symlink():
        raise ProvisionError(f"{out}: is a link; name the folder itself")
    if not out.exists():
        for parent in out.absolute().parents:
            if parent.exists():
                if not parent.is_dir():
                    raise ProvisionError(f"{out}: {parent} is a file, not a folder")
                return
    if not out.is_dir():
        raise ProvisionError(f"{out}: is a file; allowed: a new folder")
    if out.absolute() == Path.cwd() or os.path.ismount(out):
        raise ProvisionError(f"{out}: cannot be replaced as a whole; name a new folder in it")
    if any(out.iterdir()):
        raise ProvisionError(
            f"{out}: is not empty; kits and keys are never written over: name a new folder"
        )


def provision(
    out: Path, plan: Plan, key: ClientsKey, *, keep_authority: Path | None = None
) -> Provisioned:
    """Make certificates and nodes' keys, and write all kits.

    Parameters
    ----------
    out
        Folder of the kits: absent or empty.
    plan
        Sites, address and run.
    key
        The clients' key.
    keep_authority
        Folder, absent or empty and not within ``out``, for the authority's certificate and private
        key. Without it the private key is gone when this returns.

    Returns
    -------
    Provisioned
        All kits, as loaded from the files.

    Raises
    ------
    ProvisionError
        If a folder is not as it must be or cannot be written. Nothing is left behind then, nor
        after any other exception.
    """
    places = [out] if keep_authority is None else [keep_authority, out]
    for place in places:
        check_place(place)
    if keep_authority is not None:
        _check_apart(keep_authority, out)
    authority = make_authority()
    identity = issue(authority, (plan.host, *plan.other_hosts), plan.days)
    kept = False
    try:
        with _whole(out) as folder:
            _write_kits(folder, plan, key, authority, identity)
            _load(folder, plan)  # what cannot be loaded is not handed out
            if keep_authority is not None:
                with _whole(keep_authority) as place:
                    _write_authority(place, authority)
                kept = True
    except BaseException as error:
        if kept and keep_authority is not None:  # an authority of nothing
            shutil.rmtree(keep_authority, ignore_errors=True)
        if isinstance(error, OSError):
            raise ProvisionError(f"{out}: cannot be written: {error.strerror or error}") from error
        raise
    server, clients = _load(out, plan)
    return Provisioned(out, server, clients, identity, keep_authority)


@contextlib.contextmanager
def _whole(place: Path) -> Iterator[Path]:
    """A hidden folder that becomes ``place`` at the end of the block, or vanishes."""
    made = _make_parents(place.absolute().parent)
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.absolute().parent))
        try:
            yield temporary
            temporary.rename(place)  # fails unless place is absent or still empty
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    except BaseException:
        for folder in reversed(made):
            with contextlib.suppress(OSError):  # somebody else uses it by now
                folder.rmdir()
        raise


def _make_parents(parent: Path) -> list[Path]:
    missing = [folder for folder in (parent, *parent.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=_FOLDER_MODE, exist_ok=True)
    return missing[::-1]


def _check_apart(keep: Path, out: Path) -> None:
    one, two = keep.resolve(), out.resolve()
    if one == two or two in one.parents or one in two.parents:
        raise ProvisionError(
            f"{keep}: the authority's folder and the kits' folder {out} lie in each other; kits "
            "are handed out, the authority's key is not"
        )


def _write_authority(folder: Path, authority: Authority) -> None:
    expires = authority.certificate.not_valid_after_utc
    _public(folder / kits.README, readmes.authority(expires).encode())
    _public(folder / kits.CA, public_pem(authority.certificate))
    _secret(folder / "ca.key", private_pem(authority.key))


def _write_kits(
    folder: Path, plan: Plan, key: ClientsKey, authority: Authority, identity: Identity
) -> None:
    nodes = {name: make_node_keys(name) for name in plan.names}
    expires = identity.certificate.not_valid_after_utc
    text = readmes.overview(list(plan.names), plan.address, expires)
    _public(folder / kits.README, text.encode())
    shared = {kits.PARAMETERS: key.params, kits.CA: public_pem(authority.certificate)}
    _write_server(folder / kits.SERVER, plan, key, identity, nodes, shared)
    for partition, (name, pair) in enumerate(nodes.items()):
        _write_client(folder / name, plan, key, partition, pair, shared)


def _write_server(
    folder: Path,
    plan: Plan,
    key: ClientsKey,
    identity: Identity,
    nodes: dict[str, NodeKeys],
    shared: dict[str, bytes],
) -> None:
    (folder / kits.SUPERNODES).mkdir(mode=_FOLDER_MODE, parents=True)
    folder.chmod(_FOLDER_MODE)
    _public(folder / kits.README, readmes.server(plan.address, plan.port).encode())
    settings = _settings(plan, key, {"listen": listening(plan.host)})
    _public(folder / kits.DEPLOYMENT, settings.encode())
    sites = [
        toml.table({"name": name, "partition": partition}, "[[client]]")
        for partition, name in enumerate(nodes)
    ]
    head = f"# The sites, in the order of their partitions; keys in {kits.SUPERNODES}/NAME.pub.\n"
    head += toml.table({"schema": kits.SCHEMA})
    _public(folder / kits.CLIENTS, "\n".join([head, *sites]).encode())
    for name, pair in nodes.items():
        _public(folder / kits.SUPERNODES / f"{name}.pub", pair.public)
    for file, data in shared.items():
        _public(folder / file, data)
    _public(folder / kits.CERTIFICATE, public_pem(identity.certificate))
    _secret(folder / kits.TLS_KEY, private_pem(identity.key))


def _write_client(
    folder: Path,
    plan: Plan,
    key: ClientsKey,
    partition: int,
    pair: NodeKeys,
    shared: dict[str, bytes],
) -> None:
    name = plan.names[partition]
    folder.mkdir(mode=_FOLDER_MODE)
    _public(folder / kits.README, readmes.client(name, plan.address).encode())
    node: dict[str, toml.Value] = {
        "name": name,
        "partition": partition,
        "partitions": len(plan.names),
    }
    settings = _settings(plan, key, {}, toml.table(node, "[node]"))
    _public(folder / kits.NODE, settings.encode())
    for file, data in shared.items():
        _public(folder / file, data)
    _secret(folder / kits.SECRET_KEY, key.seal(name))
    _secret(folder / kits.AUTH_KEY, pair.private)
    _public(folder / kits.AUTH_PUBLIC_KEY, pair.public)


def _settings(plan: Plan, key: ClientsKey, listen: dict[str, str], *more: str) -> str:
    """Text of ``deployment.toml``, and with more tables of ``node.toml``."""
    return "\n".join(
        [
            "# Made by quancrypt provision; README.txt says what may be changed.\n"
            + toml.table({"schema": kits.SCHEMA}),
            *more,
            toml.table({"host": plan.host, "port": plan.port, **listen}, "[server]"),
            "# The clients' key; both are fingerprints and public.\n"
            + toml.table({"id": key.key_id, "parameters": key.parameters_id}, "[key]"),
            toml.table(kits.run_table(plan.config, plan.app), "[run]"),
        ]
    )


def _load(folder: Path, plan: Plan) -> tuple[kits.ServerKit, tuple[kits.ClientKit, ...]]:
    server = kits.ServerKit.load(folder / kits.SERVER)
    return server, tuple(kits.ClientKit.load(folder / name) for name in plan.names)


def _public(path: Path, data: bytes) -> None:
    _create(path, data, _PUBLIC_MODE)


def _secret(path: Path, data: bytes) -> None:
    _create(path, data, _SECRET_MODE)


def _create(path: Path, data: bytes, mode: int) -> None:
    """The mode holds from the moment of creation; the umask may take more away."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
