"""``quancrypt keygen``: parameters and keys as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import quancrypt_native as qn
from quancrypt_fl.cli.errors import CommandError
from quancrypt_fl.cli.objects import PARAMETERS_FILE, PUBLIC_KEY_FILE, SECRET_KEY_FILE
from quancrypt_fl.cli.options import Bits, JsonOnly, KeyMode, PassphraseFd, Security
from quancrypt_fl.cli.passphrase import read_passphrase
from quancrypt_fl.cli.storage import check_folder, check_output, write
from quancrypt_fl.cli.text import aligned, print_json, printable

__all__ = ["keygen"]

_PRIVATE_FOLDER = 0o700


def keygen(
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for the files; made if it does not exist.")
    ],
    bits: Bits = 8,
    max_weight: Annotated[
        int,
        typer.Option(help="Largest total of integer weights in a sum: clients, if all weigh 1."),
    ] = 16,
    security: Security = 128,
    key_mode: KeyMode = "symmetric",
    values: Annotated[
        int | None,
        typer.Option(
            help="Values in an update, to choose ciphertexts of the right size.",
            show_default="any size: full ciphertexts",
        ),
    ] = None,
    passphrase_fd: PassphraseFd = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Replace existing keys; what they encrypted stays locked for ever."
        ),
    ] = False,
    json_only: JsonOnly = False,
) -> None:
    r"""Make encryption parameters and a key.

    Writes into DIR:

      params.qcp   the parameters, public: for every client and the server
      secret.qck   the secret key, sealed with a passphrase, mode 0600:
                   for those who decrypt, and to encrypt with symmetric keys
      public.qck   the public key, for those who only encrypt
                   (with --key-mode public)

    The passphrase is asked for, or read from --passphrase-fd or the
    environment variable QUANCRYPT_PASSPHRASE. Without it the key is lost.

    Example:

      quancrypt keygen --out keys --bits 8 --max-weight 16
    """
    params = qn.Parameters.for_aggregation(
        bits=bits, max_weight=max_weight, security=security, key_mode=key_mode, values=values
    )
    files = {"params": out / PARAMETERS_FILE, "secret": out / SECRET_KEY_FILE}
    unused = out / PUBLIC_KEY_FILE
    if key_mode == "public":
        files["public"] = unused
    check_folder(out)
    if out.is_dir():
        for path in dict.fromkeys([*files.values(), unused]):
            check_output(path, force=force)
    passphrase = read_passphrase(files["secret"], passphrase_fd, new=True)
    keys = qn.keygen(params)
    sealed = keys.secret.to_bytes(passphrase=passphrase)
    try:
        out.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
        unused.unlink(missing_ok=True)  # with --force: it would not belong to the new key
    except OSError as error:
        raise CommandError(f"{out}: cannot be written: {error.strerror}") from error
    write(files["params"], params.to_bytes(), force=force)
    if "public" in files:
        write(files["public"], keys.public.to_bytes(), force=force)
    write(files["secret"], sealed, force=force, private=True)
    if json_only:
        print_json(
            {
                "files": {name: str(path) for name, path in files.items()},
                "key": keys.key_id,
                "parameters": params.explain().as_dict(),
            }
        )
        return
    purposes = {
        "params": "parameters, public: for every client and the server",
        "secret": "secret key, sealed with the passphrase: never for the server",
        "public": "public key, for those who only encrypt",
    }
    print(aligned([(printable(path), purposes[name]) for name, path in files.items()]))
    print(
        f"key {keys.key_id}, parameters {params.fingerprint}: {params.bits}-bit values, "
        f"total weight up to {params.max_weight}, {params.security}-bit security"
    )
