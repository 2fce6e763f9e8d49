"""Kits: one folder per site with all that its process needs. What is in them, read and checked.

Layout, as ``quancrypt provision`` writes it (``S``: secret, mode 0600)::

    KITS/README.txt
    KITS/server/README.txt
               deployment.toml      address, key identity, configuration of the run
               clients.toml         names and places of the sites; of removed ones only the places
               supernodes/NAME.pub  public key of a site's SuperNode, OpenSSH
               members.toml         public keys by which the sites' uploads are checked
               params.qcp           encryption parameters
               joint.toml           with a threshold key: its parties, their public channel keys
               initial.safetensors  to tune a language model: what travels of its adapter, as it
                                    begins; nothing of the base model
               ca.pem, server.pem   TLS certificates
               server.key       S   TLS key: the only secret, and none of the data
               state/               made when it runs: Flower's database, sums, results
    KITS/NAME/README.txt
              node.toml             name, partition, address, key identity, configuration
              params.qcp            encryption parameters
              secret.key        S   the clients' secret key, sealed with a passphrase; with a
                                    threshold key, their group key, which opens no update
              joint.toml            as the server's, group.qcp: parameters of the group key, and
              channel.key       S   this site's own channel key, sealed likewise: threshold only
              signing.key       S   key by which this site signs its uploads, sealed likewise
              ca.pem                what the server's certificate is checked against
              frozen.safetensors    to tune a language model: what never travels of its adapter
              supernode.key     S   private key of its SuperNode, OpenSSH
              supernode.pub         its public key
              state/                made when it runs: the model, what is carried over
"""

from __future__ import annotations

import re
import stat
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from quancrypt_fl.config import QuanCryptConfig
from quancrypt_fl.deployment import toml
from quancrypt_fl.deployment.joint import checked_facts
from quancrypt_fl.deployment.membership import check_members
from quancrypt_fl.deployment.tables import SCHEMA, KitError, Table
from quancrypt_fl.federation_config import FederationConfig, describe_errors
from quancrypt_fl.flower.app.learning import LEARNING

__all__ = [
    "APPS",
    "NOT_DEPLOYED",
    "OWN_APP_FIELDS",
    "SITE_FIELDS",
    "ClientKit",
    "KitError",
    "ServerKit",
    "Site",
    "check_fields",
    "check_name",
    "joined_address",
    "repeated",
    "run_table",
    "sites_text",
    "with_clients",
]

README = "README.txt"
SERVER = "server"
DEPLOYMENT = "deployment.toml"
CLIENTS = "clients.toml"
SUPERNODES = "supernodes"
PARAMETERS = "params.qcp"  # `quancrypt decrypt` looks for it beside a key
CA = "ca.pem"
CERTIFICATE = "server.pem"
TLS_KEY = "server.key"
NODE = "node.toml"
SECRET_KEY = "secret.key"
SIGNING_KEY = "signing.key"
JOINT = "joint.toml"
GROUP_PARAMETERS = "group.qcp"
CHANNEL_KEY = "channel.key"
MEMBERS = "members.toml"
AUTH_KEY = "supernode.key"
AUTH_PUBLIC_KEY = "supernode.pub"
STATE = "state"
INITIAL = "initial.safetensors"
FROZEN = "frozen.safetensors"

APPS = (*LEARNING, "own")
"""What is run: our app, which learns what its name says, or the user's."""

SITE_FIELDS = frozenset({"data_dir", "device", "out", "processes", "tensorboard"})
"""Fields of a configuration that a site decides for itself: no kit holds them."""

NOT_DEPLOYED = frozenset(
    {
        "method", "encryption", "dropout", "open_dropout", "paillier_bits", "tenseal_parameters",
        "dp", "dp_missing", "dp_epsilon", "dp_delta", "dp_clip", "aggregation", "groups",
    }
)  # fmt: skip
"""Fields of simulations: other methods, no encryption, clients lost on purpose, groups, noise."""

OWN_APP_FIELDS = frozenset(
    {
        "clients", "rounds", "participation", "min_arrivals", "seed", "bits", "rounding", "update",
        "clip_factor", "max_bound", "pruning", "mask", "p_0", "p_target", "t_eff", "t_target",
        "prune_global", "error_feedback", "smoothing", "weighting", "max_weight", "security",
        "threshold",
    }
)  # fmt: skip
"""Fields of a configuration that mean something for an app of one's own: no data, no training."""

