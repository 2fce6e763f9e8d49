"""Which rows each client has, and which are set aside for validation."""

from __future__ import annotations

from typing import Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.data.partition import split
from quancrypt_fl.errors import DataError
from quancrypt_fl.lm.config import FinetuneConfig
from quancrypt_fl.lm.rows import DataSet, Rows
from quancrypt_fl.seeds import generator

__all__ = ["VALIDATION_SHARE", "divide", "divide_rows", "limited"]

VALIDATION_SHARE = 0.1
_BY_LABEL = ("shards", "dirichlet")


class _Takeable(Protocol):
    def __len__(self) -> int: ...

    def take(self, indices: NDArray[np.int64], /) -> Self: ...


Taken = TypeVar("Taken", bound=_Takeable)
SomeRows = TypeVar("SomeRows", bound=Rows)


def limited(rows: Taken, most: int | None, seed: int, use: str) -> Taken:
    """``rows``, or ``most`` of them drawn at random, in their order."""
    if most is None or most >= len(rows):
        return rows
    chosen = generator(seed, use).choice(len(rows), size=most, replace=False)
    return rows.take(np.sort(chosen))


def divide(data: DataSet, config: FinetuneConfig) -> tuple[list[Any], Any]:
    """The rows of each client, and those for validation.

    ``contiguous`` gives the clients equal parts of the rows in order, give or take one, and the
    last tenth of the rows is for validation: every client has topics of its own. All others are
    those of :func:`quancrypt_fl.data.partition.split`.

    Raises
    ------
    DataError
        If there are not enough rows, or none has a label where the partition goes by it.
    """
    rows: Rows = data.train
    if config.partition in _BY_LABEL and rows.by_label is None:
        raise DataError(
            f"{config.data}: its rows have no labels, and partition {config.partition} goes by "
            "them; allowed: iid, contiguous"
        )
    return divide_rows(
        rows,
        config.partition,
        config.clients,
        config.seed,
        shards_per_client=config.shards_per_client,
        dirichlet_alpha=config.dirichlet_alpha,
    )


def divide_rows(
    train: SomeRows, partition: str, clients: int, seed: int, **by_label: Any
) -> tuple[list[SomeRows], SomeRows]:
    """:func:`divide` for rows of any kind; ``by_label`` goes to :func:`.partition.split`."""
    if partition == "contiguous":
        parts, validation = _contiguous(len(train), clients)
    else:
        labels = train.by_label
        if labels is None:
            labels = np.zeros(len(train), np.int64)
        divided = split(
            labels,
            clients,
            partition,
            seed,
            validation=VALIDATION_SHARE,
            groups=train.groups,
            **by_label,
        )
        parts, validation = list(divided.clients), divided.validation
    return [train.take(part) for part in parts], train.take(validation)


def _contiguous(rows: int, clients: int) -> tuple[list[NDArray[np.int64]], NDArray[np.int64]]:
    held_out = max(1, round(VALIDATION_SHARE * rows))
    order = np.arange(rows, dtype=np.int64)
    train, validation = order[: rows - held_out], order[rows - held_out :]
    if len(train) < clients:
        raise DataError(
            f"{len(train)} rows for training cannot be divided over {clients} clients: use fewer "
            "clients or more data"
        )
    return list(np.array_split(train, clients)), validation
