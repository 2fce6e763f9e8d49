"""``communication``: serialized bytes of a client's upload and download, as they would travel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quancrypt_fl.baselines.batchcrypt.lanes import Lanes
from quancrypt_fl.experiments.cells import Cell, MeasuringCell
from quancrypt_fl.experiments.experiment import Plan
from quancrypt_fl.experiments.subjects import Subject, initial_weights, update_of
from quancrypt_fl.experiments.summary import check
from quancrypt_fl.experiments.units import size

__all__ = ["COMMUNICATION", "Communication", "Variant", "measure_bytes"]

_CLIENTS = 10
_FLOAT32 = 4
_BITS = (2, 3, 4, 6, 8, 12, 16)


@dataclass(frozen=True)
class Variant:
    """One line of the table."""

    label: str
    fields: Mapping[str, Any]

    @property
    def paillier(self) -> bool:
        """Whether it is too slow to encrypt a whole update in passing."""
        return bool(self.fields["method"] == "batchcrypt")


def _ours(bits: int = 8, rate: float = 0.0, mask: str = "shared") -> dict[str, Any]:
    fields: dict[str, Any] = {"method": "quancrypt", "bits": bits, "pruning": rate > 0}
    return {**fields, "p_0": rate, "p_target": rate, "mask": mask} if rate else fields


_VARIANTS: dict[str, Variant] = {
    "vanilla": Variant("Vanilla-FL, float32", {"method": "vanilla"}),
    **{f"bits-{b}": Variant(f"QuanCrypt-FL, {b} bits", _ours(b)) for b in _BITS},
    **{
        f"{mask}-{rate:g}": Variant(
            f"QuanCrypt-FL, 8 bits, p = {rate:g}, {said}", _ours(8, rate, mask)
        )
        for mask, said in (("shared", "shared mask"), ("client", "each client's mask"))
        for rate in (0.2, 0.5)
    },
    **{
        f"batchcrypt-{bits}": Variant(
            f"BatchCrypt, {bits} bits, lanes filled", {"method": "batchcrypt", "bits": bits}
        )
        for bits in (8, 16)
    },
    **{
        f"tenseal-{kind}": Variant(
            f"TenSEAL, the {kind}'s parameters", {"method": "tenseal", "tenseal_parameters": kind}
        )
        for kind in ("paper", "code")
    },
}
_PUBLISHED_LANES = "BatchCrypt, published lanes (16 bits, 100 values each)"


@dataclass(frozen=True)
class _Preset:
    models: tuple[str, ...]
    batchcrypt_share: float


_PRESETS = {
    "quick": _Preset(("cnn", "alexnet"), 1 / 8),
    "standard": _Preset(("cnn", "alexnet"), 1.0),
    "paper": _Preset(("cnn", "alexnet", "resnet18"), 1.0),
}


def measure_bytes(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Bytes of one update and of the sum over all clients.

    Parameters
    ----------
    parameters
        ``fields`` of the configuration, ``model``, ``seed`` of the update, ``share`` of it.
    """
    weights = initial_weights(parameters["model"])
    update = update_of(weights, parameters["seed"])
    subject = Subject(parameters["fields"], weights, update, parameters["share"])
    try:
        sample = subject.sample()
    finally:
        subject.close()
    return {
        "values": sum(tensor.size for tensor in weights.values()),
        "share": parameters["share"],
        "upload": sample.upload,
        "download": sample.download,
        "reports": sample.reports,
        "ciphertexts": sample.ciphertexts,
    }