Config = TypeVar("Config", bound=FederationConfig)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
HEXADECIMAL = re.compile(r"[0-9a-f]{32}")
SSH_EC_KEY = re.compile(r"ecdsa-sha2-nistp(256|384|521) [A-Za-z0-9+/]+={0,2}( [^\n]*)?\n?")
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True)
class Site:
    """A client as the server knows it."""

    name: str
    partition: int
    """Its place among the clients, from 0: which part of a divided data set is its own."""
    public_key: Path
    """Public key of its SuperNode: what ``flwr supernode register`` takes."""


@dataclass(frozen=True)
class _Kit:
    """What both kinds hold. ``host``, ``port``: where clients reach the server."""

    folder: Path
    host: str
    port: int
    key_id: str
    """32 hexadecimal digits of the clients' key: public."""
    parameters_id: str
    """32 hexadecimal digits of the encryption parameters."""
    app: str
    """See :data:`APPS`."""
    config: FederationConfig
    """The run, defaults filled in. With an app of one's own only :data:`OWN_APP_FIELDS` count.
    ``clients`` is the number of places, those of removed sites included: data are divided so.
    """
    params: Path
    ca: Path
    state: Path
    """Folder for what a process keeps; absent until it is started."""
    joint: Path | None
    """``joint.toml``, with a threshold key (``config.threshold``); else None."""

    @property
    def address(self) -> str:
        """``HOST:PORT`` for clients, an IPv6 address in brackets."""
        return joined_address(self.host, self.port)


@dataclass(frozen=True)
class ServerKit(_Kit):
    """The server's folder, loaded. It holds no key that opens an update."""

    listen: str
    """Address of the machine on which to listen, ``"0.0.0.0"`` for all."""
    certificate: Path
    """``server.pem``: the server's certificate, which :attr:`ca` has signed."""
    private_key: Path
    """``server.key``: TLS key."""
    sites: tuple[Site, ...]
    members: Path
    """``members.toml``: public keys by which the sites' uploads are checked."""
    initial: Path | None
    """``initial.safetensors``, where an adapter is tuned."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names by place, ``""`` where a site was removed: one for each of ``config.clients``."""
        by_place = {site.partition: site.name for site in self.sites}
        return tuple(by_place.get(place, "") for place in range(self.config.clients))

    @property
    def listen_address(self) -> str:
        """``HOST:PORT`` for the socket."""
        return joined_address(self.listen, self.port)

    @property
    def local_address(self) -> str:
        """``HOST:PORT`` for processes on the server's machine; its certificate names the host."""
        return joined_address(
            {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.listen, self.listen), self.port
        )

    @classmethod
    def load(cls, path: Path | str) -> ServerKit:
        """Read and check ``KITS/server``.

        Raises
        ------
        KitError
            Naming the file, what it holds, and what is allowed.
        """
        folder = _folder(path, DEPLOYMENT, other=NODE, advice="it is a client's: quancrypt client")
        file = Table.read(folder / DEPLOYMENT)
        common = _common(folder, file)
        server = file.table("server")
        listen = server.text("listen")
        server.finish()
        file.finish()
        sites, places = _sites(folder)
        if places < common["config"].clients:
            raise KitError(
                f"{folder / CLIENTS}: {places} clients; {folder / DEPLOYMENT} says "
                f"clients = {common['config'].clients}"
            )
        common["config"] = with_clients(common["config"], places, str(folder / CLIENTS))
        return cls(
            **common,
            listen=listen,
            certificate=_file(folder / CERTIFICATE),
            private_key=_file(folder / TLS_KEY),
            sites=sites,
            members=check_members(_file(folder / MEMBERS), [site.name for site in sites]),
            initial=_file(folder / INITIAL) if common["app"] == "finetune" else None,
        )

    def exposed(self) -> list[Path]:
        """Secret files that other users of the machine may read."""
        return _exposed(self.private_key)

    @property
    def least_clients(self) -> int:
        """Clients that a round needs: those in its sum, and those who open it."""
        return max(self.config.least_arrivals, self.config.threshold or 0)


