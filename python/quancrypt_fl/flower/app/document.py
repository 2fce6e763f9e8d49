"""``results.json`` of a deployed run: the simulation's document, as far as a server can know it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import quancrypt_native as qn
from quancrypt_fl.federation_config import FederationConfig
from quancrypt_fl.joint.facts import JointFacts, held_jointly
from quancrypt_fl.lm.metrics import value_from
from quancrypt_fl.method.meter import ALL_PHASES, PHASES
from quancrypt_fl.protect import native_environment, parameter_facts
from quancrypt_fl.receipts import receipt
from quancrypt_fl.results import SCHEMA, environment

__all__ = ["deployed_document"]

_FLOAT32_BYTES = 4
_HOW_KNOWN = (
    "the server's process has the public parameters alone: the key is in the clients' kits, and "
    "the server's kit has none. The models between rounds never reach it, nor does the final one, "
    "but sealed under the clients' key"
)
_HOW_JOINTLY = (
    "the server's process has the public parameters and the joint public key's fingerprint alone: "
    "each client's share of the key is in its own state, and no kit has the key. The models "
    "between rounds never reach it, nor does the final one, but sealed under the clients' group key"
)


def deployed_document(
    config: FederationConfig,
    records: Sequence[Mapping[str, Any]],
    *,
    params: qn.Parameters,
    keys: Sequence[Mapping[str, Any]],
    parameters: int,
    exchanged: int,
    about: Mapping[str, Any],
    joint: JointFacts | None = None,
) -> dict[str, Any]:
    """The whole document, with ``"engine": "flower"``.

    Parameters
    ----------
    config
        The configuration, its defaults filled in.
    records
        Entries of ``rounds``; a failed one says why in ``failed``, and has no accuracy.
    params, keys
        What protects updates; ``fingerprint`` and ``from_round`` of each key.
    parameters, exchanged
        Numbers of the model's values: all, and those that travel.
    about
        ``dataset`` and ``model``; with ``metric``, every record has a ``value`` of it.
    joint
        Facts of the threshold key, if there is one.
    """
    facts, how = parameter_facts(params), _HOW_KNOWN
    if joint is not None:
        facts, how = {**facts, **held_jointly(joint.threshold, len(joint.parties))}, _HOW_JOINTLY
    metric = about.get("metric")
    if metric is not None:
        records = [{**record, "value": _value(metric, record)} for record in records]
    proof = {**receipt(facts, keys, records), "how_known": how}
    return {
        "schema": SCHEMA,
        "engine": "flower",
        "method": config.method,
        **about,
        "clients": config.clients,
        "seed": config.seed,
        "config": config.model_dump(mode="json"),
        "environment": {**environment(config.threads), **native_environment()},
        "rounds": [dict(record) for record in records],
        "totals": {
            **_totals(records),
            **(_values(metric, records) if metric is not None else {}),
            "parameters": parameters,
            "float32_update_bytes": exchanged * _FLOAT32_BYTES,
        },
        "receipt": proof,
    }


def _value(metric: str, record: Mapping[str, Any]) -> float | None:
    """The metric over all labels of all clients: their mean loss or accuracy says what it is."""
    accuracy, loss = record["test_accuracy"], record["test_loss"]
    if accuracy is None or loss is None:
        return None
    return value_from(metric, accuracy=accuracy, loss=loss)


def _values(metric: str, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The last and the best value that were measured; of perplexities the smallest is the best."""
    scored = [record for record in records if record["value"] is not None]
    if not scored:
        return {"value": None, "best_value": None}
    best = (min if metric == "perplexity" else max)(scored, key=lambda record: record["value"])
    return {
        "value": scored[-1]["value"],
        "best_value": best["value"],
        "best_round": best["round"],
    }


def _totals(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    scored = [record for record in records if record["test_accuracy"] is not None]
    best = max(scored, key=lambda record: record["test_accuracy"], default=None)
    final = scored[-1] if scored else None
    return {
        "rounds": len(records),
        "failed_rounds": sum(record["failed"] is not None for record in records),
        "final_round": len(records),
        "test_accuracy": final and final["test_accuracy"],
        "test_loss": final and final["test_loss"],
        "best_test_accuracy": best and best["test_accuracy"],
        "best_round": best and best["round"],
        "seconds": {
            phase: sum(record["seconds"].get(phase, 0.0) for record in records)
            for phase in (*ALL_PHASES, "wall")
            if phase in (*PHASES, "wall") or any(phase in record["seconds"] for record in records)
        },
        "bytes": {
            way: sum(record["bytes"][way] for record in records) for way in ("upload", "download")
        },
        "uploaded_by_all": sum(r["bytes"]["upload"] * r["participants"] for r in records),
    }
