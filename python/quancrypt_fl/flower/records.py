"""A deployed round as ``results.json`` has it: the schema of a simulated one, and who took part."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from flwr.app import MetricRecord

from quancrypt_fl.flower.nodes import NodeBook
from quancrypt_fl.flower.outcome import Outcome

__all__ = ["deployed_record", "with_evaluation"]

_ACCURACY = ("accuracy", "eval_acc", "eval-acc", "test_accuracy", "acc")
_LOSS = ("loss", "eval_loss", "eval-loss", "test_loss")


def deployed_record(
    t: int, rate: float, outcome: Outcome, book: NodeBook, asked: int, seconds: float
) -> dict[str, Any]:
    """One entry of ``rounds``, for round ``t`` counted from 0; evaluation is yet to come.

    Beyond the fields of a simulated round: ``seconds.wall``, from the first message to the sum;
    ``weight``; ``failed``, a reason or None; ``clients``, who is in the sum; with a joint key
    ``opening``, by whom it was opened and how often that was tried.
    """
    entries = outcome.ledger.entries if outcome.ledger and outcome.total else {}
    spent = outcome.client_seconds
    losses = [
        (answer.reply.loss, answer.reply.samples)
        for node, answer in outcome.answers.items()
        if answer.reply.loss is not None and (node in entries or not entries)
    ]
    samples = sum(count for _, count in losses)

    def total(phase: str) -> float:
        return sum(each.get(phase, 0.0) for each in spent.values())

    opener, clients = outcome.opener, max(1, len(spent))
    opening: dict[str, Any] = {}
    if opener is not None:
        opening = {**opener.notes.get("updates", {})}
        opening |= {what: how for what, how in opener.notes.items() if what != "updates"}
    return {
        "round": t + 1,
        "test_accuracy": None,
        "test_loss": None,
        "train_loss": (_finite(sum(loss * n for loss, n in losses) / samples) if samples else None),
        "pruning_rate": rate,
        "seconds": {
            "train": total("train"),
            "protect": total("protect"),
            "aggregate": outcome.seconds,
            "unprotect": total("unprotect") / max(1, len(spent)),
            "evaluate": 0.0,
            "key": total("key"),
            "wall": seconds,
            **({} if opener is None else {"open": opener.seconds}),
        },
        "bytes": {
            "upload": outcome.upload_bytes + (round(opener.received / clients) if opener else 0),
            "download": outcome.download_bytes
            + (len(outcome.total.data) if outcome.total else 0)
            + (round(opener.sent / clients) if opener else 0),
        },
        "participants": outcome.ledger.clients if outcome.ledger and outcome.total else 0,
        "lost": asked - len(entries),
        "ciphertexts": outcome.ciphertexts,
        "weight": outcome.total.weight if outcome.total else 0,
        "failed": outcome.failed,
        **({"opening": opening} if opening else {}),
        "clients": [
            {
                "name": book.name(node),
                "node": str(node),
                "weight": entries.get(node, 0),
                "samples": book[node].samples,
                "seconds": dict(spent[node]),
            }
            for node in sorted(spent)
        ],
    }


def with_evaluation(
    record: Mapping[str, Any],
    metrics: MetricRecord | None,
    seconds: float,
    spent: Mapping[int, Mapping[str, float]],
) -> dict[str, Any]:
    """The record with what clients measured of the model after the round.

    ``spent``: seconds by node and phase; clients that evaluate open the round's sum for it.
    """
    values = {name: _finite(value) for name, value in (metrics or {}).items()}
    taken: dict[str, float] = record["seconds"]
    opened = [each.get("unprotect", 0.0) for each in spent.values()]
    keys = [each.get("key", 0.0) for each in spent.values()]
    return {
        **record,
        "test_accuracy": _first(values, _ACCURACY),
        "test_loss": _first(values, _LOSS),
        "metrics": values,
        "seconds": {
            **taken,
            "unprotect": taken["unprotect"] + sum(opened) / max(1, len(opened)),
            "evaluate": seconds,
            "key": taken["key"] + sum(keys),
        },
    }


def _first(values: Mapping[str, Any], names: tuple[str, ...]) -> float | None:
    for name in names:
        if isinstance(value := values.get(name), int | float):
            return float(value)
    return None


def _finite(value: Any) -> Any:
    """A metric as JSON can hold it: an average of strangers' numbers may overflow."""
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return value if math.isfinite(value) else None
