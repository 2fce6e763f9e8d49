"""Which rows each client has, and which are set aside for validation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.data.partition import split
from quancrypt_fl.errors import DataError
from quancrypt_fl.lm.config import FinetuneConfig
from quancrypt_fl.lm.texts import LanguageData, Texts
from quancrypt_fl.seeds import generator

__all__ = ["VALIDATION_SHARE", "divide", "divide_rows", "limited"]

VALIDATION_SHARE = 0.1


def limited(texts: Texts, most: int | None, seed: int, use: str) -> Texts:
    """``texts``, or ``most`` of them drawn at random, in their order."""
    if most is None or most >= len(texts):
        return texts
    chosen = generator(seed, use).choice(len(texts), size=most, replace=False)
    return texts.take(np.sort(chosen))


def divide(data: LanguageData, config: FinetuneConfig) -> tuple[list[Texts], Texts]:
    """The rows of each client, and those for validation.

    ``contiguous`` gives the clients equal parts of the rows in order, give or take one, and the
    last tenth of the rows is for validation: every client has topics of its own. All others are
    those of :func:`quancrypt_fl.data.partition.split`.

    Raises
    ------
    DataError
        If there are not enough rows.
    """
    return divide_rows(
        data.train,
        config.partition,
        config.clients,
        config.seed,
        shards_per_client=config.shards_per_client,
        dirichlet_alpha=config.dirichlet_alpha,
    )


def divide_rows(
    train: Texts, partition: str, clients: int, seed: int, **by_label: Any
) -> tuple[list[Texts], Texts]:
    """:func:`divide` for rows of any kind; ``by_label`` goes to :func:`.partition.split`."""
    if partition == "contiguous":
        parts, validation = _contiguous(len(train), clients)
    else:
        labels = train.labels if train.labels.ndim == 1 else np.zeros(len(train), np.int64)
        divided = split(labels, clients, partition, seed, validation=VALIDATION_SHARE, **by_label)
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
