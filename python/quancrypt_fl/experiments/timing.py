"""``timing``: encryption, decryption, addition and bytes of the same update, and whole rounds.

All methods take turns on one update of the model, so that what else runs on the machine slows all
of them alike; ratios are medians of paired ratios. Ours is measured with one thread, as TenSEAL
computes with one; BatchCrypt has a process for each CPU. Rounds are those of short runs.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quancrypt_fl.bench.timing import quiet
from quancrypt_fl.config import QuanCryptConfig
from quancrypt_fl.errors import MethodError
from quancrypt_fl.experiments.cells import Cell, MeasuringCell, TrainingCell
from quancrypt_fl.experiments.experiment import Plan
from quancrypt_fl.experiments.subjects import Sample, Subject, initial_weights, update_of
from quancrypt_fl.experiments.timing_tables import ALL_CPUS, summarize_timing
from quancrypt_fl.machine import cpus
from quancrypt_fl.protect import native_threads

__all__ = ["METHODS", "TIMING", "Timing", "measure_updates"]

_CLIENTS = 10
_OURS = {"method": "quancrypt", "pruning": False}  # every value is encrypted, as by the rivals
METHODS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "quancrypt": ("QuanCrypt-FL", _OURS),
    ALL_CPUS: ("QuanCrypt-FL, all CPUs", _OURS),
    "vanilla": ("Vanilla-FL", {"method": "vanilla"}),
    "tenseal-paper": ("TenSEAL, the paper's parameters",
                      {"method": "tenseal", "tenseal_parameters": "paper"}),
    "tenseal-code": ("TenSEAL, the code's parameters",
                     {"method": "tenseal", "tenseal_parameters": "code"}),
    "batchcrypt": ("BatchCrypt, 8 bits, lanes filled", {"method": "batchcrypt"}),
}  # fmt: skip
"""By key: label and configuration. The first is ours, with one thread.

Turns follow this order: what comes before ours is a rival, which leaves the caches cold.
"""

_MODELS = {"cnn": "mnist", "alexnet": "cifar10"}
_ROUND_KINDS: Mapping[str, Mapping[str, Any]] = {
    "vanilla": {"method": "vanilla"},
    "quancrypt": {"method": "quancrypt"},
    "pruned": {"method": "quancrypt", "p_0": 0.5, "p_target": 0.5, "prune_global": True},
}


@dataclass(frozen=True)
class _Preset:
    repeat: int  # measurements of each method, after one that does not count
    batchcrypt_share: float  # share of an update that BatchCrypt encrypts
    rounds: int  # of each short run; the first does not count


_PRESETS = {
    "quick": _Preset(repeat=7, batchcrypt_share=1 / 16, rounds=3),
    "standard": _Preset(repeat=7, batchcrypt_share=1.0, rounds=6),
    "paper": _Preset(repeat=9, batchcrypt_share=1.0, rounds=11),
}


def measure_updates(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Samples of all methods in turn, on one update.

    Parameters
    ----------
    parameters
        ``model``; ``seed`` of the update; ``repeat``; ``methods``: from key to ``fields`` of the
        configuration, ``share`` of the update, ``native_threads`` of QuanCrypt Native (one where it
        is not at work), and ``processes``.

    Returns
    -------
    dict
        ``values`` of the model; ``methods``: per method seconds, bytes, ``share``,
        ``native_threads`` and ``processes``; ``missing``: why a rival could not be measured.
    """
    weights = initial_weights(parameters["model"])
    update = update_of(weights, parameters["seed"])
    subjects: dict[str, Subject] = {}
    missing: dict[str, str] = {}
    taken: dict[str, list[Sample]] = {}
    try:
        for key, entry in parameters["methods"].items():
            try:
                with native_threads(entry["native_threads"]):
                    subjects[key] = Subject(entry["fields"], weights, update, entry["share"])
            except MethodError as error:  # its library is not installed
                if entry["fields"]["method"] == "quancrypt":
                    raise
                missing[key] = str(error)
        for turn in range(parameters["repeat"] + 1):
            for key, subject in subjects.items():
                threads = parameters["methods"][key]["native_threads"]
                with quiet(), native_threads(threads):
                    sample = subject.sample()
                if turn > 0:  # the first fills caches and starts processes
                    taken.setdefault(key, []).append(sample)
    finally:
        for subject in subjects.values():
            subject.close()
    return {
        "values": sum(tensor.size for tensor in weights.values()),
        "methods": {
            key: _figures(samples, parameters["methods"][key]) for key, samples in taken.items()
        },
        "missing": missing,
    }


