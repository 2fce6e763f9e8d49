"""Tables, checks and bars of the ``timing`` experiment."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from quancrypt_fl.baselines.batchcrypt.lanes import Lanes
from quancrypt_fl.experiments.published import RUN_TIMES
from quancrypt_fl.experiments.summary import check
from quancrypt_fl.experiments.units import duration, factor, size

__all__ = ["ALL_CPUS", "summarize_timing"]

ALL_CPUS = "quancrypt-all"
"""Key of ours with a thread for each CPU: informative, nothing is required of it."""

_OURS, _BATCHCRYPT, _TENSEAL = "quancrypt", "batchcrypt", "tenseal-paper"
_PHASES = {"protect": "encrypt", "unprotect": "decrypt", "add": "add"}
_MOST_PROTECTION = 0.05

# Required ratios to ours, on the paper's first model.
_FASTER = {
    _BATCHCRYPT: {"protect": 1000.0, "unprotect": 1000.0},
    _TENSEAL: {"protect": 300.0, "unprotect": 150.0},
}
_SMALLER = {_BATCHCRYPT: 1.8, _TENSEAL: 55.0}
_SMALLER_THAN_PUBLISHED = 2.8


def summarize_timing(
    models: Sequence[str],
    labels: Mapping[str, str],
    clients: int,
    documents: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """The summary of finished cells.

    Parameters
    ----------
    models
        Models, the one first that requirements are about.
    labels
        Names of methods by key.
    clients
        Number of clients.
    documents
        Documents of cells ``update-MODEL`` and ``rounds-MODEL-KIND``.
    """
    tables, bars, checks, rows = [], [], [], []
    for model in models:
        updates = documents.get(f"update-{model}")
        if updates:
            results = updates["results"]
            rows += _rows(model, results, labels)
            tables.append(_update_table(model, results, labels))
            bars += _update_bars(model, results, labels)
        if model == models[0]:
            checks += _update_checks(model, updates["results"] if updates else None, labels)
        rounds = {
            kind: documents[f"rounds-{model}-{kind}"]
            for kind in ("vanilla", "quancrypt", "pruned")
            if f"rounds-{model}-{kind}" in documents
        }
        if rounds:
            tables.append(_round_table(model, clients, rounds))
        checks.append(_protection_check(model, clients, rounds))
        rows += [
            {
                "arm": f"rounds-{model}-{kind}",
                **_round(run),
                "client_protection_to_training": _client_share(run, clients),
            }
            for kind, run in rounds.items()
        ]
    first = documents.get(f"update-{models[0]}")
    if first and _BATCHCRYPT in first["results"]["methods"]:
        tables.append(_published_table(models[0], first["results"], documents))
    return {
        "kind": "measurement",
        "rows": rows,
        "tables": tables,
        "figure": bars,
        "checks": checks,
        "notes": _notes(documents, labels),
    }


def _ratio(results: Mapping[str, Any], key: str, phase: str, ours_key: str = _OURS) -> float:
    """Median of paired ratios to ours."""
    ours = results["methods"][ours_key]["seconds"][phase]
    theirs = results["methods"][key]["seconds"][phase]
    return float(statistics.median(b / a for a, b in zip(ours, theirs, strict=True)))


def _size_ratio(results: Mapping[str, Any], key: str) -> float:
    methods = results["methods"]
    return float(methods[key]["upload"] / methods[_OURS]["upload"])


def _rows(
    model: str, results: Mapping[str, Any], labels: Mapping[str, str]
) -> list[dict[str, Any]]:
    return [
        {
            "arm": f"update-{model}-{key}",
            "model": model,
            "method": labels[key],
            "share": entry["share"],
            "native_threads": entry["native_threads"],
            "processes": entry["processes"],
            "median_seconds": entry["median_seconds"],
            "ratio_to_ours": {phase: _ratio(results, key, phase) for phase in _PHASES},
            "upload": entry["upload"],
            "upload_ratio_to_ours": _size_ratio(results, key),
        }
        for key, entry in results["methods"].items()
    ]


def _update_table(
    model: str, results: Mapping[str, Any], labels: Mapping[str, str]
) -> dict[str, Any]:
    rows = []
    for key, entry in results["methods"].items():
        ours = key == _OURS
        line = [_labelled(labels[key], entry["share"])]
        for phase in _PHASES:
            line.append(duration(entry["median_seconds"][phase]))
            line.append("1" if ours else factor(_ratio(results, key, phase)))
        line += [size(entry["upload"]), "1" if ours else factor(_size_ratio(results, key))]
        rows.append(line)
    head = ["method"]
    for name in (*_PHASES.values(), "upload"):
        head += [name, "ratio"]
    title = f"One update of {model} ({results['values']:,} values), 8 bits, unpruned:"
    return {"title": title, "head": head, "rows": rows, "left": 1}


def _update_bars(
    model: str, results: Mapping[str, Any], labels: Mapping[str, str]
) -> list[dict[str, Any]]:
    panels = []
    for phase, name in _PHASES.items():
        panels.append(
            {
                "title": f"{model}: {name} one update (seconds, logarithmic)",
                "bars": [
                    {
                        "label": _labelled(labels[key], entry["share"]),
                        "value": entry["median_seconds"][phase],
                        "text": duration(entry["median_seconds"][phase]),
                    }
                    for key, entry in results["methods"].items()
                ],
            }
        )
    return panels


def _labelled(label: str, share: float) -> str:
    return label if share >= 1 else f"{label} (extrapolated)"


def _update_checks(
    model: str, results: Mapping[str, Any] | None, labels: Mapping[str, str]
) -> list[dict[str, Any]]:
    checks = []
    for key, phases in _FASTER.items():
        if key not in labels:
            continue
        measured = results is not None and key in results["methods"]
        for phase, required in phases.items():
            ratio = _ratio(results, key, phase) if results is not None and measured else None
            text = f"{_PHASES[phase]}: faster than {labels[key]}"
            checks.append(_at_least(text, required, ratio, model, results, key))
        ratio = _size_ratio(results, key) if results is not None and measured else None
        text = f"upload: smaller than {labels[key]}"
        checks.append(_at_least(text, _SMALLER[key], ratio, model, results, key))
    if _BATCHCRYPT in labels:
        ratio = _published_size_ratio(results) if results is not None else None
        checks.append(
            _at_least(
                "upload: smaller than BatchCrypt's published setting (16 bits, 100 values each)",
                _SMALLER_THAN_PUBLISHED,
                ratio,
                model,
                results,
                _BATCHCRYPT,
            )
        )
    return checks


def _published_size_ratio(results: Mapping[str, Any]) -> float | None:
    """The published lanes in ciphertexts of the measured size, over our 8-bit upload."""
    entry = results["methods"].get(_BATCHCRYPT)
    if entry is None:
        return None
    per_ciphertext = entry["upload"] * entry["share"] / entry["ciphertexts"]
    ciphertexts = Lanes.published().integers(results["values"])
    return float(ciphertexts * per_ciphertext / results["methods"][_OURS]["upload"])


def _at_least(
    text: str,
    required: float,
    ratio: float | None,
    model: str,
    results: Mapping[str, Any] | None,
    key: str,
) -> dict[str, Any]:
    if ratio is None or results is None:
        return check(text, f">= {factor(required)}", "not measured", None, model)
    share = results["methods"][key]["share"]
    basis = model if share >= 1 else f"{model}, extrapolated from {share:.3g} of the values"
    return check(text, f">= {factor(required)}", factor(ratio), ratio >= required, basis)


def _round(run: Mapping[str, Any]) -> dict[str, float]:
    """Median seconds of each phase of a round; the first, which agrees on bounds, is left out."""
    records = run["rounds"][1:] or run["rounds"]
    phases = ("train", "protect", "aggregate", "unprotect", "evaluate")
    return {
        phase: statistics.median(record["seconds"][phase] for record in records) for phase in phases
    }


_ROUND_LABELS = {
    "vanilla": "Vanilla-FL",
    "quancrypt": "QuanCrypt-FL",
    "pruned": "QuanCrypt-FL, half of the global weights set to zero",
}


def _round_table(
    model: str, clients: int, rounds: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    rows = []
    for kind, run in rounds.items():
        seconds = _round(run)
        share = _share(rounds, kind)
        rows.append(
            [
                _ROUND_LABELS[kind],
                duration(seconds["train"] / clients),
                duration(seconds["train"]),
                duration(seconds["protect"]),
                duration(seconds["aggregate"]),
                duration(seconds["unprotect"]),
                "–" if share is None else f"{share:.2%}",
                f"{_client_share(run, clients):.2%}",
                duration(seconds["evaluate"]),
            ]
        )
    head = [
        "method",
        "train, one client",
        "train, all",
        "protect, all",
        "aggregate",
        "unprotect",
        "protection / vanilla round",
        "protection / training, one client",
        "test-set pass",
    ]
    title = f"One round of {model}, {clients} clients (medians of rounds after the first):"
    return {"title": title, "head": head, "rows": rows, "left": 1}


def _share(rounds: Mapping[str, Mapping[str, Any]], kind: str) -> float | None:
    """Protection as a share of a vanilla round without evaluation, which is the stricter way."""
    if "vanilla" not in rounds or kind not in rounds:
        return None
    vanilla, own = _round(rounds["vanilla"]), _round(rounds[kind])
    whole = sum(vanilla[phase] for phase in ("train", "protect", "aggregate", "unprotect"))
    return (own["protect"] + own["aggregate"] + own["unprotect"]) / whole


def _client_share(run: Mapping[str, Any], clients: int) -> float:
    """What one client waits for beside its training, as a share of it, were all to train at once.

    It protects its own update; the server adds those of all clients; it opens the sum.
    """
    seconds = _round(run)
    protection = seconds["protect"] / clients + seconds["aggregate"] + seconds["unprotect"]
    return protection / (seconds["train"] / clients)


def _protection_check(
    model: str, clients: int, rounds: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    text = f"protect + aggregate + unprotect, of a vanilla round with {clients} clients"
    required = f"<= {_MOST_PROTECTION:.0%}"
    share = _share(rounds, "quancrypt")
    if share is None:
        return check(text, required, "not measured", None, model)
    return check(text, required, f"{share:.2%}", share <= _MOST_PROTECTION, model)


def _published_table(
    model: str, results: Mapping[str, Any], documents: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    rows = []
    for phase, published in RUN_TIMES.items():
        ours = "–"
        if phase in ("protect", "unprotect"):
            ours = factor(_ratio(results, _BATCHCRYPT, phase))
        elif phase == "evaluate":
            kinds = [documents.get(f"rounds-{model}-{kind}") for kind in ("vanilla", "pruned")]
            if kinds[0] and kinds[1]:
                ours = factor(_round(kinds[0])["evaluate"] / _round(kinds[1])["evaluate"])
        rows.append(
            [
                published.what,
                published.batchcrypt,
                published.quancrypt,
                factor(published.headline),
                ours,
            ]
        )
    head = ["published: a run of AlexNet, CIFAR-10, 10 to 50 clients", "BatchCrypt",
            "QuanCrypt-FL", "published ratio", f"our ratio ({model})"]  # fmt: skip
    return {"title": "Beside the published figures:", "head": head, "rows": rows, "left": 1}


def _notes(documents: Mapping[str, Mapping[str, Any]], labels: Mapping[str, str]) -> list[str]:
    notes = [
        "Encrypt is prepare, clip, quantize, encrypt and serialize; decrypt is parse, decrypt, "
        "dequantize and apply; add is parse and add one upload. All methods take turns on the same "
        "update; seconds are medians, ratios medians of paired ratios to QuanCrypt-FL.",
        "QuanCrypt-FL computes with one thread, and so does TenSEAL; BatchCrypt has a process for "
        "each CPU. All requirements are judged by that one thread. The row of all CPUs is the same "
        "with a thread for each of them, for information.",
        "The opened sum is compared with the update before a time counts.",
        "Inference compares a dense test-set pass with one of a model half of whose weights are "
        "zero: unstructured zeros make a dense pass no faster.",
        "Training itself is the same computation for all methods, so there is no ratio of ours.",
        "In a simulation clients train one after another, and a round holds the training of all of "
        "them. Protection / training, one client, for information, is what a client waits for "
        "where all train at once: its own protect, aggregate of all, and unprotect, over its own "
        "training. In whole rounds QuanCrypt-FL computes with all CPUs, and training with two.",
    ]
    for id_, document in documents.items():
        notes += _all_cpus_notes(id_, document.get("results", {}), labels)
        missing = document.get("results", {}).get("missing", {})
        notes += [f"{labels[key]} in `{id_}`: {reason}" for key, reason in missing.items()]
        shares = {
            key: entry["share"]
            for key, entry in document.get("results", {}).get("methods", {}).items()
            if entry["share"] < 1
        }
        for key, share in shares.items():
            notes.append(
                f"{labels[key]} in `{id_}`: measured on the first {share:.3g} of every tensor and "
                "extrapolated by the number of values; `--scale standard` measures all of them."
            )
    return notes


def _all_cpus_notes(id_: str, results: Mapping[str, Any], labels: Mapping[str, str]) -> list[str]:
    """The ratio to BatchCrypt where both have all CPUs."""
    methods = results.get("methods", {})
    if not {ALL_CPUS, _BATCHCRYPT} <= set(methods):
        return []
    encrypt, decrypt = (
        factor(_ratio(results, _BATCHCRYPT, phase, ALL_CPUS)) for phase in ("protect", "unprotect")
    )
    threads, processes = methods[ALL_CPUS]["native_threads"], methods[_BATCHCRYPT]["processes"]
    return [
        f"{labels[_BATCHCRYPT]} in `{id_}`, threads of ours and processes: {threads} and "
        f"{processes}; encrypt {encrypt}, decrypt {decrypt}."
    ]
