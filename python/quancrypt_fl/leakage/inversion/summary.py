"""Figures of finished inversion cells: targets, tables, and what must hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from quancrypt_fl.experiments.statistics import LEVEL, interval, paired_difference
from quancrypt_fl.experiments.summary import check

__all__ = ["summarize_inversion"]

Document = Mapping[str, Any]

_DLG_PSNR = 20.0  # dB
_RECOGNISABLE_SSIM = 0.5
_HEAD = ("view", "setting", "bytes / float32", "images", "PSNR (dB)", "SSIM", "MSE", "labels")


def summarize_inversion(documents: Sequence[Document]) -> dict[str, Any]:
    """The summary of an experiment of kind ``leakage``.

    Parameters
    ----------
    documents
        Of finished cells, in order.
    """
    targets = [_target(document) for document in documents]
    return {
        "kind": "leakage",
        "rows": targets,
        "targets": targets,
        "tables": _tables(targets),
        "checks": _checks(documents),
        "notes": list(_NOTES) if targets else [],
        "figure": [],
    }


_NOTES = (
    "± is the 95 % confidence interval of the mean over images (Student's t). Images of one "
    "aggregate are not independent: their intervals are too narrow.",
    "The attacker knows the global weights, which are fresh, and the mask, and infers labels by "
    "itself. Dropout is off. All of this helps it.",
    "A ciphertext is read as numbers, a byte for each value, scaled as usual gradients are; the "
    "reference reads random bytes in the same way.",
)


def _target(document: Document) -> dict[str, Any]:
    parameters, results = document["parameters"], document["results"]
    view = parameters["view"]
    return {
        "view": view["kind"],
        "setting": view["setting"],
        "dataset": parameters["dataset"],
        "model": parameters["network"],
        "attack": parameters["attack"],
        "images": len(results["psnr"]),
        "psnr": fmean(results["psnr"]),
        "ssim": fmean(results["ssim"]),
        "mse": fmean(results["mse"]),
        "label_accuracy": fmean(results["labels"]),
        "psnr_ci": _bounds(results["psnr"]),
        "ssim_ci": _bounds(results["ssim"]),
        "bits": view["bits"] or None,
        "pruning_rate": view["rate"],
        "clients": view["clients"],
        "upload_bytes": results["sent"],
        "float32_bytes": results["float32"],
        "seconds": results["seconds"],
    }


def _bounds(values: Sequence[float]) -> list[float] | None:
    found = interval(values).as_dict()
    low, high = found["low"], found["high"]
    return None if low is None or high is None else [low, high]


def _tables(targets: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str, str], list[list[str]]] = {}
    for item in targets:
        key = (item["dataset"], item["model"], item["attack"])
        groups.setdefault(key, []).append(
            [
                item["view"],
                item["setting"] or "–",
                "–"
                if item["view"] == "random"
                else f"{item['upload_bytes'] / item['float32_bytes']:.2f}",
                str(item["images"]),
                _spread(item["psnr"], item["psnr_ci"], 1),
                _spread(item["ssim"], item["ssim_ci"], 2),
                f"{item['mse']:.2g}",
                f"{item['label_accuracy']:.0%}",
            ]
        )
    return [
        {
            "title": f"{dataset}, {model}, attack {attack}:",
            "head": list(_HEAD),
            "rows": rows,
            "left": 2,
        }
        for (dataset, model, attack), rows in groups.items()
    ]


def _spread(mean: float, bounds: Sequence[float] | None, digits: int) -> str:
    shown = f"{mean:.{digits}f}"
    return shown if bounds is None else f"{shown} ± {bounds[1] - mean:.{digits}f}"


def _checks(documents: Sequence[Document]) -> list[dict[str, Any]]:
    found = []
    for document in documents:
        parameters, results = document["parameters"], document["results"]
        if parameters["view"]["kind"] != "plaintext":
            continue
        basis = _basis(document)
        if (parameters["network"], parameters["attack"]) == ("lenet", "dlg"):
            mean = fmean(results["psnr"])
            text = "DLG draws the image from a plaintext gradient"
            required = f"PSNR > {_DLG_PSNR:.0f} dB"
            found.append(check(text, required, f"{mean:.1f} dB", mean > _DLG_PSNR, basis))
        if (parameters["network"], parameters["attack"]) == ("resnet18", "cosine"):
            mean = fmean(results["ssim"])
            text = "cosine + TV: recognisable from a plaintext gradient of one image"
            required = f"SSIM >= {_RECOGNISABLE_SSIM}"
            found.append(check(text, required, f"{mean:.2f}", mean >= _RECOGNISABLE_SSIM, basis))
    return [*found, *_ciphertext_checks(documents)]


def _ciphertext_checks(documents: Sequence[Document]) -> list[dict[str, Any]]:
    """Ciphertexts against random bytes, image by image; all intervals hold together at 95 %."""
    pairs = []
    for document in documents:
        if document["parameters"]["view"]["kind"] != "ciphertext":
            continue
        pairs += [
            (document, other)
            for other in documents
            if other["parameters"]["view"]["kind"] == "random"
            and _same_attack(document["parameters"], other["parameters"])
        ]
    level = 1 - (1 - LEVEL) / max(1, 2 * len(pairs))
    found = []
    for document, other in pairs:
        for metric, unit in (("psnr", " dB"), ("ssim", "")):
            difference = paired_difference(
                dict(enumerate(document["results"][metric])),
                dict(enumerate(other["results"][metric])),
                level,
            )
            assert difference is not None
            half = difference.half_width
            text = f"a ciphertext gives no more than random bytes ({metric.upper()})"
            said = f"{difference.mean:+.2f}" + ("" if half is None else f" ± {half:.2f}") + unit
            passed = None if half is None else abs(difference.mean) <= half
            found.append(check(text, "difference within its interval", said, passed,
                               _basis(document)))  # fmt: skip
    return found


def _same_attack(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(one[key] == other[key] for key in ("dataset", "network", "attack", "images"))


def _basis(document: Document) -> str:
    parameters = document["parameters"]
    images = len(document["results"]["psnr"])
    return (
        f"{parameters['dataset']}, {parameters['network']}, {parameters['attack']}, {images} images"
    )
