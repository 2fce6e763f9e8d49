"""A run as the report sees it: the figures of a ``results.json``, checked one by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

from quancrypt_fl.method.meter import ALL_PHASES as PHASES
from quancrypt_fl.report.deployed import ClientShare, client_shares
from quancrypt_fl.report.receipts import Receipt, parse_receipt
from quancrypt_fl.report.values import (
    UntrustedError,
    count,
    entries,
    number,
    optional_count,
    optional_number,
    reported_share,
    require_schema,
    section,
    shorten,
    text,
)

__all__ = ["NO_CHOICES", "PHASES", "Round", "Run", "parse_run"]

SCHEMA = 1
MAX_ROUNDS = 10_000
MAX_FIELDS = 200  # of a configuration or an environment
NO_CHOICES = frozenset({"out", "data_dir", "processes", "tensorboard"})
"""Fields of a configuration that change no result: no page shows the names of folders."""


@dataclass(frozen=True, slots=True)
class Round:
    """One round. Accuracies in ``[0, 1]``, bytes per client, seconds per phase; None: not given."""

    number: int
    test_accuracy: float | None
    test_loss: float | None
    train_loss: float | None
    validation_accuracy: float | None
    pruning_rate: float | None
    seconds: Mapping[str, float]
    upload: int
    download: int
    participants: int | None
    lost: int | None
    failed: str = ""
    clients: tuple[ClientShare, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """One run.

    Attributes
    ----------
    name
        Its folder's place below the folder of the report.
    config, environment
        Values as text, by field; lists are joined with commas.
    final_accuracy, final_round
        On the test set, of the weights that the run ended with, and their round: the last one,
        unless early stopping went back to better ones. A deployed run may have none: its server
        cannot read the model, and clients need not evaluate it.
    float32_bytes
        An update as plain float32, or None if the file does not say.
    """

    name: str
    method: str
    dataset: str
    model: str
    clients: int
    seed: int
    config: Mapping[str, str]
    environment: Mapping[str, str]
    rounds: tuple[Round, ...]
    final_accuracy: float | None
    final_round: int
    receipt: Receipt
    parameters: int | None
    float32_bytes: int | None
    validation_accuracy: float | None
    deployed: bool = False
    unfinished: bool = False

    @property
    def best(self) -> tuple[float, int] | None:
        """The highest test accuracy and its first round, if any round has one."""
        scored = [
            (item.test_accuracy, -item.number)
            for item in self.rounds
            if item.test_accuracy is not None
        ]
        if not scored:
            return None
        accuracy, number_ = max(scored)
        return accuracy, -number_

    @property
    def uploaded(self) -> list[int]:
        """Bytes that a client has uploaded by the end of each round."""
        return list(accumulate(item.upload for item in self.rounds))

    @property
    def downloaded(self) -> int:
        """Bytes that a client has downloaded in all rounds."""
        return sum(item.download for item in self.rounds)

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of all rounds by phase; phases that no round names are left out."""
        return {
            phase: sum(item.seconds.get(phase, 0.0) for item in self.rounds)
            for phase in PHASES
            if any(phase in item.seconds for item in self.rounds)
        }

    def summary(self) -> dict[str, Any]:
        """The run in a few figures, for ``--json``."""
        return {
            "name": self.name,
            "method": self.method,
            "dataset": self.dataset,
            "model": self.model,
            "clients": self.clients,
            "seed": self.seed,
            "rounds": len(self.rounds),
            "test_accuracy": self.final_accuracy,
            "best_test_accuracy": self.best and self.best[0],
            "bytes": {"upload": self.uploaded[-1], "download": self.downloaded},
            "seconds": self.seconds,
            "protection": self.receipt.level,
        }

    @property
    def upload_ratio(self) -> float | None:
        """Bytes uploaded in a round in which updates arrived, beside one float32 update."""
        sizes = [item.upload for item in self.rounds if item.upload and item.participants != 0]
        return (
            sum(sizes) / (self.float32_bytes * len(sizes)) if self.float32_bytes and sizes else None
        )

    def ratio(self, size: int) -> float | None:
        """``size`` bytes beside one float32 update per round."""
        return size / (self.float32_bytes * len(self.rounds)) if self.float32_bytes else None


