"""``quancrypt provision --add``: kits of clients that join a deployment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

import quancrypt_native as qn
from quancrypt_fl.cli.client import opened_key
from quancrypt_fl.cli.errors import CommandError
from quancrypt_fl.cli.interrupts import interruptible_imports
from quancrypt_fl.cli.passphrase import passphrase_in, read_passphrase
from quancrypt_fl.cli.provision import sealed_for
from quancrypt_fl.cli.text import counted, print_json, printable, table

if TYPE_CHECKING:
    from quancrypt_fl.deployment.kits import ClientKit
    from quancrypt_fl.deployment.newcomers import Added

__all__ = ["add_clients"]

_TAKEN = {
    "add",
    "like",
    "present",
    "place",
    "out",
    "name",
    "passphrase_fd",
    "passphrase_dir",
    "json_only",
}


def add_clients(
    context: typer.Context,
    out: Path,
    count: int,
    *,
    like: Path | None,
    present: int | None,
    place: int | None,
    names: Sequence[str],
    descriptor: int | None,
    folder: Path | None,
    json_only: bool,
) -> None:
    """Make the kits of ``count`` newcomers; see the options of the command.

    Parameters
    ----------
    context
        Of the command: options that the deployment has decided already are refused.
    descriptor
        Has the passphrase of ``like``.
    folder
        Has the newcomers' passphrases; without it they have that of ``like``.
    """
    _refuse_others(context)
    if like is None:
        raise CommandError("--add goes with --like KIT: the kit of a client of the deployment")
    with interruptible_imports():
        from quancrypt_fl.deployment.folders import check_place
        from quancrypt_fl.deployment.joint import refuse_joint
        from quancrypt_fl.deployment.kits import ClientKit, with_clients
        from quancrypt_fl.deployment.newcomers import add_clients as make
        from quancrypt_fl.deployment.newcomers import newcomer_names

    kit = ClientKit.load(like)
    refuse_joint(kit, "another client")
    first = _first(kit, count, present, place)
    chosen = newcomer_names(names, count, first)
    check_place(out)
    total = max(kit.partitions, first + count)
    with_clients(kit.config, total, str(kit.folder))  # before a passphrase is asked for
    passphrase = read_passphrase(kit.secret_key, descriptor)
    passphrases = {
        name: passphrase if folder is None else passphrase_in(folder / name) for name in chosen
    }
    secret = opened_key(kit, passphrase)
    params = qn.Parameters.from_bytes(kit.params.read_bytes())
    made = make(out, kit, chosen, sealed_for(params, secret, passphrases), first)
    if json_only:
        clients = [
            {"name": one.name, "folder": str(out / one.name), "partition": one.partition}
            for one in made.clients
        ]
        print_json({"folder": str(out), "clients": clients, "admission": str(made.admission)})
    else:
        _print(made)


def _first(kit: ClientKit, count: int, present: int | None, place: int | None) -> int:
    """Partition of the first newcomer."""
    if place is not None:
        if count != 1 or present is not None:
            raise CommandError("--place goes with --add 1, and without --present")
        if place == kit.partition + 1:
            raise CommandError(f"--place {place}: is that of {kit.name}, which --like names")
        return place - 1
    present = kit.partitions if present is None else present
    if present <= kit.partition:
        raise CommandError(
            f"--present {present}: {kit.name} is client {kit.partition + 1}; allowed: "
            f"{kit.partition + 1} or more"
        )
    return present


def _refuse_others(context: typer.Context) -> None:
    given = [
        f"--{name.replace('_', '-')}"
        for name in context.params
        if name not in _TAKEN
        and (source := context.get_parameter_source(name)) is not None
        and source.name != "DEFAULT"
    ]
    if given:
        raise CommandError(f"{', '.join(given)}: not with --add; the deployment has decided it")


def _print(made: Added) -> None:
    from quancrypt_fl.deployment.readmes import data_options

    first = made.clients[0]
    rows = [
        [str(made.folder / kit.name), f"client {kit.partition + 1} of {kit.partitions}",
         "key, login key"]
        for kit in made.clients
    ]  # fmt: skip
    rows.append([str(made.admission), f"the server, {first.address}", "nothing"])
    print(table(["folder or file", "goes to", "secret"], rows, left=3))
    print(
        f"\nNext: {counted(len(made.clients), 'kit')} over a private channel, passphrases by "
        "another way. Then\n"
        "on the server, also while it runs and trains:\n"
        f"  quancrypt server server --admit {printable(made.admission.name)}\n"
        "and on the newcomer's machine:\n"
        f"  quancrypt client {printable(first.name)} {data_options(first.app)}"
    )
