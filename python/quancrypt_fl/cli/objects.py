"""Files of our own wire format: parameters, keys, updates. Every error names the file."""

from __future__ import annotations

from pathlib import Path

import quancrypt_native as qn
from quancrypt_fl.cli.errors import CommandError, naming
from quancrypt_fl.cli.passphrase import read_passphrase
from quancrypt_fl.cli.storage import read, warn_if_exposed
from quancrypt_native import wire

__all__ = [
    "PARAMETERS_FILE",
    "PUBLIC_KEY_FILE",
    "SECRET_KEY_FILE",
    "kind_of",
    "load_key",
    "load_parameters",
    "load_secret_key",
    "load_update",
    "open_secret_key",
    "parameters_of_key",
    "params_beside",
    "sealed_key",
]

PARAMETERS_FILE = "params.qcp"
GROUP_PARAMETERS_FILE = "group.qcp"
PUBLIC_KEY_FILE = "public.qck"
SECRET_KEY_FILE = "secret.qck"

_KIND_OFFSET = 10  # see quancrypt_native.wire


def kind_of(path: Path, data: bytes) -> wire.Kind:
    """What a file says that it holds; nothing else in it is checked."""
    if not data.startswith(wire.MAGIC):
        raise CommandError(f"{path}: wrong magic: this is no file of quancrypt")
    number = int.from_bytes(data[_KIND_OFFSET : _KIND_OFFSET + 2], "little")
    try:
        return wire.Kind(number)
    except ValueError:
        raise CommandError(f"{path}: holds an object of unknown kind {number}") from None


def load_parameters(path: Path) -> qn.Parameters:
    """Read a parameter file."""
    data = read(path)
    with naming(path):
        return qn.Parameters.from_bytes(data)


def parameters_of_key(key: Path, params: Path | None) -> qn.Parameters:
    """The parameters of ``--params``, by default from ``params.qcp`` in the key's folder.

    The key file is looked at first: a wrong name of it would be reported as missing parameters.
    """
    data = read(key)
    if kind_of(key, data) != wire.Kind.PUBLIC_KEY:
        with naming(key):
            wire.parse(data, wire.Kind.SECRET_KEY)
    if params is not None:
        return load_parameters(params)
    beside = params_beside(key)
    if not beside.exists():
        raise CommandError(f"{beside}: no such file; name the key's parameters with --params")
    return load_parameters(beside)


def params_beside(key: Path) -> Path:
    """``params.qcp`` in the key's folder, whether or not it exists.

    A kit with a threshold key has ``group.qcp`` too: there that belongs to the key.
    """
    group = key.parent / GROUP_PARAMETERS_FILE
    return group if group.is_file() else key.parent / PARAMETERS_FILE


def load_update(path: Path, params: qn.Parameters) -> qn.EncryptedUpdate:
    """Read an update or a sum."""
    data = read(path)
    with naming(path):
        return qn.EncryptedUpdate.from_bytes(data, params)


def load_key(
    path: Path, params: qn.Parameters, descriptor: int | None
) -> qn.SecretKey | qn.PublicKey:
    """Read a secret key, with its passphrase, or a public key.

    Parameters
    ----------
    path
        The key file.
    params
        The key's parameters.
    descriptor
        ``--passphrase-fd``.
    """
    data = read(path)
    if kind_of(path, data) == wire.Kind.PUBLIC_KEY:
        with naming(path):
            return qn.PublicKey.from_bytes(data, params)
    return open_secret_key(path, params, descriptor)[0]


def load_secret_key(path: Path, params: qn.Parameters, descriptor: int | None) -> qn.SecretKey:
    """As :func:`load_key`; a public key is an error."""
    key = load_key(path, params, descriptor)
    if not isinstance(key, qn.SecretKey):
        raise CommandError(f"{path}: this is a public key; decryption needs the secret key")
    return key


def open_secret_key(
    path: Path, params: qn.Parameters, descriptor: int | None
) -> tuple[qn.SecretKey, bytes]:
    """A secret key, and the passphrase that opened its file. Says so if others can read the file.

    Arguments are those of :func:`load_key`.
    """
    data = read(path)
    if kind_of(path, data) == wire.Kind.PUBLIC_KEY:
        raise CommandError(f"{path}: this is a public key; the secret key is needed")
    with naming(path):
        wire.parse(data, wire.Kind.SECRET_KEY)  # no passphrase is asked for a damaged file
    warn_if_exposed(path)
    passphrase = read_passphrase(path, descriptor)
    with naming(path):
        return qn.SecretKey.from_bytes(data, params, passphrase=passphrase), passphrase


def sealed_key(secret: qn.SecretKey, passphrase: bytes) -> bytes:
    """The key sealed, and opened again: it is about to take the place of another file."""
    sealed = secret.to_bytes(passphrase=passphrase)
    qn.SecretKey.from_bytes(sealed, secret.params, passphrase=passphrase)
    return sealed
