"""Splits of a data set: validation off first, then disjoint parts for the clients.

Everything is in indices into one array of labels, so that a part can be checked against another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.errors import DataError
from quancrypt_fl.seeds import generator

__all__ = ["PARTITIONS", "VALIDATION_SHARE", "Split", "SplitChoices", "split", "split_as"]

Indices = NDArray[np.int64]

PARTITIONS = ("iid", "shards", "dirichlet")
VALIDATION_SHARE = 0.2
_LARGEST_ALPHA = 1e9  # above, proportions are equal to float accuracy and NumPy overflows


class SplitChoices(Protocol):
    """What a configuration says of a split; see :func:`split`."""

    @property
    def clients(self) -> int: ...
    @property
    def partition(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def shards_per_client(self) -> int: ...
    @property
    def dirichlet_alpha(self) -> float: ...


@dataclass(frozen=True)
class Split:
    """Sorted, disjoint indices: one array per client, and the validation set."""

    clients: tuple[Indices, ...]
    validation: Indices

    def counts(self, labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
        """Samples of each class that each client has, shape (clients, classes)."""
        rows = [np.bincount(labels[part], minlength=classes) for part in self.clients]
        return np.array(rows, np.int64)


def split(
    labels: NDArray[np.int64],
    clients: int,
    partition: str,
    seed: int,
    *,
    shards_per_client: int = 2,
    dirichlet_alpha: float = 0.5,
    validation: float = VALIDATION_SHARE,
    groups: NDArray[np.int64] | None = None,
) -> Split:
    """Set some samples aside for validation and divide the rest over clients.

    Parameters
    ----------
    labels
        Labels of all samples, shape (samples,).
    clients
        Number of parts.
    partition
        ``"iid"``: random parts of equal size, give or take one. ``"shards"``: sorted by label, cut
        into ``clients * shards_per_client`` runs of equal size, give or take one, and dealt at
        random: few classes per client. ``"dirichlet"``: each class is divided in proportions drawn
        from a Dirichlet distribution of parameter ``dirichlet_alpha``: the smaller, the more
        uneven.
    seed
        The same seed gives the same split.
    validation
        Share of the samples that no client gets, in [0, 1). Above 0 it is one sample at least.
    groups
        Shape (samples,). Samples of one group are either all for validation or all for clients;
        the validation set is then the largest that fits whole groups, in random order, into its
        share; if the first does not fit, it is one of the smallest groups.

    Raises
    ------
    DataError
        If an argument is out of its range, or a client or the validation set would have no sample.
    """
    _check(labels, clients, partition, shards_per_client, dirichlet_alpha, validation, groups)
    train, held_out = _set_aside(len(labels), validation, groups, seed)
    rng = generator(seed, "partition")
    if partition == "iid":
        parts = np.array_split(rng.permutation(train), clients)
    elif partition == "shards":
        parts = _shards(train, labels, clients, shards_per_client, rng)
    else:
        parts = _dirichlet(train, labels, clients, dirichlet_alpha, rng)
    for index, part in enumerate(parts):
        if len(part) == 0:
            raise DataError(
                f"client {index} of {clients} has no sample in the {partition} split of "
                f"{len(train)} training samples, with {len(held_out)} set aside for validation: "
                "use fewer clients or more data"
            )
    return Split(tuple(np.sort(part) for part in parts), held_out)


def split_as(
    choices: SplitChoices, labels: NDArray[np.int64], groups: NDArray[np.int64] | None
) -> Split:
    """:func:`split` as a configuration has it."""
    return split(
        labels,
        choices.clients,
        choices.partition,
        choices.seed,
        shards_per_client=choices.shards_per_client,
        dirichlet_alpha=choices.dirichlet_alpha,
        groups=groups,
    )


def _check(
    labels: NDArray[np.int64],
    clients: int,
    partition: str,
    shards_per_client: int,
    dirichlet_alpha: float,
    validation: float,
    groups: NDArray[np.int64] | None,
) -> None:
    if partition not in PARTITIONS:
        raise DataError(f"partition {partition!r} is not one of {', '.join(PARTITIONS)}")
    for name, number in (("clients", clients), ("shards_per_client", shards_per_client)):
        if number < 1:
            raise DataError(f"{name} = {number} is not at least 1")
    if not 0 < dirichlet_alpha < float("inf"):
        raise DataError(f"dirichlet_alpha = {dirichlet_alpha} is not a positive number")
    if not 0 <= validation < 1:
        raise DataError(f"validation = {validation} is not in [0, 1)")
    if groups is not None and groups.shape != labels.shape:
        raise DataError(f"groups of shape {groups.shape} for labels of shape {labels.shape}")


def _set_aside(
    samples: int, share: float, groups: NDArray[np.int64] | None, seed: int
) -> tuple[Indices, Indices]:
    """Sorted indices for training and for validation."""
    rng = generator(seed, "validation")
    held_out = max(round(share * samples), 1 if share > 0 else 0)
    if groups is None:
        order = rng.permutation(samples)
        return np.sort(order[held_out:]), np.sort(order[:held_out])
    names, group = np.unique(groups, return_inverse=True)
    if len(names) == 1 and held_out:
        raise DataError(
            f"all {samples} training samples are of one group, which cannot be divided between "
            "training and validation: use more data"
        )
    order = rng.permutation(len(names))
    sizes = np.bincount(group, minlength=len(names))[order]
    fitting = order[: np.searchsorted(np.cumsum(sizes), held_out, side="right")]
    if held_out and len(names) and len(fitting) == 0:
        fitting = order[[np.argmin(sizes)]]
    chosen = np.isin(group, fitting)
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


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
    parts: list[list[Indices]] = [[train[:0]] for _ in range(clients)]
    for label in np.unique(labels[train]):
        members = rng.permutation(train[labels[train] == label])
        proportions = rng.dirichlet(np.full(clients, min(alpha, _LARGEST_ALPHA)))
        cuts = np.round(np.cumsum(proportions)[:-1] * len(members)).astype(np.int64)
        for part, run in zip(parts, np.split(members, cuts), strict=True):
            part.append(run)
    return _at_least_one([np.concatenate(part) for part in parts])


def _at_least_one(parts: list[Indices]) -> list[Indices]:
    """Small ``alpha`` leaves clients empty: each takes one sample of the largest part."""
    for index, part in enumerate(parts):
        if len(part) > 0:
            continue
        largest = max(range(len(parts)), key=lambda i: len(parts[i]))
        if len(parts[largest]) > 1:
            parts[index], parts[largest] = parts[largest][-1:], parts[largest][:-1]
    return parts
