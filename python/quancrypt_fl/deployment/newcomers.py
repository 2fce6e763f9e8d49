"""Kits for clients that come later, made where the clients' key is: from the kit of one of them.

The certificate authority is not needed: newcomers trust the certificate that the others trust, and
the server knows them by their own login keys (:mod:`quancrypt_fl.deployment.admission`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from quancrypt_fl.deployment import kits, readmes
from quancrypt_fl.deployment.admission import ADMISSION, Admission, Newcomer
from quancrypt_fl.deployment.folders import (
    ProvisionError,
    check_place,
    whole_folder,
    write_public,
)
from quancrypt_fl.deployment.joint import refuse_joint
from quancrypt_fl.deployment.nodekeys import make_node_keys
from quancrypt_fl.deployment.provisioning import ClientsKey, Place, check_names, write_client
from quancrypt_fl.deployment.signing import make_signers

__all__ = ["Added", "add_clients", "newcomer_names"]


@dataclass(frozen=True)
class Added:
    """What was written, loaded again."""

    folder: Path
    clients: tuple[kits.ClientKit, ...]
    admission: Path
    """File for the server."""


def newcomer_names(given: Sequence[str], count: int, first: int) -> tuple[str, ...]:
    """Names of ``count`` newcomers: the given ones, or ``client-N`` with N from ``first + 1``.

    Raises
    ------
    ProvisionError
        If there are not as many names as newcomers, or one twice.
    """
    names = tuple(given) or tuple(f"client-{first + n + 1}" for n in range(count))
    if len(names) != count:
        raise ProvisionError(
            f"{len(names)} names for {count} newcomers; allowed: one each, or none at all"
        )
    check_names(names)
    return names


def add_clients(
    out: Path, like: kits.ClientKit, names: Sequence[str], key: ClientsKey, first: int
) -> Added:
    """Write kits of newcomers, and the file that has the server let them in.

    Parameters
    ----------
    out
        Folder of the kits: absent or empty.
    like
        Kit of a client of the deployment: address, authority's certificate, run.
    names
        Of the newcomers.
    key
        The key of ``like``.
    first
        Partition of the first newcomer, the others' follow: the number of places that the
        deployment has by now, or a place that is free.

    Raises
    ------
    ProvisionError
        If ``out`` is not as it must be or cannot be written. Nothing is left behind then.
    KitError
        If so many clients do not fit the parameters, or there is a threshold key, with what to do.
    """
    refuse_joint(like, "another client")
    check_place(out)
    check_names(names)
    total = max(like.partitions, first + len(names))
    run = replace(like, config=kits.with_clients(like.config, total, str(like.folder)))
    shared = {kits.PARAMETERS: key.params, kits.CA: like.ca.read_bytes()}
    if like.frozen is not None:
        shared[kits.FROZEN] = like.frozen.read_bytes()
    newcomers = []
    signers = make_signers(names)
    try:
        with whole_folder(out) as folder:
            for partition, name in enumerate(names, first):
                pair = make_node_keys(name)
                place = Place(name, partition, total)
                write_client(folder / name, run, key, place, pair, shared, signers[name])
                line, signing = pair.public.decode().strip(), signers[name].member.public
                newcomers.append(Newcomer(name, partition, line, signing.hex()))
            admission = Admission(key.key_id, key.parameters_id, tuple(newcomers))
            write_public(folder / ADMISSION, admission.to_bytes())
            text = readmes.newcomers(names, like.address, app=like.app)
            write_public(folder / kits.README, text.encode())
            _load(folder, names)  # what cannot be loaded is not handed out
    except OSError as error:
        raise ProvisionError(f"{out}: cannot be written: {error.strerror or error}") from error
    return Added(out, _load(out, names), out / ADMISSION)


def _load(folder: Path, names: Sequence[str]) -> tuple[kits.ClientKit, ...]:
    Admission.read(folder / ADMISSION)
    return tuple(kits.ClientKit.load(folder / name) for name in names)
