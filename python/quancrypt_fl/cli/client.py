"""``quancrypt client``: a client of a deployment, kept running."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import quancrypt_native as qn
from quancrypt_fl.cli.errors import CommandError, naming
from quancrypt_fl.cli.interrupts import interruptible_imports
from quancrypt_fl.cli.options import PassphraseFd
from quancrypt_fl.cli.passphrase import read_passphrase
from quancrypt_fl.cli.server import require_flower
from quancrypt_fl.cli.service_options import LogJson, Verbose

if TYPE_CHECKING:
    from quancrypt_fl.deployment.kits import ClientKit

__all__ = ["client"]


def client(
    kit: Annotated[Path, typer.Argument(metavar="KIT", help="This client's kit: KITS/client-1.")],
    data_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder of the data set's files.", show_default="digits need none"
        ),
    ] = None,
    own_data: Annotated[
        bool,
        typer.Option(
            "--own-data",
            help="The files are this site's own: train on all of them, not on a part.",
        ),
    ] = False,
    app: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="Run this Flower app too, if the server asks for it; repeatable.",
            show_default="the built-in app alone",
        ),
    ] = None,
    task_timeout: Annotated[
        float | None,
        typer.Option(
            min=1.0,
            help="Seconds after which a training that hangs is ended.",
            show_default="never",
        ),
    ] = None,
    passphrase_fd: PassphraseFd = None,
    log_json: LogJson = False,
    verbose: Verbose = False,
) -> None:
    """Run a client of a deployment until Ctrl-C or SIGTERM.

    Starts Flower's SuperNode with the kit's keys, connects to the server, and starts what dies
    again. The passphrase of the key file is read once, and reaches nothing but the trainings. Apps
    that the server sends are run only if they are here as well: the built-in one, and those that
    --app names. What must outlive it is in KIT/state.
    """
    with interruptible_imports():
        from quancrypt_fl.deployment.events import EventLog
        from quancrypt_fl.deployment.kits import ClientKit
        from quancrypt_fl.deployment.supernode import ClientOptions, join

        require_flower()
        from quancrypt_fl.flower.bundles import built_in_bundle, bundle_of

    loaded = ClientKit.load(kit)
    if data_dir is not None and not data_dir.is_dir():
        raise CommandError(f"{data_dir}: there is no such folder; --data-dir names one")
    bundles = [built_in_bundle(), *(bundle_of(folder) for folder in app or ())]
    passphrase = read_passphrase(loaded.secret_key, passphrase_fd)
    _try_key(loaded, passphrase)
    text = passphrase.decode("utf-8", "surrogateescape")
    log = EventLog(json_lines=log_json, verbose=verbose, secrets=[text])
    for path in loaded.exposed():
        log("client", f"{path}: other users can read it; chmod 600 it", level="warning")
    log(
        "client",
        f"{loaded.name}: part {loaded.partition + 1} of {loaded.partitions}, "
        f"server {loaded.address}",
        client=loaded.name,
    )
    options = ClientOptions(
        passphrase=text,
        bundles=[bundle.digest for bundle in bundles],
        data_dir=data_dir,
        own_data=own_data,
        task_timeout=task_timeout,
    )
    join(loaded, options, log)
    log("client", "ended")


def _try_key(kit: ClientKit, passphrase: bytes) -> None:
    """A wrong passphrase is told now, not in the first round."""
    with naming(kit.params):
        params = qn.Parameters.from_bytes(kit.params.read_bytes())
    with naming(kit.secret_key):
        key = qn.SecretKey.from_bytes(kit.secret_key.read_bytes(), params, passphrase=passphrase)
    if key.key_id != kit.key_id:
        raise CommandError(f"{kit.secret_key}: is another key than {kit.folder}'s settings say")
