"""``quancrypt provision``: one folder per site with the keys and settings of a deployment."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import quancrypt_native as qn
from quancrypt_fl.cli.config_options import config_from, with_config_options_except
from quancrypt_fl.cli.errors import CommandError
from quancrypt_fl.cli.interrupts import interruptible_imports
from quancrypt_fl.cli.options import JsonOnly
from quancrypt_fl.cli.passphrase import VARIABLE, passphrase_in, read_passphrase
from quancrypt_fl.cli.provision_finetune import finetuning, with_tuning
from quancrypt_fl.cli.text import aligned, counted, print_json, printable, table
from quancrypt_fl.config import QuanCryptConfig
from quancrypt_fl.joint.facts import check_threshold
from quancrypt_fl.lm.config import FinetuneConfig

if TYPE_CHECKING:
    from quancrypt_fl.deployment.provisioning import ClientsKey, Plan, Provisioned
    from quancrypt_fl.envelopes.signer import Signer
    from quancrypt_fl.federation_config import FederationConfig

__all__ = ["provision", "sealed_for"]

_SERVER, _KEYS, _JOIN = "Server", "Keys and certificates", "Clients that come later"
_PORT = 8000  # Flower's
_MODEL_OPTIONS = ("dataset", "model")

_ONE_PASSPHRASE = (
    "the kits have one passphrase: whoever copies as many of them as open a sum, and records what "
    "passes the server while the clients make their key, has that key. --passphrase-dir gives each "
    "kit its own"
)


@with_config_options_except(
    "data_dir", "out", "tensorboard", "device", "processes",  # a site's own business
    "method", "encryption", "dropout", "open_dropout",  # of simulations
    "paillier_bits", "tenseal_parameters",
    "groups", "dp_missing", "dp_epsilon", "dp_delta", "dp_clip",
)  # fmt: skip
def provision(
    context: typer.Context,
    out: Annotated[
        Path,
        typer.Option(metavar="KITS", help="Folder for the kits; new, or empty."),
    ],
    name: Annotated[
        list[str] | None,
        typer.Option(
            help="Name of a client, once for each.", show_default="client-1, client-2, ..."
        ),
    ] = None,
    no_model: Annotated[
        bool,
        typer.Option(
            "--no-model",
            help="For a Flower app of your own: data set and model are its business.",
        ),
    ] = False,
    values: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="With --no-model: values in an update, to choose ciphertexts of the right size.",
            show_default="any size: full ciphertexts",
        ),
    ] = None,
    finetune: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Tune a language model's adapter: a TOML file of its choices, named as the "
            "options of quancrypt lm finetune (local_steps = 4). Beside it no others are given.",
            show_default="image classifiers",
        ),
    ] = None,
    add: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Make kits for N clients that join a deployment, which --like names.",
            show_default="a new deployment",
            rich_help_panel=_JOIN,
        ),
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(
            metavar="KIT",
            help="With --add: the kit of a client of that deployment; its passphrase is asked for.",
            show_default=False,
            rich_help_panel=_JOIN,
        ),
    ] = None,
    present: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="With --add: clients that the deployment has by now.",
            show_default="as many as when KIT was made",
            rich_help_panel=_JOIN,
        ),
    ] = None,
    place: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="With --add 1: take the place of client N, which was removed.",
            show_default="the next place",
            rich_help_panel=_JOIN,
        ),
    ] = None,
    json_only: JsonOnly = False,
    server_address: Annotated[
        str,
        typer.Option(
            metavar="HOST[:PORT]",
            help="Where clients reach the server. localhost: all on this machine.",
            rich_help_panel=_SERVER,
        ),
    ] = "localhost",
    port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65_535,
            help="Its TCP port.",
            show_default=f"of --server-address, else {_PORT}",
            rich_help_panel=_SERVER,
        ),
    ] = None,
    certificate_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST",
            help="A further name or address of the server in its certificate; repeatable.",
            show_default="localhost, 127.0.0.1 and ::1 are always there",
            rich_help_panel=_SERVER,
        ),
    ] = None,
    certificate_days: Annotated[
        int,
        typer.Option(
            help="Validity of the server's certificate, 1 to 3650 days.", rich_help_panel=_KEYS
        ),
    ] = 825,
    keep_ca: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Keep the certificate authority's private key here, to sign another certificate "
            "for the server later.",
            show_default="its private key is not kept",
            rich_help_panel=_KEYS,
        ),
    ] = None,
    passphrase_fd: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Read the passphrase of all clients' key files (one line) from this descriptor.",
            show_default=f"{VARIABLE}, else a prompt",
            rich_help_panel=_KEYS,
        ),
    ] = None,
    passphrase_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="A passphrase per client: the first line of the file DIR/NAME.",
            show_default="one passphrase for all",
            rich_help_panel=_KEYS,
        ),
    ] = None,
) -> None:
    r"""Make the kits of a deployment: keys, certificates, settings.

    Writes into KITS, all or nothing:

      server/     TLS certificate and key, the clients' public keys, the
                  run's settings. No key that opens an update
      client-1/   the clients' secret key, sealed with a passphrase; what
      ...         the server is recognized by; this client's own login key,
                  and its own signing key, sealed likewise
      README.txt  what goes where

    With --threshold nobody has the key of updates: all clients make it
    together when the first training begins, and so many of them open each
    sum together. No client can join later.

    The passphrase is asked for, or read from --passphrase-fd,
    --passphrase-dir or the environment variable QUANCRYPT_PASSPHRASE.

    For example:

      quancrypt provision --clients 3 --out kits --server-address fl.example.org
      quancrypt provision --clients 5 --threshold 3 --out kits
      quancrypt provision --finetune tuning.toml --clients 3 --out kits
      quancrypt provision --add 1 --like kits/client-1 --out more
    """
    if add is not None:
        from quancrypt_fl.cli.newcomers import add_clients

        with _terminated_as_interrupted():
            add_clients(
                context, out, add, like=like, present=present, place=place, names=name or (),
                descriptor=passphrase_fd, folder=passphrase_dir, json_only=json_only,
            )  # fmt: skip
        return
    if like is not None or present is not None:
        raise CommandError("--like and --present go with --add")
    if place is not None:
        raise CommandError("--place goes with --add 1")
    own_app = _own_app(context, no_model, values)
    clients = _clients(context, name)
    config = finetuning(context, finetune, clients) if finetune else _images(context, clients)
    names = name or [f"client-{number}" for number in range(1, config.clients + 1)]
    with interruptible_imports():
        from quancrypt_fl.deployment.folders import check_place
        from quancrypt_fl.deployment.provisioning import Plan
        from quancrypt_fl.deployment.provisioning import provision as make

    host, chosen_port = _address(server_address, port)
    plan = Plan(
        names=tuple(names),
        config=config,
        host=host,
        port=chosen_port,
        app="finetune" if finetune else "own" if own_app else "builtin",
        other_hosts=tuple(certificate_host or ()),
        days=certificate_days,
    )
    for folder in (out, keep_ca):
        if folder is not None:
            check_place(folder)
    if isinstance(config, FinetuneConfig):
        plan, values = with_tuning(plan, config)
    elif not own_app:
        values = _values(config)
    params = _parameters(plan.config, values)
    passphrases = _passphrases(plan, out, passphrase_fd, passphrase_dir)
    with _terminated_as_interrupted():
        key = _clients_key(params, plan, passphrases)
        made = make(out, plan, key, keep_authority=keep_ca)
    one_passphrase = passphrase_dir is None
    warnings = [_ONE_PASSPHRASE] if one_passphrase and config.threshold is not None else []
    if json_only:
        print_json({**_document(made, plan, params), "warnings": warnings})
    else:
        _print(made, plan, params, one_passphrase=one_passphrase)
        for warning in warnings:
            print(f"\nWarning: {warning}.")


def _own_app(context: typer.Context, no_model: bool, values: int | None) -> bool:
    if no_model:
        given = [f"--{option}" for option in _MODEL_OPTIONS if _is_given(context, option)]
        if given:
            raise CommandError(f"{' and '.join(given)}: not with --no-model; the app decides it")
    elif values is not None:
        raise CommandError("--values goes with --no-model; otherwise the model decides it")
    return no_model


def _images(context: typer.Context, clients: int | None) -> QuanCryptConfig:
    """A run on images, or of an app of one's own."""
    clients = clients or context.params["clients"]
    if context.params["threshold"] is not None:
        check_threshold(context.params["threshold"], clients)
    config = config_from(context, clients=clients, out=None)
    if reason := config.only_simulated():
        raise CommandError(f"{reason}; quancrypt simulate has them")
    return config


