"""``quancrypt server``: the server of a deployment, kept running."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quancrypt_fl.cli.errors import CommandError
from quancrypt_fl.cli.interrupts import interruptible_imports
from quancrypt_fl.cli.service_options import LogJson, Verbose
from quancrypt_fl.cli.text import counted, printable

__all__ = ["server"]


def server(
    kit: Annotated[Path, typer.Argument(metavar="KIT", help="The server's kit: KITS/server.")],
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="[HOST:]PORT",
            help="Serve the figures of a run for Prometheus here, at /metrics.",
            show_default="not served; HOST 127.0.0.1",
        ),
    ] = None,
    admit: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Do not start: add clients to the kit, from the admission.toml that quancrypt "
            "provision --add made. A server that is running lets them in.",
            show_default=False,
        ),
    ] = None,
    remove: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Do not start: take a client off the kit, its login and its signing key. A server "
            "that is running shuts it out.",
            show_default=False,
        ),
    ] = None,
    log_json: LogJson = False,
    verbose: Verbose = False,
) -> None:
    """Run the server of a deployment until Ctrl-C or SIGTERM.

    Starts Flower's SuperLink with the kit's certificates, lets the kit's clients connect and nobody
    else, and starts what dies again. Trainings are started with quancrypt run, on the same machine.
    What must outlive it is in KIT/state.
    """
    if admit is not None or remove is not None:
        _change(kit, admit, remove, metrics)
        return
    with interruptible_imports():
        from quancrypt_fl.deployment.events import EventLog
        from quancrypt_fl.deployment.kits import ServerKit
        from quancrypt_fl.deployment.superlink import serve

        require_flower()
    loaded = ServerKit.load(kit)
    log = EventLog(json_lines=log_json, verbose=verbose)
    for path in loaded.exposed():
        log("server", f"{path}: other users can read it; chmod 600 it", level="warning")
    log(
        "server",
        f"{loaded.folder}: {len(loaded.sites)} clients, listening on {loaded.listen_address}",
        clients=len(loaded.sites),
    )
    serve(loaded, log, metrics=_metrics(metrics))
    log("server", "ended")


def _change(kit: Path, admit: Path | None, remove: str | None, metrics: str | None) -> None:
    """Change the kit's list of clients, and start nothing."""
    if metrics is not None:
        raise CommandError("--admit and --remove start nothing: not with --metrics")
    if admit is not None and remove is not None:
        raise CommandError("--admit and --remove: allowed: one of them")
    if admit is not None:
        _admit(kit, admit)
    elif remove is not None:
        _remove(kit, remove)


def _remove(kit: Path, name: str) -> None:
    from quancrypt_fl.deployment.removal import remove

    loaded = remove(kit, name)
    print(
        f"{printable(name)}: may no longer connect or upload to {printable(kit)}, which has "
        f"{counted(len(loaded.sites), 'client')}.\n"
        "It still has the clients' key: quancrypt rotate makes another one"
    )


def _admit(kit: Path, file: Path) -> None:
    from quancrypt_fl.deployment.admission import Admission, admit

    admission = Admission.read(file)
    loaded = admit(kit, admission)
    names = ", ".join(one.name for one in admission.newcomers)
    print(
        f"{printable(names)}: known to {printable(kit)}, which has "
        f"{counted(len(loaded.sites), 'client')}"
    )


def require_flower() -> None:
    """Raise :class:`CommandError` where Flower is not installed."""
    from importlib.util import find_spec

    if find_spec("flwr") is None:
        raise CommandError("Flower is not installed: pip install 'quancrypt-native[flower]'")


def _metrics(place: str | None) -> str | None:
    if place is None:
        return None
    host, _, port = place.rpartition(":")
    if not port.isdigit() or not 1 <= int(port) <= 65_535:
        raise CommandError(f"--metrics {place}: allowed: PORT or HOST:PORT, PORT from 1 to 65535")
    return f"{host or '127.0.0.1'}:{port}"