@dataclass(frozen=True, kw_only=True)
class Communication:
    """The experiment."""

    name: str = "communication"
    title: str = "Bytes up and down, per client and round"
    question: str = "What does encryption cost in bytes, and what do bits and pruning save?"
    variants: Mapping[str, Variant]
    presets: Mapping[str, _Preset]
    clients: int = _CLIENTS

    def datasets(self, scale: str) -> tuple[str, ...]:
        """None: bytes depend on the number of values alone."""
        del scale
        return ()

    def cells(self, plan: Plan) -> list[Cell]:
        """Each variant of each model, once."""
        preset, seed = self.presets[plan.scale], plan.seeds[0]
        return [
            MeasuringCell(
                f"{model}-{key}",
                f"{model}-{key}",
                measure_bytes,
                {
                    "model": model,
                    "seed": seed,
                    "share": preset.batchcrypt_share if variant.paillier else 1.0,
                    "fields": {"model": model, "clients": self.clients, **variant.fields},
                },
                seed,
            )
            for model in preset.models
            for key, variant in self.variants.items()
        ]

    def summarize(self, plan: Plan, documents: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """A table and a panel of bars for each model, and the checks."""
        rows, tables, bars, checks = [], [], [], []
        for model in self.presets[plan.scale].models:
            own = self._rows(model, documents)
            if own:
                rows += own
                tables.append(_table(model, own, self.clients))
                bars.append(_panel(model, own))
            checks += _checks(model, {row["arm"]: row for row in own})
        return {
            "kind": "measurement",
            "rows": rows,
            "tables": tables,
            "figure": bars,
            "checks": checks,
            "notes": _notes(rows),
        }

    def _rows(self, model: str, documents: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
        rows = []
        for key, variant in self.variants.items():
            if f"{model}-{key}" not in documents:
                continue
            results = documents[f"{model}-{key}"]["results"]
            rows.append(_row(f"{model}-{key}", model, variant.label, results))
            if key == "batchcrypt-16":
                rows.append(_published_row(model, results))
        return rows


def _row(arm: str, model: str, label: str, results: Mapping[str, Any]) -> dict[str, Any]:
    float32 = results["values"] * _FLOAT32
    return {
        "arm": arm,
        "model": model,
        "label": label,
        **results,
        "bytes_per_value": results["upload"] / results["values"],
        "upload_to_float32": results["upload"] / float32,
        "download_to_float32": results["download"] / float32,
    }


def _published_row(model: str, results: Mapping[str, Any]) -> dict[str, Any]:
    """As many ciphertexts as the published lanes need, of the measured size."""
    per_ciphertext = results["upload"] * results["share"] / results["ciphertexts"]
    ciphertexts = Lanes.published().integers(results["values"])
    published = {
        **results,
        "upload": ciphertexts * per_ciphertext,
        "download": ciphertexts * per_ciphertext,
        "ciphertexts": ciphertexts,
    }
    return _row(f"{model}-batchcrypt-published", model, _PUBLISHED_LANES, published)


def _table(model: str, rows: list[dict[str, Any]], clients: int) -> dict[str, Any]:
    lines = [
        [
            _labelled(row),
            size(row["upload"]),
            f"{row['bytes_per_value']:.2f}",
            f"{row['upload_to_float32']:.2f}",
            size(row["download"]),
            f"{row['download_to_float32']:.2f}",
            size(row["reports"]) if row["reports"] else "–",
        ]
        for row in rows
    ]
    head = ["method", "up", "bytes per value", "up / float32", "down", "down / float32",
            "up, before the first update"]  # fmt: skip
    title = f"{model}: {rows[0]['values']:,} values, {clients} clients:"
    return {"title": title, "head": head, "rows": lines, "left": 1}


def _labelled(row: Mapping[str, Any]) -> str:
    return f"{row['label']}{' (extrapolated)' if row['share'] < 1 else ''}"


def _panel(model: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "title": f"{model}: bytes per value uploaded (logarithmic)",
        "bars": [
            {
                "label": _labelled(row),
                "value": row["bytes_per_value"],
                "text": f"{row['bytes_per_value']:.2f}",
            }
            for row in rows
        ],
    }


def _checks(model: str, rows: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for arm, text, limit in (
        (f"{model}-bits-8", "upload, 8 bits, unpruned, of float32", 0.5),
        (f"{model}-shared-0.5", "upload, 8 bits, p = 0.5, shared mask, of float32", 0.25),
    ):
        if arm not in rows:
            found.append(check(text, f"<= {limit}", "not measured", None, model))
            continue
        ratio = rows[arm]["upload_to_float32"]
        found.append(check(text, f"<= {limit}", f"{ratio:.3f}", ratio <= limit, model))
    return found


def _notes(rows: list[dict[str, Any]]) -> list[str]:
    notes = [
        "Bytes are lengths of what is serialized: headers, statistics and padding included. What a "
        "client sends before updates (clip bounds) is sent once by QuanCrypt-FL, and before every "
        "update by BatchCrypt.",
        "The published lanes have room for the sum of 4 parties at most; they are listed for their "
        "size: their ciphertexts, of the measured length.",
    ]
    if any(row["share"] < 1 for row in rows):
        notes.append(
            "BatchCrypt is measured on the first part of every tensor and extrapolated by the "
            "number of values, headers included; `--scale standard` encrypts all of them."
        )
    return notes


COMMUNICATION = Communication(variants=_VARIANTS, presets=_PRESETS)
