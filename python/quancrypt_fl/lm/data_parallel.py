"""Synchronous data parallelism, to compare a pre-training with: what it sends, what it learns.

Every worker computes a gradient on a batch of its own, and all step along the mean of them, at
every step. What is counted of its traffic is the least that any way of averaging takes: each worker
sends one gradient in float32 per step, and gets one mean. (A ring all-reduce of N workers sends and
gets 2 (N - 1) / N of that each.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quancrypt_fl.lm.pretrain_trainer import InnerTrainer
from quancrypt_fl.lm.run import value_of
from quancrypt_fl.lm.texts import Texts
from quancrypt_fl.method.roles import Tensors

__all__ = ["bytes_beside", "synchronous_rounds"]

_FLOAT32_BYTES = 4


def bytes_beside(sent: Mapping[str, int], parameters: int, steps: int) -> dict[str, Any]:
    """Bytes per worker of ``steps`` steps, and how many times those of a federation they are.

    Parameters
    ----------
    sent
        ``upload`` and ``download`` of a client, as measured.
    parameters
        Values of a gradient.

    Returns
    -------
    dict
        ``counted``, ``steps``, ``bytes`` as in ``sent``, and ``times_ours`` of ``upload``,
        ``download`` and ``both``; None where nothing was sent.
    """
    one_way = _FLOAT32_BYTES * parameters * steps
    pairs = {way: (one_way, sent[way]) for way in ("upload", "download")}
    pairs["both"] = (2 * one_way, sent["upload"] + sent["download"])
    return {
        "counted": "per worker and step one float32 gradient up and one down, in the clear",
        "steps": steps,
        "bytes": {"upload": one_way, "download": one_way},
        "times_ours": {
            way: theirs / ours if ours else None for way, (theirs, ours) in pairs.items()
        },
    }


def synchronous_rounds(
    trainer: InnerTrainer,
    weights: Tensors,
    parts: Sequence[Texts],
    test: Texts,
    rounds: int,
) -> list[dict[str, Any]]:
    """Train by data parallelism on the batches that a federation's clients train on.

    Parameters
    ----------
    trainer
        Its options are those of the federation: as many steps are a round.
    weights
        To begin with.
    parts
        Rows of each worker, who all count alike.
    test
        Judged on after each round.

    Returns
    -------
    list
        Per round ``round``, ``tokens``, ``train_loss``, ``test_loss`` and the perplexity ``value``.
    """
    trainer.load(weights)
    optimizer = trainer.optimizer(trainer.fresh_state())
    records = []
    for t in range(rounds):
        workers = [
            (part, trainer.batches(len(part), t, worker)) for worker, part in enumerate(parts)
        ]
        trainer.tokens = 0
        loss = trainer.descend(optimizer, workers)
        judged = trainer.evaluate(trainer.weights(), test)
        records.append(
            {
                "round": t + 1,
                "tokens": trainer.tokens,
                "train_loss": loss,
                "test_loss": judged.loss,
                "value": value_of("perplexity", judged),
            }
        )
    return records
