"""``quancrypt passwd``: the same key under another passphrase."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quancrypt_fl.cli.errors import naming
from quancrypt_fl.cli.objects import open_secret_key, parameters_of_key, sealed_key
from quancrypt_fl.cli.options import JsonOnly, NewPassphraseFd, ParamsBesideKey, PassphraseFd
from quancrypt_fl.cli.passphrase import check_descriptors, read_new_passphrase
from quancrypt_fl.cli.signing_key import resealed_keys
from quancrypt_fl.cli.storage import check_output, write
from quancrypt_fl.cli.text import print_json, printable

__all__ = ["passwd"]

_KIT_KEY = "secret.key"


def passwd(
    key: Annotated[
        Path,
        typer.Argument(metavar="KEYFILE", help="secret.qck, or secret.key of a client's kit."),
    ],
    params: ParamsBesideKey = None,
    passphrase_fd: PassphraseFd = None,
    new_passphrase_fd: NewPassphraseFd = None,
    json_only: JsonOnly = False,
) -> None:
    """Change the passphrase of a key file. The key stays the same.

    In a client's kit, that of its signing.key (and of its channel.key, with
    a threshold key) changes along with it.
    The file is replaced in one step, and has mode 0600 afterwards. Both
    passphrases are asked for, or read from --passphrase-fd or
    QUANCRYPT_PASSPHRASE, and from --new-passphrase-fd or
    QUANCRYPT_NEW_PASSPHRASE. Copies of the file keep the old one.

    Example:

      quancrypt passwd keys/secret.qck
    """
    check_descriptors(passphrase_fd, new_passphrase_fd)
    parameters = parameters_of_key(key, params)
    check_output(key, force=True)  # no links: what they lead to would stay as it is
    secret, old = open_secret_key(key, parameters, passphrase_fd)
    new = read_new_passphrase(f"New passphrase for {key}", new_passphrase_fd)
    with naming(key):
        sealed = sealed_key(secret, new)
    # A key that a rotation kept in a kit is not the one whose passphrase the site's own keys have.
    for path, own in resealed_keys(key, old, new) if key.name == _KIT_KEY else []:
        write(path, own, force=True, private=True)
    write(key, sealed, force=True, private=True)
    if json_only:
        print_json({"file": str(key), "key": secret.key_id})
    else:
        print(f"{printable(key)}: key {secret.key_id}, sealed with the new passphrase")
