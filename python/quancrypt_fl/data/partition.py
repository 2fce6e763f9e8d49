"""Splits of a data set: validation off first, then disjoint parts for the clients.

Everything is in indices into one array of labels, so that a part can be checked against another.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.errors import DataError
from quancrypt_fl.seeds import generator

__all__ = ["PARTITIONS", "VALIDATION_SHARE", "Split", "split"]

Indices = NDArray[np.int64]

PARTITIONS = ("iid", "shards", "dirichlet")
VALIDATION_SHARE = 0.2


@dataclass(frozen=True)
class Split:
    """Sorted, disjoint indices: one array per client, and the validation set."""

    clients: tuple[Indices, ...]
    validation: Indices


def split(
    labels: NDArray[np.int64],
    clients: int,
    partition: str,
    seed: int,
    *,
    shards_per_client: int = 2,
    dirichlet_alpha: float = 0.5,
) -> Split:
    """Set 20 % aside for validation and divide the rest over clients.

    Parameters
    ----------
    labels
        Labels of all samples, shape (samples,).
    clients
        Number of parts.
    partition
        ``"iid"``: random parts of equal size, give or take one. ``"shards"``: sorted by label, cut
        into ``clients * shards_per_client`` runs, dealt at random: few classes per client.
        ``"dirichlet"``: each class is divided in proportions drawn from a Dirichlet distribution of
        parameter ``dirichlet_alpha``: the smaller, the more uneven.
    seed
        The same seed gives the same split.

    Raises
    ------
    DataError
        If the partition is unknown or a client would have no sample.
    """
    order = generator(seed, "validation").permutation(len(labels))
    held_out = round(VALIDATION_SHARE * len(labels))
    validation, train = np.sort(order[:held_out]), np.sort(order[held_out:])
    rng = generator(seed, "partition")
    if partition == "iid":
        parts = np.array_split(rng.permutation(train), clients)
    elif partition == "shards":
        parts = _shards(train, labels, clients, shards_per_client, rng)
    elif partition == "dirichlet":
        parts = _dirichlet(train, labels, clients, dirichlet_alpha, rng)
    else:
        raise DataError(f"partition {partition!r} is not one of {', '.join(PARTITIONS)}")
    for index, part in enumerate(parts):
        if len(part) == 0:
            raise DataError(
                f"client {index} of {clients} has no sample in the {partition} split of "
                f"{len(train)} training samples: use fewer clients or more data"
            )
    return Split(tuple(np.sort(part) for part in parts), validation)


def _shards(
    train: Indices,
    labels: NDArray[np.int64],
    clients: int,
    shards_per_client: int,
    rng: np.random.Generator,
) -> list[Indices]:
    by_label = train[np.argsort(labels[train], kind="stable")]
    shards = np.array_split(by_label, clients * shards_per_client)
    hands = rng.permutation(len(shards)).reshape(clients, shards_per_client)
    return [np.concatenate([shards[shard] for shard in hand]) for hand in hands]


def _dirichlet(
    train: Indices,
    labels: NDArray[np.int64],
    clients: int,
    alpha: float,
    rng: np.random.Generator,
) -> list[Indices]:
    parts: list[list[Indices]] = [[] for _ in range(clients)]
    for label in np.unique(labels[train]):
        members = rng.permutation(train[labels[train] == label])
        proportions = rng.dirichlet(np.full(clients, alpha))
        cuts = np.round(np.cumsum(proportions)[:-1] * len(members)).astype(np.int64)
        for part, run in zip(parts, np.split(members, cuts), strict=True):
            part.append(run)
    return _at_least_one([np.concatenate(part) for part in parts])


def _at_least_one(parts: list[Indices]) -> list[Indices]:
    """Small ``alpha`` leaves clients empty: each takes one sample of the largest part."""
    for index, part in enumerate(parts):
        largest = max(range(len(parts)), key=lambda i: len(parts[i]))
        if len(part) == 0 and len(parts[largest]) > 1:
            parts[index], parts[largest] = parts[largest][-1:], parts[largest][:-1]
    return parts
