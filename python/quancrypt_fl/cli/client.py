"""``quancrypt client``: a client of a deployment, kept running."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import quancrypt_native as qn
from quancrypt_fl.cli.errors import CommandError, naming
from quancrypt_fl.cli.interrupts import interruptible_imports
from quancrypt_fl.cli.joint_kits import opened_channel
from quancrypt_fl.cli.lm_text_options import require_language_models
from quancrypt_fl.cli.options import PassphraseFd
from quancrypt_fl.cli.passphrase import read_passphrase
from quancrypt_fl.cli.server import require_flower
from quancrypt_fl.cli.service_options import LogJson, Verbose
from quancrypt_native.memory import forbid_core_dumps

if TYPE_CHECKING:
    from quancrypt_fl.deployment.kits import ClientKit
    from quancrypt_fl.envelopes.signer import Signer
    from quancrypt_native.channels import ChannelKey

__all__ = ["client", "opened_key", "opened_signer"]


def client(
    kit: Annotated[Path, typer.Argument(metavar="KIT", help="This client's kit: KITS/client-1.")],
    data_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder of the data set's files.", show_default="digits need none"
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="To tune a language model: folder of the base model.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="To tune a language model: a text file, a folder with train.tsv and dev.tsv, or "
            "one with pictures.",
            show_default=False,
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
    closed: Annotated[
        bool,
        typer.Option(
            "--closed",
            help="Close its processes to debuggers and to other programs of this user.",
        ),
    ] = False,
    core_dumps: Annotated[
        bool,
        typer.Option("--core-dumps", help="Leave core dumps of its processes to the system."),
    ] = False,
    passphrase_fd: PassphraseFd = None,
    log_json: LogJson = False,
    verbose: Verbose = False,
) -> None:
    """Run a client of a deployment until Ctrl-C or SIGTERM.

    Starts Flower's SuperNode with the kit's keys, connects to the server, and starts what dies
    again. The passphrase of the key file is read once and handed to nobody: trainings open a copy
    of the key that is sealed for this run. Apps that the server sends are run only if they are here
    as well: the built-in one, and those that --app names. What must outlive it is in KIT/state.
    The system writes no core dumps of its processes.
    """
    with interruptible_imports():
        from quancrypt_fl.deployment.events import EventLog
        from quancrypt_fl.deployment.kits import ClientKit
        from quancrypt_fl.deployment.supernode import ClientOptions, join

        require_flower()
        from quancrypt_fl.flower import confinement
        from quancrypt_fl.flower.bundles import built_in_bundle, bundle_of

    if not core_dumps:
        forbid_core_dumps()
    if closed:
        os.environ[confinement.CLOSED] = "1"  # its processes begin with it
        confinement.close_if_asked()
    loaded = ClientKit.load(kit)
    _check_data(loaded, data_dir, model, data)
    bundles = [built_in_bundle(), *(bundle_of(folder) for folder in app or ())]
    passphrase = read_passphrase(loaded.secret_key, passphrase_fd)
    key = opened_key(loaded, passphrase)
    signer = opened_signer(loaded, passphrase)
    channel = opened_channel(loaded, passphrase)
    text = passphrase.decode("utf-8", "surrogateescape")
    token = secrets.token_hex(32)
    log = EventLog(json_lines=log_json, verbose=verbose, secrets=[text, token])
    for path in loaded.exposed():
        log("client", f"{path}: other users can read it; chmod 600 it", level="warning")
    log(
        "client",
        f"{loaded.name}: part {loaded.partition + 1} of {loaded.partitions}, "
        f"server {loaded.address}",
        client=loaded.name,
    )
    with _session_keys(key, signer, channel, token) as files:
        del key, signer, channel, passphrase, text
        options = ClientOptions(
            key_file=files[0],
            signing_file=files[1],
            channel_file=files[2],
            passphrase=token,
            bundles=[bundle.digest for bundle in bundles],
            data_dir=data_dir,
            model=model,
            data=data,
            own_data=own_data,
            task_timeout=task_timeout,
        )
        join(loaded, options, log)
    log("client", "ended")


def _check_data(
    kit: ClientKit, data_dir: Path | None, model: Path | None, data: Path | None
) -> None:
    """Raise :class:`CommandError` unless what is given is there, and is what the run trains on."""
    if kit.app == "finetune":
        require_language_models()
        if data_dir is not None or model is None or data is None:
            raise CommandError(
                f"{kit.folder}: this run tunes a language model; name the base model's folder with "
                "--model and the data with --data, and no --data-dir"
            )
        if not data.exists() and not _is_bundled(kit, data):
            raise CommandError(f"{data}: there is no such file or folder; --data names one")
    elif model is not None or data is not None:
        raise CommandError(
            "--model and --data go with a run that tunes a language model; this kit's takes "
            "--data-dir"
        )
    for name, folder in (("--data-dir", data_dir), ("--model", model)):
        if folder is not None and not folder.is_dir():
            raise CommandError(f"{folder}: there is no such folder; {name} names one")


def _is_bundled(kit: ClientKit, data: Path) -> bool:
    """Whether ``data`` names the data set that needs no files, and the run takes pictures."""
    return str(data) == "digits" and getattr(kit.config, "task", "") in ("clip", "multimodal")


@contextmanager
def _session_keys(
    key: qn.SecretKey, signer: Signer, channel: ChannelKey | None, token: str
) -> Iterator[tuple[Path, Path, Path | None]]:
    """The keys sealed for this run alone, under a random token: each of the many processes that
    Flower starts opens them in a millisecond, and none of them is given the passphrase.

    In memory (``/dev/shm``), where the machine has that; gone when the client ends.
    """
    memory = Path("/dev/shm")
    place = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="quancrypt-", dir=place) as folder:
        place = Path(folder)
        files = place / "session.key", place / "session-signing.key", place / "session-channel.key"
        for path, one in zip(files, (key, signer, channel), strict=True):
            if one is not None:
                path.touch(mode=0o600)
                path.write_bytes(one.to_bytes(passphrase=token.encode(), random_passphrase=True))
        yield files[0], files[1], None if channel is None else files[2]


def opened_key(kit: ClientKit, passphrase: bytes) -> qn.SecretKey:
    """The key of a client's kit. A wrong passphrase is told now, not in the first round."""
    with naming(kit.key_params):
        params = qn.Parameters.from_bytes(kit.key_params.read_bytes())
    with naming(kit.secret_key):
        key = qn.SecretKey.from_bytes(kit.secret_key.read_bytes(), params, passphrase=passphrase)
    if key.key_id != kit.key_id:
        raise CommandError(f"{kit.secret_key}: is another key than {kit.folder}'s settings say")
    return key


def opened_signer(kit: ClientKit, passphrase: bytes) -> Signer:
    """The signing key of a client's kit."""
    from quancrypt_fl.envelopes.signer import Signer

    with naming(kit.signing_key):
        signer = Signer.from_bytes(kit.signing_key.read_bytes(), passphrase=passphrase)
    if signer.member.name != kit.name:
        raise CommandError(
            f"{kit.signing_key}: is the signing key of {signer.member.name}, not of {kit.name}"
        )
    return signer
