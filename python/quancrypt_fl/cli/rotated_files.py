"""A new key in the place of one that ``quancrypt keygen`` made; the old one stays beside it.

Files are replaced one by one, the secret key first. A process that is killed in between leaves the
new public key in :data:`PENDING`, where the next call finds it and finishes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import quancrypt_native as qn
from quancrypt_fl.atomic_files import keep_as, sync_folder
from quancrypt_fl.cli.errors import CommandError, naming
from quancrypt_fl.cli.objects import (
    PUBLIC_KEY_FILE,
    open_secret_key,
    parameters_of_key,
    sealed_key,
)
from quancrypt_fl.cli.storage import check_output, read, write

__all__ = ["PENDING", "RotatedFiles", "kept_name", "rotate_files"]

PENDING = "public.next.qck"
"""The new public key, until it has taken the place of the old one."""


@dataclass(frozen=True)
class RotatedFiles:
    """What was done.

    Attributes
    ----------
    key
        Id of the new key.
    replaced
        Files that now hold the new key.
    old_key, kept
        Id of the old key and its files under their new names; None and none where a call that was
        interrupted has been finished.
    """

    key: str
    replaced: tuple[Path, ...]
    old_key: str | None = None
    kept: tuple[Path, ...] = ()


def kept_name(path: Path, key_id: str) -> Path:
    """Where the old key is kept: ``secret-KEY.qck`` for ``secret.qck``."""
    return path.with_name(f"{path.stem}-{key_id}{path.suffix}")


def rotate_files(path: Path, params: Path | None, descriptor: int | None) -> RotatedFiles:
    """Make a new key with the same parameters, sealed with the same passphrase.

    Parameters
    ----------
    path
        The secret key. With ``key_mode="public"`` its public key, beside it, is replaced too.
    params
        ``--params``.
    descriptor
        ``--passphrase-fd``.
    """
    parameters = parameters_of_key(path, params)
    check_output(path, force=True)  # no links: what they lead to would stay as it is
    old, passphrase = open_secret_key(path, parameters, descriptor)
    public = path.with_name(PUBLIC_KEY_FILE) if parameters.key_mode == "public" else None
    if public is not None and _unfinished(public, old, path):
        _put_public(public)
        return RotatedFiles(old.key_id, (public,))
    keys = qn.keygen(parameters)
    with naming(path):
        sealed = sealed_key(keys.secret, passphrase)
    before = [path] if public is None or not public.exists() else [path, public]
    kept = tuple(_kept(each, old.key_id) for each in before)
    if public is None:
        write(path, sealed, force=True, private=True)
        return RotatedFiles(keys.key_id, (path,), old.key_id, kept)
    write(public.with_name(PENDING), keys.public.to_bytes(), force=True)
    write(path, sealed, force=True, private=True)
    _put_public(public)
    return RotatedFiles(keys.key_id, (path, public), old.key_id, kept)


def _unfinished(public: Path, secret: qn.SecretKey, path: Path) -> bool:
    """Whether the public key that belongs to the secret one still waits for its place."""
    present = _key_of(public, secret.params)
    waiting = _key_of(public.with_name(PENDING), secret.params) == secret.key_id
    if present in (None, secret.key_id):
        return present is None and waiting
    if waiting:
        return True
    raise CommandError(
        f"{public}: is of the key {present}, and {path} is the key {secret.key_id}; put the files "
        "of one key together"
    )


def _key_of(path: Path, params: qn.Parameters) -> str | None:
    if not path.exists():
        return None
    with naming(path):
        return qn.PublicKey.from_bytes(read(path), params).key_id


def _put_public(public: Path) -> None:
    try:
        public.with_name(PENDING).replace(public)
        sync_folder(public.parent)
    except OSError as error:
        raise CommandError(f"{public}: cannot be written: {error.strerror}") from error


def _kept(path: Path, key_id: str) -> Path:
    kept = kept_name(path, key_id)
    try:
        keep_as(path, kept)
    except FileExistsError:
        raise CommandError(
            f"{kept}: exists already, and is not the same file as {path}; move it away"
        ) from None
    except OSError as error:
        raise CommandError(f"{kept}: cannot be written: {error.strerror}") from error
    return kept