def parse_run(document: Any, name: str) -> Run:
    """Check a document of ``results.json``.

    Raises
    ------
    UntrustedError
        At the first value that is missing or not what it should be.
    """
    require_schema(document, SCHEMA)
    required = document.get("engine") != "flower"
    rounds = tuple(
        _round(entry, f"rounds[{i}].", scored=required)
        for i, entry in enumerate(entries(document, "rounds", largest=MAX_ROUNDS))
    )
    for before, after in pairwise(rounds):
        if after.number <= before.number:
            raise UntrustedError(f"round {after.number} follows round {before.number}")
    totals = section(document, "totals", required=False)
    final = _share(totals, "test_accuracy", "totals.")
    scored = [item.test_accuracy for item in rounds if item.test_accuracy is not None]
    deployed = text(document, "engine", default="") == "flower"
    unknown = "–" if deployed else None  # somebody else's app trains whatever it likes
    return Run(
        name=shorten(name),
        method=text(document, "method"),
        dataset=text(document, "dataset", default=unknown),
        model=text(document, "model", default=unknown),
        clients=count(document, "clients", low=1),
        seed=(optional_count(document, "seed") or 0) if deployed else count(document, "seed"),
        config=_fields(
            section(document, "config", required=not deployed), "config", without=NO_CHOICES
        ),
        environment=_fields(section(document, "environment", required=False), "environment"),
        rounds=rounds,
        final_accuracy=final if final is not None else scored[-1] if scored else None,
        final_round=optional_count(totals, "final_round", "totals.", low=1) or rounds[-1].number,
        receipt=parse_receipt(section(document, "receipt", required=False)),
        parameters=optional_count(totals, "parameters", "totals."),
        float32_bytes=optional_count(totals, "float32_update_bytes", "totals.", low=1),
        validation_accuracy=_share(totals, "validation_accuracy", "totals."),
        deployed=deployed,
        unfinished=document.get("unfinished") is True,
    )


def _share(document: Any, key: str, place: str) -> float | None:
    return optional_number(document, key, place, low=0, high=1)


def _round(entry: Any, place: str, *, scored: bool) -> Round:
    seconds = section(entry, "seconds", place, required=False)
    sizes = section(entry, "bytes", place, required=False)
    return Round(
        number=count(entry, "round", place, low=1),
        test_accuracy=(
            number(entry, "test_accuracy", place, low=0, high=1)
            if scored
            else reported_share(entry, "test_accuracy", place)
        ),
        test_loss=optional_number(entry, "test_loss", place),
        train_loss=optional_number(entry, "train_loss", place),
        validation_accuracy=_share(entry, "validation_accuracy", place),
        pruning_rate=_share(entry, "pruning_rate", place),
        seconds={
            phase: number(seconds, phase, f"{place}seconds.", low=0)
            for phase in PHASES
            if seconds.get(phase) is not None
        },
        upload=optional_count(sizes, "upload", f"{place}bytes.") or 0,
        download=optional_count(sizes, "download", f"{place}bytes.") or 0,
        participants=optional_count(entry, "participants", place),
        lost=optional_count(entry, "lost", place),
        failed=text(entry, "failed", place, default=""),
        clients=client_shares(entry, place),
    )


def _fields(
    values: Mapping[str, Any], place: str, without: frozenset[str] = frozenset()
) -> dict[str, str]:
    if len(values) > MAX_FIELDS:
        raise UntrustedError(f"{place} has {len(values):,} fields; allowed: {MAX_FIELDS}")
    return {
        shorten(name, 60): plain(value) for name, value in values.items() if name not in without
    }


def plain(value: Any) -> str:
    """A JSON value as people write it: yes, none, 0.001; lists with commas."""
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case str():
            return shorten(value) if value else "(empty)"
        case float():
            return f"{value:.6g}"
        case list():
            return shorten(", ".join(plain(item) for item in value[:50])) or "(empty)"
    return shorten(value)