@dataclass(frozen=True)
class ClientKit(_Kit):
    """A client's folder, loaded."""

    name: str
    partition: int
    """Its place among the clients, from 0."""
    partitions: int
    """Number of clients."""
    secret_key: Path
    """``secret.key``: the clients' key, sealed with a passphrase."""
    signing_key: Path
    """``signing.key``: this site's own, sealed with the same passphrase."""
    auth_key: Path
    """``supernode.key``: for ``--auth-supernode-private-key``."""
    auth_public_key: Path
    group_params: Path | None
    channel_key: Path | None
    """``group.qcp`` and ``channel.key``, with a threshold key."""
    frozen: Path | None
    """``frozen.safetensors``, where an adapter is tuned."""

    @property
    def key_params(self) -> Path:
        """Parameters of ``secret.key``."""
        return self.group_params or self.params

    @classmethod
    def load(cls, path: Path | str) -> ClientKit:
        """Read and check ``KITS/NAME``.

        Raises
        ------
        KitError
            Naming the file, what it holds, and what is allowed.
        """
        folder = _folder(
            path, NODE, other=DEPLOYMENT, advice="it is the server's: quancrypt server"
        )
        file = Table.read(folder / NODE)
        common = _common(folder, file)
        file.table("server").finish()
        node = file.table("node")
        name = check_name(node.text("name"), str(node.place))
        partitions = node.number("partitions", 1, 65_536)
        partition = node.number("partition", 0, partitions - 1)
        node.finish()
        file.finish()
        if partitions != common["config"].clients:
            raise KitError(
                f"{folder / NODE}: partitions = {partitions} in [node], but "
                f"clients = {common['config'].clients} in [run]; both are the number of clients"
            )
        return cls(
            **common,
            name=name,
            partition=partition,
            partitions=partitions,
            secret_key=_file(folder / SECRET_KEY),
            signing_key=_file(folder / SIGNING_KEY),
            auth_key=_file(folder / AUTH_KEY),
            auth_public_key=_file(folder / AUTH_PUBLIC_KEY),
            group_params=_file(folder / GROUP_PARAMETERS) if common["joint"] else None,
            channel_key=_file(folder / CHANNEL_KEY) if common["joint"] else None,
            frozen=_file(folder / FROZEN) if common["app"] == "finetune" else None,
        )

    def node_config(self) -> dict[str, str | int]:
        """What Flower's ``--node-config`` says of this node, with absolute paths."""
        some: dict[str, str | int] = {}
        if self.joint is not None:
            some["quancrypt-joint"] = str(self.joint)
            some["quancrypt-channel-key"] = str(self.channel_key)
        if self.frozen is not None:
            some["quancrypt-frozen"] = str(self.frozen)
        return {
            **some,
            "quancrypt-kit": str(self.folder / NODE),
            "partition-id": self.partition,
            "num-partitions": self.partitions,
            "quancrypt-key": str(self.secret_key),
            "quancrypt-signing-key": str(self.signing_key),
            "quancrypt-state": str(self.state),
            "quancrypt-name": self.name,
        }

    def exposed(self) -> list[Path]:
        """Secret files that other users of the machine may read."""
        channel = () if self.channel_key is None else (self.channel_key,)
        return _exposed(self.secret_key, self.signing_key, self.auth_key, *channel)


def check_name(name: str, place: str = "a client's name") -> str:
    """``name`` if a site may be called so: it names a folder and stands in logs.

    Raises
    ------
    KitError
        Naming it and what is allowed.
    """
    if not _NAME.fullmatch(name) or name.lower() == SERVER:
        raise KitError(
            f"{place}: {name!r}; allowed: letters, digits, '.', '_', '-', up to 64 of them, the "
            f"first a letter or a digit, and not {SERVER!r}"
        )
    return name


def repeated(names: Iterable[str]) -> list[str]:
    """The names that are there more than once."""
    return sorted(name for name, count in Counter(names).items() if count > 1)


