"""The document of a run, as written to ``results.json`` (schema 1).

Accuracies are shares in ``[0, 1]``, losses mean cross-entropies, times wall-clock seconds, bytes
per client as serialized. ``round`` counts from 1; round 1 includes the exchange of statistics that
precedes it.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from quancrypt_fl.atomic_files import write_atomically
from quancrypt_fl.federation_config import FederationConfig
from quancrypt_fl.machine import cpu_model
from quancrypt_fl.method.meter import ALL_PHASES, RoundMeter
from quancrypt_fl.training import Evaluation

__all__ = ["SCHEMA", "environment", "results_document", "round_record", "write_results"]

SCHEMA = 1
CLAIMS = ("privacy", "aggregation", "influence")
"""What a receipt may claim beside encryption, repeated for who looks for it."""

_FLOAT32_BYTES = 4


def round_record(t: int, rate: float, meter: RoundMeter, test: Evaluation) -> dict[str, Any]:
    """One entry of ``rounds``, for round ``t`` counted from 0."""
    record = {
        "round": t + 1,
        "test_accuracy": test.accuracy,
        "test_loss": test.loss,
        "train_loss": meter.train_loss,
        "pruning_rate": rate,
        "seconds": _in_order(meter.seconds),
        "bytes": meter.bytes_per_client,
        "participants": meter.arrived,
        "lost": meter.participants - meter.arrived,
        "ciphertexts": meter.ciphertexts_per_client,
    }
    if meter.openings:
        record["opening"] = {
            **meter.openings.get("updates", {}),
            **{what: how for what, how in meter.openings.items() if what != "updates"},
        }
    if meter.groups:
        record["groups"] = meter.groups
    if meter.influence is not None:
        record["influence"] = meter.influence
    if meter.failed:
        record["failed"] = meter.failed
    return record


def _in_order(seconds: Mapping[str, float]) -> dict[str, float]:
    return {phase: seconds[phase] for phase in ALL_PHASES if phase in seconds}


def results_document(
    config: FederationConfig,
    about: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    *,
    final_round: int,
    parameters: int,
    exchanged: int,
    validation: Evaluation,
    receipt: Mapping[str, Any],
    native: Mapping[str, Any],
) -> dict[str, Any]:
    """The whole document.

    Parameters
    ----------
    config
        The configuration, its defaults filled in.
    about
        ``dataset`` and ``model``; with ``metric``, every record has a ``value`` of it.
    records
        Entries of ``rounds``, at least one.
    final_round
        The round whose weights are the result: the last, or an earlier one that the run returned
        to.
    parameters, exchanged
        Numbers of the model's weights and batch-norm statistics: all, and those that are averaged.
    validation
        Evaluation of the resulting weights on the validation set.
    receipt
        See :mod:`quancrypt_fl.receipts`.
    native
        Facts about the native package, added to the environment.
    """
    return {
        "schema": SCHEMA,
        "method": config.method,
        **about,
        "clients": config.clients,
        "seed": config.seed,
        "config": config.model_dump(mode="json"),
        "environment": {**environment(config.threads), **native},
        "rounds": [dict(record) for record in records],
        "totals": {
            **_totals(records, final_round),
            **(_values(about["metric"], records, final_round) if "metric" in about else {}),
            "validation_accuracy": validation.accuracy,
            "validation_loss": validation.loss,
            "parameters": parameters,
            "float32_update_bytes": exchanged * _FLOAT32_BYTES,
        },
        **{name: receipt[name] for name in CLAIMS if name in receipt},
        "receipt": dict(receipt),
    }


def _totals(records: Sequence[Mapping[str, Any]], final_round: int) -> dict[str, Any]:
    best = max(records, key=lambda record: record["test_accuracy"])
    final = records[final_round - 1]
    return {
        "rounds": len(records),
        "final_round": final_round,
        "test_accuracy": final["test_accuracy"],
        "test_loss": final["test_loss"],
        "best_test_accuracy": best["test_accuracy"],
        "best_round": best["round"],
        "seconds": _in_order(
            {
                phase: sum(record["seconds"].get(phase, 0.0) for record in records)
                for phase in {phase for record in records for phase in record["seconds"]}
            }
        ),
        "bytes": {
            way: sum(record["bytes"][way] for record in records) for way in ("upload", "download")
        },
        "uploaded_by_all": sum(r["bytes"]["upload"] * r["participants"] for r in records),
    }


def _values(metric: str, records: Sequence[Mapping[str, Any]], final_round: int) -> dict[str, Any]:
    """The final and the best value of a metric; of perplexities the smallest is the best."""
    best = (min if metric == "perplexity" else max)(records, key=lambda record: record["value"])
    return {
        "value": records[final_round - 1]["value"],
        "best_value": best["value"],
        "best_round": best["round"],
    }


def environment(threads: int | None) -> dict[str, Any]:
    """Versions and machine, without names of hosts, users or folders."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_model(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "threads": threads,
    }


def write_results(path: Path, document: Mapping[str, Any]) -> None:
    """Write the document as indented JSON, in one step."""
    write_atomically(path, json.dumps(document, indent=2, allow_nan=False).encode() + b"\n")