def _clients(context: typer.Context, names: list[str] | None) -> int | None:
    """Number of clients, if the command line says one."""
    clients: int | None = context.params["clients"] if _is_given(context, "clients") else None
    if names and clients not in (None, len(names)):
        raise CommandError(
            f"--clients is {clients}, but --name is given {counted(len(names), 'time')}; allowed: "
            "one name per client, or no --clients"
        )
    return len(names) if names else clients


def _is_given(context: typer.Context, option: str) -> bool:
    source = context.get_parameter_source(option)
    return source is not None and source.name != "DEFAULT"


def _address(given: str, port: int | None) -> tuple[str, int]:
    from quancrypt_fl.deployment.addresses import parse_address

    host, own_port = parse_address(given)
    if own_port is not None and port not in (None, own_port):
        raise CommandError(f"--server-address says port {own_port}, and --port {port}")
    return host, own_port or port or _PORT


def _values(config: FederationConfig) -> int:
    assert isinstance(config, QuanCryptConfig)
    with interruptible_imports():
        from quancrypt_fl.deployment.sizing import values_of

        return values_of(config.resolved())


def _parameters(config: FederationConfig, values: int | None) -> qn.Parameters:
    max_weight = config.resolved().max_weight
    assert max_weight is not None
    return qn.Parameters.for_aggregation(
        bits=config.bits,
        max_weight=max_weight,
        security=config.security,
        key_mode="symmetric" if config.threshold is None else "threshold",
        parties=None if config.threshold is None else config.clients,
        values=values,
    )