def joined_address(host: str, port: int) -> str:
    """``HOST:PORT``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def with_clients(config: Config, clients: int, place: str) -> Config:
    """A run with so many clients: some may have come after it was provisioned.

    Raises
    ------
    KitError
        Naming ``place``, if they do not fit, and what to do.
    """
    if clients == config.clients:
        return config
    try:
        return type(config)(**{**config.model_dump(), "clients": clients})
    except ValidationError as error:
        raise KitError(
            f"{place}: {clients} clients do not fit: {describe_errors(error)}. The clients' key "
            "was made for these parameters: make new kits for more clients (quancrypt provision "
            "--max-weight leaves room), or keep the number"
        ) from error


def sites_text(partitions: Mapping[str, int], places: int) -> str:
    """Text of ``clients.toml``.

    Parameters
    ----------
    partitions
        Number of each site, by its name.
    places
        Into how many parts data are divided: more than sites, where some were removed.
    """
    head = f"# The sites, in the order of their partitions; keys in {SUPERNODES}/NAME.pub.\n"
    top: dict[str, toml.Value] = {"schema": SCHEMA}
    if places > len(partitions):
        head += "# Sites that were removed have left their places free: nobody else's changed.\n"
        top["places"] = places
    tables = [
        toml.table({"name": name, "partition": partition}, "[[client]]")
        for name, partition in sorted(partitions.items(), key=lambda site: site[1])
    ]
    return "\n".join([head + toml.table(top), *tables])


def run_table(config: FederationConfig, app: str) -> dict[str, Any]:
    """The ``[run]`` table of a kit: what decides the result, and nothing that a site decides.

    Parameters
    ----------
    config
        The run; its defaults are filled in.
    app
        See :data:`APPS`.
    """
    kept = type(config).model_fields.keys() - SITE_FIELDS - NOT_DEPLOYED
    if app == "own":
        kept &= OWN_APP_FIELDS
    fields = config.resolved().model_dump(mode="json", exclude_none=True, include=set(kept))
    return {"app": app, **fields}


def _folder(path: Path | str, marker: str, *, other: str, advice: str) -> Path:
    folder = Path(path).absolute()
    if not folder.is_dir():
        raise KitError(f"{path}: there is no such folder; quancrypt provision makes kits")
    if not (folder / marker).is_file():
        wrong = f"{advice} takes it" if (folder / other).is_file() else "it is no kit of this kind"
        raise KitError(f"{path}: has no {marker}; {wrong}")
    return folder


def _file(path: Path) -> Path:
    if not path.is_file():
        raise KitError(f"{path}: the file is missing from the kit; copy the whole kit again")
    return path


def _exposed(*paths: Path) -> list[Path]:
    return [path for path in paths if path.stat().st_mode & _OTHERS]


def _common(folder: Path, file: Table) -> dict[str, Any]:
    """Fields of :class:`_Kit`; takes ``[key]``, ``[run]``, and address and port of ``[server]``."""
    server, key, run = file.table("server"), file.table("key"), file.table("run")
    host, port = server.text("host"), server.number("port", 1, 65_535)
    identity = "32 hexadecimal digits"
    key_id = key.text("id", HEXADECIMAL, identity)
    parameters_id = key.text("parameters", HEXADECIMAL, identity)
    key.finish()
    app = run.text("app")
    if app not in APPS:
        raise KitError(f"{run.place}: app = {app!r:.80}; allowed: {', '.join(APPS)}")
    config = _config(run, app)
    return {
        "folder": folder,
        "host": host,
        "port": port,
        "key_id": key_id,
        "parameters_id": parameters_id,
        "app": app,
        "config": config,
        "joint": None if config.threshold is None else checked_facts(_file(folder / JOINT), config),
        "params": _file(folder / PARAMETERS),
        "ca": _file(folder / CA),
        "state": folder / STATE,
    }


def check_fields(place: str, values: Collection[str]) -> None:
    """Raise :class:`KitError` where a run's settings name what no deployment decides.

    Parameters
    ----------
    place
        For the message.
    values
        Names of fields.
    """
    for fields, reason in (
        (SITE_FIELDS, "each site decides it"),
        (NOT_DEPLOYED, "it belongs to simulations"),
    ):
        wrong = sorted(fields.intersection(values))
        if wrong:
            raise KitError(f"{place}: {', '.join(wrong)}: not allowed here; {reason}")


def _config(run: Table, app: str) -> FederationConfig:
    values: Mapping[str, Any] = dict(run.values)
    run.values.clear()
    check_fields(run.place, values)
    kind = LEARNING[app].config if app in LEARNING else QuanCryptConfig
    try:
        config = kind(**values).resolved()
    except ValidationError as error:
        raise KitError(f"{run.place}: {describe_errors(error)}") from error
    if app == "finetune" and (reason := config.only_simulated()):
        raise KitError(f"{run.place}: {reason}")
    return config


def _sites(folder: Path) -> tuple[tuple[Site, ...], int]:
    """The sites, and how many places there are, free ones included."""
    path = folder / CLIENTS
    file = Table.read(path)
    tables = file.tables("client")
    places = len(tables)
    if "places" in file.values:
        places = file.number("places", len(tables), 65_536)
    file.finish()
    sites: list[Site] = []
    for behind, table in zip(range(len(tables) - 1, -1, -1), tables, strict=True):
        name = check_name(table.text("name"), table.place)
        least = sites[-1].partition + 1 if sites else 0
        place = table.number("partition", least, places - 1 - behind)
        table.finish()
        public_key = _file(folder / SUPERNODES / f"{name}.pub")
        if not SSH_EC_KEY.fullmatch(public_key.read_bytes().decode("ascii", "replace")):
            raise KitError(f"{public_key}: allowed: one public key of ECDSA in OpenSSH's format")
        sites.append(Site(name, place, public_key))
    twice = repeated(site.name.lower() for site in sites)
    if twice:
        raise KitError(f"{path}: more than once: {', '.join(twice)}; names differ")
    return tuple(sites), places