def _figures(samples: Sequence[Sample], entry: Mapping[str, Any]) -> dict[str, Any]:
    last = samples[-1]
    return {
        **{name: entry[name] for name in ("share", "native_threads", "processes")},
        "seconds": {phase: [sample.seconds[phase] for sample in samples] for phase in last.seconds},
        "median_seconds": {
            phase: statistics.median(sample.seconds[phase] for sample in samples)
            for phase in last.seconds
        },
        "upload": last.upload,
        "download": last.download,
        "reports": last.reports,
        "ciphertexts": last.ciphertexts,
    }


@dataclass(frozen=True, kw_only=True)
class Timing:
    """The experiment; ``models`` from a model to the data set of its rounds."""

    name: str = "timing"
    title: str = "Time and bytes of an update, and what protection adds to a round"
    question: str = "How much faster than BatchCrypt and TenSEAL, and how far from no protection?"
    models: Mapping[str, str]
    methods: Mapping[str, tuple[str, Mapping[str, Any]]]
    presets: Mapping[str, _Preset]
    clients: int = _CLIENTS

    def datasets(self, scale: str) -> tuple[str, ...]:
        """Those of the rounds."""
        del scale
        return tuple(self.models.values())

    def cells(self, plan: Plan) -> list[Cell]:
        """Updates of each model, then rounds of each kind. The first seed alone."""
        preset, seed = self.presets[plan.scale], plan.seeds[0]
        cells: list[Cell] = [
            MeasuringCell(
                f"update-{model}", f"update-{model}", measure_updates, self._parameters(
                    model, preset, seed
                ), seed,
            )
            for model in self.models
        ]  # fmt: skip
        for model, dataset in self.models.items():
            cells += [
                TrainingCell(
                    f"rounds-{model}-{kind}",
                    f"rounds-{model}-{kind}",
                    QuanCryptConfig(
                        dataset=dataset,
                        model=model,
                        clients=self.clients,
                        rounds=preset.rounds,
                        seed=seed,
                        device=plan.device,
                        data_dir=plan.data_dir,
                        **fields,
                    ),
                )
                for kind, fields in _ROUND_KINDS.items()
            ]
        return cells

    def summarize(self, plan: Plan, documents: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Tables, checks and bars of what is finished."""
        labels = {key: label for key, (label, _) in self.methods.items()}
        return summarize_timing(list(self.models), labels, self.clients, documents)

    def _parameters(self, model: str, preset: _Preset, seed: int) -> dict[str, Any]:
        common = {"model": model, "clients": self.clients, "bits": 8, "threads": 1}
        count = cpus()
        methods = {}
        for key, (_, fields) in self.methods.items():
            paillier = fields["method"] == "batchcrypt"
            full = {**common, **({"processes": count} if paillier else {}), **fields}
            methods[key] = {
                "fields": full,
                "share": preset.batchcrypt_share if paillier else 1.0,
                "native_threads": count if key == ALL_CPUS else 1,
                "processes": full.get("processes", 1),
            }
        return {"model": model, "seed": seed, "repeat": preset.repeat, "methods": methods}


TIMING = Timing(models=_MODELS, methods=METHODS, presets=_PRESETS)
