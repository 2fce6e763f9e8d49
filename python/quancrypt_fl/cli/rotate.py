"""``quancrypt rotate``: a new key for what comes next, without losing what was made so far."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quancrypt_fl.cli.errors import CommandError
from quancrypt_fl.cli.interrupts import interruptible_imports
from quancrypt_fl.cli.options import JsonOnly, NewPassphraseFd, ParamsBesideKey, PassphraseFd
from quancrypt_fl.cli.passphrase import check_descriptors
from quancrypt_fl.cli.rotated_files import RotatedFiles, rotate_files
from quancrypt_fl.cli.server import require_flower
from quancrypt_fl.cli.text import aligned, print_json, printable

if TYPE_CHECKING:
    from quancrypt_fl.cli.rotated_kits import Installed
    from quancrypt_fl.deployment.rotation import Rotation

__all__ = ["rotate"]


def rotate(
    key: Annotated[
        Path, typer.Argument(metavar="KEY", help="secret.qck of keygen, or the kit of a site.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="With a client's kit: make a new key for all sites here."),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With --out: final-model.sealed of the last run, to go on with it.",
            show_default="the next run starts anew",
        ),
    ] = None,
    install: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="With a kit: put the new key in, from DIR/clients or DIR/server."
        ),
    ] = None,
    params: ParamsBesideKey = None,
    passphrase_fd: PassphraseFd = None,
    new_passphrase_fd: NewPassphraseFd = None,
    json_only: JsonOnly = False,
) -> None:
    r"""Make a new key with the same parameters.

    With secret.qck: the new key takes its place, under the same passphrase,
    and that of public.qck. The old key stays as secret-KEY.qck, to open what
    it encrypted, until you remove it.

    In a deployment, while nothing runs, at one client:

      quancrypt rotate client-1 --out new-key --model final-model.sealed

    then new-key/clients to each client and new-key/server to the server:

      quancrypt rotate client-1 --install new-key/clients
      quancrypt rotate server --install new-key/server

    The new key travels under a passphrase of its own, from
    --new-passphrase-fd or QUANCRYPT_NEW_PASSPHRASE or a prompt; a client's
    kit keeps its passphrase. A call that was interrupted is repeated.

    Example:

      quancrypt rotate keys/secret.qck
    """
    check_descriptors(passphrase_fd, new_passphrase_fd)
    if not key.is_dir():
        _refuse(key, "a client's kit", out=out, model=model, install=install)
        if new_passphrase_fd is not None:
            raise CommandError(
                "--new-passphrase-fd goes with a kit; quancrypt passwd changes a passphrase"
            )
        _show_files(rotate_files(key, params, passphrase_fd), json_only=json_only)
        return
    _refuse(key, "secret.qck", params=params)
    if (out is None) == (install is None):
        raise CommandError(f"{key}: is a kit; allowed: --out or --install, one of them")
    if out is not None:
        _make(key, out, model, passphrase_fd, new_passphrase_fd, json_only=json_only)
    elif install is not None:
        _refuse(key, "--out", model=model)
        _install(key, install, passphrase_fd, new_passphrase_fd, json_only=json_only)


def _refuse(key: Path, needs: str, **options: Path | None) -> None:
    given = [f"--{name}" for name, value in options.items() if value is not None]
    if given:
        raise CommandError(f"{key}: {' and '.join(given)}: allowed with {needs}")


def _make(
    key: Path,
    out: Path,
    model: Path | None,
    descriptor: int | None,
    new: int | None,
    *,
    json_only: bool,
) -> None:
    with interruptible_imports():
        from quancrypt_fl.cli.rotated_kits import make_rotation
        from quancrypt_fl.deployment.kits import ClientKit

        if model is not None:
            require_flower()
    rotation = make_rotation(ClientKit.load(key), out, model, descriptor, new)
    _show_made(rotation, out, carried=model is not None, json_only=json_only)


def _install(
    key: Path, folder: Path, descriptor: int | None, new: int | None, *, json_only: bool
) -> None:
    with interruptible_imports():
        from quancrypt_fl.cli.rotated_kits import install_at_client, install_at_server
        from quancrypt_fl.deployment.kits import DEPLOYMENT, ClientKit, ServerKit

        require_flower()
    if (key / DEPLOYMENT).is_file():
        done = install_at_server(ServerKit.load(key), folder)
        then = (
            "nothing; the next quancrypt run starts anew"
            if done.rounds is None
            else f"quancrypt run --resume goes on after round {done.rounds}"
        )
    else:
        done = install_at_client(ClientKit.load(key), folder, descriptor, new)
        then = "quancrypt client, with the same passphrase as before"
    _show_installed(done, key, then, json_only=json_only)


def _show_files(done: RotatedFiles, *, json_only: bool) -> None:
    if json_only:
        print_json(
            {
                "key": done.key,
                "old_key": done.old_key,
                "replaced": [str(path) for path in done.replaced],
                "kept": [str(path) for path in done.kept],
            }
        )
        return
    rows: list[tuple[str, object]] = [
        (str(path), f"the new key, {done.key}") for path in done.replaced
    ]
    rows += [(str(path), "the old key; remove it when nothing needs it") for path in done.kept]
    print(aligned([(printable(path), what) for path, what in rows]))
    if done.old_key is None:
        print("a rotation that was interrupted is finished; call again for another key")


def _show_made(rotation: Rotation, out: Path, *, carried: bool, json_only: bool) -> None:
    if json_only:
        print_json(
            {
                "folder": str(out),
                "key": rotation.new_key,
                "old_key": rotation.old_key,
                "parameters": rotation.parameters_id,
                "model": carried,
            }
        )
        return
    print(
        aligned(
            [
                ("key", f"{rotation.new_key}, in the place of {rotation.old_key}"),
                (
                    "model",
                    "sealed with the new key" if carried else "none: the next run starts anew",
                ),
                (printable(out / "clients"), "to every client, over a private channel"),
                (printable(out / "server"), "to the server"),
            ]
        )
    )
    print("At each site: quancrypt rotate KIT --install DIR, then delete both folders.")


def _show_installed(done: Installed, kit: Path, then: str, *, json_only: bool) -> None:
    if json_only:
        print_json(
            {
                "kit": str(kit),
                "key": done.key,
                "old_key": done.old_key,
                "kept": None if done.kept is None else str(done.kept),
                "rounds": done.rounds,
            }
        )
        return
    rows: list[tuple[str, object]] = [("key", f"{done.key}, in the place of {done.old_key}")]
    if done.kept is not None:
        rows.append(("old key", f"{done.kept}; remove it when nothing needs it"))
    print(aligned([*rows, ("next", then)]))
