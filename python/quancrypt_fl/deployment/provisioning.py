"""Making kits: everything in a hidden folder beside the place, then one rename. All or nothing.

The encryption key comes from outside (:class:`ClientsKey`): here it is bytes, sealed for each site.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

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
from quancrypt_fl.deployment.folders import (
    FOLDER_MODE,
    ProvisionError,
    check_place,
    whole_folder,
    write_public,
    write_secret,
)
from quancrypt_fl.deployment.nodekeys import NodeKeys, make_node_keys
from quancrypt_fl.deployment.signing import make_signers, members_text
from quancrypt_fl.deployment.tables import SCHEMA
from quancrypt_fl.envelopes.signer import Signer
from quancrypt_fl.federation_config import FederationConfig
from quancrypt_fl.joint.facts import JointFacts

__all__ = [
    "ClientsKey",
    "JointParts",
    "Place",
    "Plan",
    "ProvisionError",
    "Provisioned",
    "check_names",
    "check_place",
    "provision",
    "write_client",
]


@dataclass(frozen=True)
class JointParts:
    """What kits have beyond the clients' common key where updates are under a threshold key."""

    facts: JointFacts
    """Parties in the order of the clients, with their public channel keys."""
    group_params: bytes
    """Parameters of the clients' common key, which is their group key, serialized."""
    seal_channel: Callable[[str], bytes] = field(repr=False)
    """From the name of a site to its channel key, sealed with that site's passphrase."""


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
    seal_signer: Callable[[Signer], bytes] = field(repr=False)
    """From a site's signing key to the same, sealed with that site's passphrase."""
    joint: JointParts | None = None
    """With a threshold key."""


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
    config: FederationConfig
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
    server_files: Mapping[str, bytes] = field(default_factory=dict)
    client_files: Mapping[str, bytes] = field(default_factory=dict)
    """Further files of the server's kit, and of each client's, by name: an adapter as it begins."""

    def __post_init__(self) -> None:
        if len(self.names) != self.config.clients:
            raise ProvisionError(
                f"{len(self.names)} names for {self.config.clients} clients; each has one"
            )
        check_names(self.names)
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
class Place:
    """A client among the clients: its name, its number from 0, and how many there are."""

    name: str
    partition: int
    partitions: int


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


def check_names(names: Iterable[str]) -> None:
    """Raise :class:`ProvisionError` or ``KitError`` where clients may not be called so."""
    twice = kits.repeated(kits.check_name(name).lower() for name in names)
    if twice:
        raise ProvisionError(
            f"more than one client is called {', '.join(twice)}; names differ, and not only in "
            "upper and lower case"
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
        with whole_folder(out) as folder:
            _write_kits(folder, plan, key, authority, identity)
            _load(folder, plan)  # what cannot be loaded is not handed out
            if keep_authority is not None:
                with whole_folder(keep_authority) as place:
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


def _check_apart(keep: Path, out: Path) -> None:
    one, two = keep.resolve(), out.resolve()
    if one == two or two in one.parents or one in two.parents:
        raise ProvisionError(
            f"{keep}: the authority's folder and the kits' folder {out} lie in each other; kits "
            "are handed out, the authority's key is not"
        )


def _write_authority(folder: Path, authority: Authority) -> None:
    expires = authority.certificate.not_valid_after_utc
    write_public(folder / kits.README, readmes.authority(expires).encode())
    write_public(folder / kits.CA, public_pem(authority.certificate))
    write_secret(folder / "ca.key", private_pem(authority.key))


def _write_kits(
    folder: Path, plan: Plan, key: ClientsKey, authority: Authority, identity: Identity
) -> None:
    nodes = {name: make_node_keys(name) for name in plan.names}
    signers = make_signers(plan.names)
    expires = identity.certificate.not_valid_after_utc
    joint = key.joint is not None
    text = readmes.overview(list(plan.names), plan.address, expires, joint=joint, app=plan.app)
    write_public(folder / kits.README, text.encode())
    shared = {kits.PARAMETERS: key.params, kits.CA: public_pem(authority.certificate)}
    if key.joint is not None:
        shared[kits.JOINT] = key.joint.facts.to_toml().encode()
    _write_server(folder / kits.SERVER, plan, key, identity, nodes, {**shared, **plan.server_files})
    write_public(folder / kits.SERVER / kits.MEMBERS, members_text(signers))
    shared |= plan.client_files
    for partition, (name, pair) in enumerate(nodes.items()):
        place = Place(name, partition, len(nodes))
        write_client(folder / name, plan, key, place, pair, shared, signers[name])


def _write_server(
    folder: Path,
    plan: Plan,
    key: ClientsKey,
    identity: Identity,
    nodes: dict[str, NodeKeys],
    shared: dict[str, bytes],
) -> None:
    (folder / kits.SUPERNODES).mkdir(mode=FOLDER_MODE, parents=True)
    folder.chmod(FOLDER_MODE)
    text = readmes.server(plan.address, plan.port, joint=key.joint is not None, app=plan.app)
    write_public(folder / kits.README, text.encode())
    settings = _settings(plan, key, {"listen": listening(plan.host)})
    write_public(folder / kits.DEPLOYMENT, settings.encode())
    text = kits.sites_text({name: place for place, name in enumerate(nodes)}, len(nodes))
    write_public(folder / kits.CLIENTS, text.encode())
    for name, pair in nodes.items():
        write_public(folder / kits.SUPERNODES / f"{name}.pub", pair.public)
    for file, data in shared.items():
        write_public(folder / file, data)
    write_public(folder / kits.CERTIFICATE, public_pem(identity.certificate))
    write_secret(folder / kits.TLS_KEY, private_pem(identity.key))


def write_client(
    folder: Path,
    run: Plan | kits.ClientKit,
    key: ClientsKey,
    place: Place,
    pair: NodeKeys,
    shared: dict[str, bytes],
    signer: Signer,
) -> None:
    """Write the kit of a client into a new folder.

    Parameters
    ----------
    run
        Says where the server is, and what is run.
    shared
        Content of the files that are the same in all kits, by name.
    """
    folder.mkdir(mode=FOLDER_MODE)
    facts = None if key.joint is None else key.joint.facts
    text = readmes.client(place.name, run.address, facts, app=run.app)
    write_public(folder / kits.README, text.encode())
    node: dict[str, toml.Value] = {
        "name": place.name,
        "partition": place.partition,
        "partitions": place.partitions,
    }
    settings = _settings(run, key, {}, toml.table(node, "[node]"))
    write_public(folder / kits.NODE, settings.encode())
    for file, data in shared.items():
        write_public(folder / file, data)
    write_secret(folder / kits.SECRET_KEY, key.seal(place.name))
    write_secret(folder / kits.SIGNING_KEY, key.seal_signer(signer))
    if key.joint is not None:
        write_public(folder / kits.GROUP_PARAMETERS, key.joint.group_params)
        write_secret(folder / kits.CHANNEL_KEY, key.joint.seal_channel(place.name))
    write_secret(folder / kits.AUTH_KEY, pair.private)
    write_public(folder / kits.AUTH_PUBLIC_KEY, pair.public)


def _settings(
    plan: Plan | kits.ClientKit, key: ClientsKey, listen: dict[str, str], *more: str
) -> str:
    """Text of ``deployment.toml``, and with more tables of ``node.toml``."""
    return "\n".join(
        [
            "# Made by quancrypt provision; README.txt says what may be changed.\n"
            + toml.table({"schema": SCHEMA}),
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
