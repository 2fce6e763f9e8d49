"""A new key for the clients of a deployment: made at one of them, installed at every site.

What is handed out, as ``quancrypt rotate CLIENT --out FOLDER`` writes it::

    FOLDER/clients/rotation.toml   ids of the old and the new key: public
                   secret.key      the new key, sealed with a passphrase of its own
    FOLDER/server/rotation.toml    the same ids
                  model.sealed     the model, sealed with the new key, if one is carried over

Keys are bytes here, sealed by whoever calls. Each file of a kit is replaced in one step; an
installation that was interrupted is finished by repeating it.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from quancrypt_fl.atomic_files import keep_as, write_atomically
from quancrypt_fl.deployment import kits, toml
from quancrypt_fl.deployment.folders import (
    FOLDER_MODE,
    ProvisionError,
    check_place,
    whole_folder,
    write_public,
    write_secret,
)
from quancrypt_fl.deployment.tables import SCHEMA, KitError, Table

__all__ = [
    "CLIENTS",
    "MODEL",
    "SERVER",
    "Rotation",
    "check_key",
    "install_key",
    "rename_key",
    "write_rotation",
]

CLIENTS, SERVER = "clients", "server"
ROTATION, MODEL = "rotation.toml", "model.sealed"

_HEAD = "# Made by quancrypt rotate. Nothing here is secret.\n"
_HEXADECIMAL = re.compile("[0-9a-f]{32}")
_KEY_TABLE = re.compile(r"(?ms)^[ \t]*\[key\][^\n]*\n(?:(?![ \t]*\[)[^\n]*\n)*")
_PUBLIC_MODE = 0o644
_SECRET_MODE = 0o600


@dataclass(frozen=True)
class Rotation:
    """From which key to which.

    Attributes
    ----------
    old_key, new_key
        Fingerprints, 32 hexadecimal digits each.
    parameters_id
        Fingerprint of the encryption parameters, which stay.
    """

    old_key: str
    new_key: str
    parameters_id: str

    @classmethod
    def read(cls, folder: Path) -> Rotation:
        """That of ``FOLDER/clients`` or ``FOLDER/server``.

        Raises
        ------
        KitError
            Naming the file, what it holds and what is allowed.
        """
        if not (folder / ROTATION).is_file():
            raise KitError(
                f"{folder}: has no {ROTATION}; allowed: the folder {CLIENTS} or {SERVER} in what "
                "quancrypt rotate --out wrote"
            )
        file = Table.read(folder / ROTATION)
        ids = [
            file.text(name, _HEXADECIMAL, "32 hexadecimal digits")
            for name in ("old_key", "new_key", "parameters")
        ]
        file.finish()
        return cls(*ids)

    def to_text(self) -> str:
        """What :meth:`read` reads."""
        return _HEAD + toml.table(
            {
                "schema": SCHEMA,
                "old_key": self.old_key,
                "new_key": self.new_key,
                "parameters": self.parameters_id,
            }
        )


def write_rotation(out: Path, rotation: Rotation, sealed_key: bytes, model: bytes | None) -> None:
    """Write what is handed out, all or nothing.

    Parameters
    ----------
    out
        Absent, or an empty folder.
    rotation
        The ids.
    sealed_key
        The new key, for clients.
    model
        The model under the new key, for the server; None: none is carried over.

    Raises
    ------
    ProvisionError
        If ``out`` is not as it must be, or cannot be written.
    """
    check_place(out)
    text = rotation.to_text().encode()
    try:
        with whole_folder(out) as folder:
            for role in (CLIENTS, SERVER):
                (folder / role).mkdir(FOLDER_MODE)
                write_public(folder / role / ROTATION, text)
            write_secret(folder / CLIENTS / kits.SECRET_KEY, sealed_key)
            if model is not None:
                write_public(folder / SERVER / MODEL, model)
    except OSError as error:
        raise ProvisionError(f"{out}: cannot be written: {error.strerror or error}") from error


def check_key(kit: kits.ClientKit | kits.ServerKit, rotation: Rotation) -> None:
    """Raise KitError unless the kit has the rotation's old key, or the new one already."""
    if kit.parameters_id != rotation.parameters_id:
        raise KitError(
            f"{kit.folder}: its encryption parameters are {kit.parameters_id}; the new key is for "
            f"{rotation.parameters_id}"
        )
    if kit.key_id not in (rotation.old_key, rotation.new_key):
        raise KitError(
            f"{kit.folder}: its key is {kit.key_id}; the new key is to take the place of "
            f"{rotation.old_key}"
        )


def install_key(kit: kits.ClientKit, rotation: Rotation, sealed: bytes) -> Path | None:
    """Put the new key into a client's kit. The old key's file stays, as ``secret-KEY.key``.

    Parameters
    ----------
    kit
        The kit, which no process uses now.
    rotation
        The ids.
    sealed
        The new key, sealed with the site's own passphrase; empty: it is in the kit already.

    Returns
    -------
    Path or None
        The old key's file; None if there was nothing to replace.

    Raises
    ------
    KitError
        If a file cannot be written. Each holds its old content then, or the new.
    """
    kept = None
    try:
        if sealed:
            name = kit.secret_key
            kept = name.with_name(f"{name.stem}-{rotation.old_key}{name.suffix}")
            keep_as(name, kept)
            write_atomically(name, sealed, mode=_SECRET_MODE)
    except OSError as error:
        raise KitError(
            f"{error.filename or kit.secret_key}: cannot be written: {error.strerror or error}"
        ) from error
    rename_key(kit, rotation)
    return kept


def rename_key(kit: kits.ClientKit | kits.ServerKit, rotation: Rotation) -> None:
    """Write the new key's id into the settings of a kit; nothing else in them changes.

    Raises
    ------
    KitError
        If the settings are written in a way in which the id is not found, or cannot be written.
    """
    path = kit.folder / (kits.NODE if isinstance(kit, kits.ClientKit) else kits.DEPLOYMENT)
    if kit.key_id == rotation.new_key:
        return
    text = path.read_bytes().decode()
    table = _KEY_TABLE.search(text)
    if table is None or table[0].count(rotation.old_key) != 1:
        raise KitError(
            f'{path}: the id in [key] is not found; write id = "{rotation.new_key}" there'
        )
    changed = table[0].replace(rotation.old_key, rotation.new_key)
    text = text[: table.start()] + changed + text[table.end() :]
    if tomllib.loads(text)["key"]["id"] != rotation.new_key:
        raise KitError(f'{path}: cannot be changed; write id = "{rotation.new_key}" in [key]')
    try:
        write_atomically(path, text.encode(), mode=_PUBLIC_MODE)
    except OSError as error:
        raise KitError(f"{path}: cannot be written: {error.strerror or error}") from error
