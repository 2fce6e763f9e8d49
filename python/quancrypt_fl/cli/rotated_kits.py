"""A new key for a deployment: made at one client, installed at each client and at the server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import quancrypt_native as qn
from quancrypt_fl.cli.errors import CommandError, naming
from quancrypt_fl.cli.objects import load_parameters, open_secret_key, sealed_key
from quancrypt_fl.cli.passphrase import read_new_passphrase
from quancrypt_fl.cli.storage import read
from quancrypt_native import wire

if TYPE_CHECKING:
    from quancrypt_fl.deployment.kits import ClientKit, ServerKit
    from quancrypt_fl.deployment.rotation import Rotation

__all__ = ["Installed", "install_at_client", "install_at_server", "make_rotation"]


@dataclass(frozen=True)
class Installed:
    """What was done at a site.

    Attributes
    ----------
    old_key, key
        Ids of the old key and of the new one.
    kept
        The old key's file, at a client.
    rounds
        At the server: finished rounds of the training that goes on with the new key; None: none.
    """

    old_key: str
    key: str
    kept: Path | None = None
    rounds: int | None = None


def make_rotation(
    kit: ClientKit, out: Path, model: Path | None, descriptor: int | None, new: int | None
) -> Rotation:
    """Make a key with the kit's parameters, and what sites need to install it, in ``out``.

    Parameters
    ----------
    kit
        Of a client.
    out
        Absent or empty.
    model
        The model sealed with the old key, to be carried over.
    descriptor, new
        ``--passphrase-fd`` for the kit's key, ``--new-passphrase-fd`` for the new one.
    """
    from quancrypt_fl.deployment.folders import check_place
    from quancrypt_fl.deployment.joint import refuse_joint
    from quancrypt_fl.deployment.rotation import Rotation, write_rotation

    refuse_joint(kit, "another key")
    check_place(out)
    data = None if model is None else read(model)
    params = load_parameters(kit.params)
    old, passphrase = open_secret_key(kit.secret_key, params, descriptor)
    if old.key_id != kit.key_id:
        raise CommandError(f"{kit.secret_key}: is another key than {kit.folder}'s settings say")
    fresh = qn.keygen(params).secret
    if data is not None and model is not None:
        data = _resealed(model, data, old, fresh)
    chosen = read_new_passphrase(f"Passphrase of the new key in {out}", new)
    if chosen == passphrase:
        raise CommandError(
            f"the new key's passphrase is that of {kit.secret_key}, which a client that left may "
            "know; allowed: another one"
        )
    sealed = sealed_key(fresh, chosen)
    rotation = Rotation(old.key_id, fresh.key_id, params.fingerprint)
    write_rotation(out, rotation, sealed, data)
    return rotation


def _resealed(path: Path, data: bytes, old: qn.SecretKey, new: qn.SecretKey) -> bytes:
    from quancrypt_fl.flower.final import resealed
    from quancrypt_fl.flower.snapshot_prefix import SnapshotError

    try:
        return resealed(data, old, new)
    except SnapshotError as error:
        raise CommandError(f"{path}: {error}") from error


def install_at_client(
    kit: ClientKit, folder: Path, descriptor: int | None, new: int | None
) -> Installed:
    """Put the new key into a client's kit, sealed with the passphrase of the kit.

    Parameters
    ----------
    kit
        The kit; no process may use it.
    folder
        ``clients`` of what :func:`make_rotation` wrote.
    descriptor, new
        ``--passphrase-fd`` for the kit's key, ``--new-passphrase-fd`` for the new one.
    """
    from quancrypt_fl.deployment.kits import SECRET_KEY
    from quancrypt_fl.deployment.rotation import Rotation, check_key, install_key
    from quancrypt_fl.deployment.sites import in_use

    rotation = Rotation.read(folder)
    check_key(kit, rotation)
    with in_use(kit.state, "quancrypt rotate"):
        params = load_parameters(kit.params)
        present = _key_id(kit.secret_key)
        if present == rotation.new_key:  # an earlier call got so far
            return Installed(rotation.old_key, present, install_key(kit, rotation, b""))
        old, passphrase = open_secret_key(kit.secret_key, params, descriptor)
        if old.key_id != rotation.old_key:
            raise CommandError(
                f"{kit.secret_key}: is the key {old.key_id}; the new one is to take the place of "
                f"{rotation.old_key}"
            )
        source = folder / SECRET_KEY
        if _key_id(source) != rotation.new_key:
            raise CommandError(f"{source}: is not the new key {rotation.new_key}")
        handed_out = read_new_passphrase(f"Passphrase of {source}", new, twice=False)
        with naming(source):
            key = qn.SecretKey.from_bytes(read(source), params, passphrase=handed_out)
        kept = install_key(kit, rotation, sealed_key(key, passphrase))
    return Installed(rotation.old_key, rotation.new_key, kept)


def _key_id(path: Path) -> str:
    """The key of which a sealed file says it is."""
    with naming(path):
        header, _ = wire.parse(read(path), wire.Kind.SECRET_KEY)
        return wire.HeaderReader(header).hexadecimal("key", 32)


def install_at_server(kit: ServerKit, folder: Path) -> Installed:
    """Tell the server of the new key; its last run goes on with it if the model was carried over.

    Parameters
    ----------
    kit
        The server's kit; no process may use it.
    folder
        ``server`` of what :func:`make_rotation` wrote.
    """
    from quancrypt_fl.deployment.kits import SECRET_KEY
    from quancrypt_fl.deployment.rotation import MODEL, Rotation, check_key, rename_key
    from quancrypt_fl.deployment.sites import in_use

    rotation = Rotation.read(folder)
    if (folder / SECRET_KEY).exists():
        raise CommandError(
            f"{folder}: these are the clients' files; they do not belong on the server; delete them"
        )
    check_key(kit, rotation)
    with in_use(kit.state, "quancrypt rotate"):
        model = folder / MODEL
        rounds = _carry_over(kit, rotation, model) if model.is_file() else None
        rename_key(kit, rotation)
    return Installed(rotation.old_key, rotation.new_key, rounds=rounds)


def _carry_over(kit: ServerKit, rotation: Rotation, model: Path) -> int:
    from quancrypt_fl.atomic_files import write_atomically
    from quancrypt_fl.deployment.runs import runs_of
    from quancrypt_fl.errors import ConfigError
    from quancrypt_fl.flower.app.server_app import SEALED_MODEL
    from quancrypt_fl.flower.rekeyed_history import rekey_history
    from quancrypt_fl.flower.snapshot_prefix import SnapshotError

    runs = runs_of(kit.state)
    if kit.app == "own" or not runs:
        raise CommandError(
            f"{model}: there is no run of the built-in app in {kit.state} to go on with; an app of "
            "your own calls quancrypt_fl.flower.rekeyed_history.rekey_history on its state"
        )
    sealed = read(model)
    try:
        rounds = rekey_history(runs[-1] / "history", sealed, rotation.old_key, rotation.new_key)
    except (ConfigError, SnapshotError) as error:
        raise CommandError(f"{model}: {error}") from error
    try:
        write_atomically(runs[-1] / SEALED_MODEL, sealed)
    except OSError as error:
        raise CommandError(
            f"{runs[-1] / SEALED_MODEL}: cannot be written: {error.strerror}"
        ) from error
    return rounds