def _passphrases(
    plan: Plan, out: Path, descriptor: int | None, folder: Path | None
) -> dict[str, bytes]:
    """Passphrase by client."""
    if folder is None:
        one = read_passphrase(out / "*" / "secret.key", descriptor, new=True)
        return dict.fromkeys(plan.names, one)
    if descriptor is not None:
        raise CommandError("--passphrase-fd and --passphrase-dir: allowed: one of them")
    return {name: passphrase_in(folder / name) for name in plan.names}


def _clients_key(params: qn.Parameters, plan: Plan, passphrases: dict[str, bytes]) -> ClientsKey:
    """A fresh key, sealed once for each passphrase: that takes 64 MiB and a moment each time."""
    if plan.config.threshold is None:
        return sealed_for(params, qn.keygen(params).secret, passphrases)
    from quancrypt_fl.cli.joint_kits import joint_parts

    group, parts = joint_parts(plan.config, plan.names, passphrases)
    return replace(sealed_for(params, group, passphrases), joint=parts)


def sealed_for(
    params: qn.Parameters, secret: qn.SecretKey, passphrases: Mapping[str, bytes]
) -> ClientsKey:
    """A key for kits, with the passphrase of each client."""
    from quancrypt_fl.deployment.provisioning import ClientsKey

    sealed: dict[bytes, bytes] = {}

    def seal(name: str) -> bytes:
        passphrase = passphrases[name]
        if passphrase not in sealed:
            sealed[passphrase] = secret.to_bytes(passphrase=passphrase)
        return sealed[passphrase]

    def seal_signer(signer: Signer) -> bytes:
        return signer.to_bytes(passphrase=passphrases[signer.member.name])

    return ClientsKey(params.to_bytes(), params.fingerprint, secret.key_id, seal, seal_signer)


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does: half-made kits are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _document(made: Provisioned, plan: Plan, params: qn.Parameters) -> dict[str, Any]:
    from quancrypt_fl.deployment.kits import run_table

    server = made.server
    expires = made.certificate.certificate.not_valid_after_utc
    return {
        "folder": str(made.folder),
        "server": {
            "folder": str(made.folder / "server"),
            "address": server.address,
            "listen": server.listen_address,
            "certificate_until": expires.isoformat(),
        },
        "clients": [
            {"name": kit.name, "folder": str(made.folder / kit.name), "partition": kit.partition}
            for kit in made.clients
        ],
        "authority": None if made.authority is None else str(made.authority),
        "app": plan.app,
        "key": server.key_id,
        "threshold": plan.config.threshold,
        "parameters": params.explain().as_dict(),
        "config": run_table(plan.config, plan.app),
    }


def _room(config: FederationConfig, params: qn.Parameters) -> tuple[str, str]:
    if config.threshold is None:
        return "room", f"for up to {params.max_weight} clients in a round; --max-weight makes more"
    return (
        "threshold",
        f"any {config.threshold} of the {config.clients} clients open a sum; all of them make the "
        "key when the first training begins, and no other can join",
    )


def _print(made: Provisioned, plan: Plan, params: qn.Parameters, *, one_passphrase: bool) -> None:
    from quancrypt_fl.deployment.readmes import data_options

    out = made.folder
    expires = made.certificate.certificate.not_valid_after_utc
    rows = [[str(out / "server"), f"the machine that clients reach as {plan.address}", "TLS key"]]
    secret = "key, login key" if plan.config.threshold is None else "group, channel, login key"
    rows += [
        [str(out / kit.name), f"client {kit.partition + 1} of {kit.partitions}", secret]
        for kit in made.clients
    ]
    if made.authority is not None:
        rows.append([str(made.authority), "you, off the server and the clients", "CA key"])
    print(table(["folder", "goes to", "secret"], rows, left=3))
    print()
    config = plan.config
    what = "an app of your own"
    if isinstance(config, FinetuneConfig):
        what = f"{config.task}, {config.model}, mode {config.mode}, rank {config.rank}"
    elif isinstance(config, QuanCryptConfig) and plan.app != "own":
        what = f"{config.dataset}, {config.model}"
    passphrases = "one passphrase" if one_passphrase else "a passphrase each"
    facts: list[tuple[str, object]] = [
        ("run", f"{what}, {counted(config.rounds, 'round')}"),
        ("key", f"{made.server.key_id}, {passphrases}"),
        (
            "parameters",
            f"{params.fingerprint}: {params.bits}-bit values, total weight up to "
            f"{params.max_weight}, {params.security}-bit security",
        ),
        _room(config, params),
        ("certificate", f"until {expires:%Y-%m-%d}"),
    ]
    print(aligned(facts))
    first = made.clients[0].name
    print(
        "\nNext: each folder to its machine over a private channel, passphrases by another way,\n"
        f"then delete {printable(out)}. On the machines, the server first:\n"
        "  quancrypt server server\n"
        f"  quancrypt client {printable(first)} {data_options(plan.app)}\n"
        "  quancrypt run server\n"
        f"The server's firewall lets TCP port {plan.port} in. See {printable(out / 'README.txt')}."
    )
