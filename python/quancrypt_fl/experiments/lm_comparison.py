"""What a federation gains, and what encryption costs: one fine-tuning in five ways, in one table.

The base model as it is; each client alone; all data in one place; the federation in the clear, and
under encryption. All begin with the same adapter, see the same rows as often, and are judged on the
same test rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from pydantic import ValidationError

from quancrypt_fl.atomic_files import write_atomically
from quancrypt_fl.errors import ConfigError
from quancrypt_fl.experiments.statistics import interval
from quancrypt_fl.federation_config import describe_errors
from quancrypt_fl.lm.config import FinetuneConfig
from quancrypt_fl.lm.run import Finetuning, value_of
from quancrypt_fl.observer import Observer
from quancrypt_fl.training import torch_threads

__all__ = ["FILE", "compare", "gain"]

FILE = "comparison.json"

_FIXED: Mapping[str, Any] = {"method": "quancrypt", "encryption": True, "patience": None}
"""A comparison decides what is encrypted, and all train equally long."""

_WAYS = ("base", "alone, mean", "alone, best", "central", "plaintext", "encrypted")

Tell = Callable[[str, int], Observer]


def gain(metric: str, ours: float, other: float) -> float:
    """By how much ``ours`` is better: points of accuracy, or per cent of perplexity."""
    return 100.0 * (ours - other if metric == "accuracy" else 1.0 - ours / other)


def compare(
    config: FinetuneConfig, seeds: int = 1, tell: Tell = lambda name, seed: Observer()
) -> dict[str, Any]:
    """Run all of it, for the seeds from ``config.seed`` on.

    Parameters
    ----------
    config
        The encrypted federation. ``out``, if given, gets ``comparison.json``, and of every seed the
        folders of the runs, such as ``encrypted-1``, with their adapters and results.
    seeds
        How many.
    tell
        Told what runs next, with its seed; gives the observer of it.

    Returns
    -------
    dict
        ``rows``: per way its ``values``, one for each seed, and their mean; ``alone``: the value of
        each client of each seed; ``gains``: of the encrypted federation over each other way, see
        :func:`gain`, with a 95 % interval over seeds; ``lora_error``, the largest;
        ``upload_bytes`` per client and round, and ``float32_update_bytes``.

    Raises
    ------
    ConfigError
        If a comparison has no use for a field that is set, or no seed is asked for.
    """
    if seeds < 1:
        raise ConfigError(f"seeds = {seeds}; allowed: 1 or more")
    _check(config)
    found = [_one(_with(config, seed=config.seed + n), tell) for n in range(seeds)]
    metric = found[0]["about"]["metric"]
    rows = {name: [one["values"][name] for one in found] for name in _WAYS}
    document = {
        "schema": 1,
        **found[0]["about"],
        "clients": config.clients,
        "rounds": config.rounds,
        "partition": config.partition,
        "seeds": [config.seed + n for n in range(seeds)],
        "rows": [
            {"name": name, "value": fmean(values), "values": values}
            for name, values in rows.items()
        ],
        "alone": [one["alone"] for one in found],
        "gains": {
            name: interval(
                [gain(metric, ours, b) for ours, b in zip(rows["encrypted"], values, strict=True)]
            ).as_dict()
            for name, values in rows.items()
            if name != "encrypted"
        },
        **_encrypted(found),
    }
    if config.out is not None:
        data = json.dumps(document, indent=2, allow_nan=False).encode() + b"\n"
        write_atomically(config.out / FILE, data)
    return document


def _one(config: FinetuneConfig, tell: Tell) -> dict[str, Any]:
    """All ways with one seed."""
    seed, values = config.seed, {}
    encrypted = Finetuning(_placed(config, "encrypted"), observer=tell("encrypted", seed))
    results = encrypted.run()
    values["encrypted"] = results["totals"]["value"]
    for name, other in (("plaintext", _plaintext(config)), ("central", _central(config))):
        run = Finetuning(_placed(other, name), observer=tell(name, seed))
        values[name] = run.run()["totals"]["value"]
    tell("each client alone", seed)
    values["base"], alone = _alone(_plaintext(config))
    best = min if results["metric"] == "perplexity" else max
    values |= {"alone, mean": fmean(alone), "alone, best": best(alone)}
    about = {name: results[name] for name in ("task", "mode", "metric", "dataset", "model")}
    return {"about": about, "values": values, "alone": alone, "results": results}


def _alone(config: FinetuneConfig) -> tuple[float, list[float]]:
    """The value before any training, and that of each client that trains without the others."""
    run = Finetuning(config)
    task, values = run.task, []

    def judged(weights: Mapping[str, Any]) -> float:
        return value_of(task.metric, task.evaluate("test", weights, []))

    with torch_threads(run.config.threads or 1):
        base = judged(task.weights)
        for client, part in enumerate(task.parts):
            weights = task.weights
            for t in range(config.rounds):
                weights, _ = task.trainer.train(weights, part, t, client)
            values.append(judged(weights))
    return base, values


def _plaintext(config: FinetuneConfig) -> FinetuneConfig:
    """The same federation in the clear: FedAvg of float32."""
    return _with(
        config, method="vanilla", threshold=None, open_dropout=0.0, dp="none", aggregation="mean",
        out=config.out,
    )  # fmt: skip


def _central(config: FinetuneConfig) -> FinetuneConfig:
    """All rows in one place, each seen as often as by the clients."""
    steps = None if config.local_steps is None else config.local_steps * config.clients
    return _with(
        _plaintext(config), clients=1, participation=1.0, dropout=0.0, min_arrivals=1,
        max_weight=None, local_steps=steps, client_ranks=None, text_only_clients=0,
        partition=config.partition if config.partition == "contiguous" else "iid",
    )  # fmt: skip


def _placed(config: FinetuneConfig, name: str) -> FinetuneConfig:
    if config.out is None:
        return config
    return _with(config, out=config.out / f"{name}-{config.seed}")


def _with(config: FinetuneConfig, **changes: Any) -> FinetuneConfig:
    """``config`` with other fields, checked anew."""
    try:
        return FinetuneConfig(**{**config.model_dump(), **changes})
    except ValidationError as error:
        raise ConfigError(describe_errors(error)) from error


def _check(config: FinetuneConfig) -> None:
    for name, allowed in _FIXED.items():
        if (given := getattr(config, name)) != allowed:
            raise ConfigError(f"{name} = {given!r}; allowed in a comparison: {allowed!r}")


def _encrypted(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How exactly the encrypted federations averaged, and what they sent."""
    totals = [one["results"]["totals"] for one in found]
    errors = [record["lora_error"] for one in found for record in one["results"]["rounds"]]
    return {
        "lora_error": max((error for error in errors if error is not None), default=None),
        "upload_bytes": fmean(t["bytes"]["upload"] / t["rounds"] for t in totals),
        "float32_update_bytes": totals[0]["float32_update_bytes"],
    }
