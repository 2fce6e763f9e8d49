"""Figures of finished inversion cells: targets, tables, and what must hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from quancrypt_fl.experiments.statistics import LEVEL, Interval, interval, paired_difference
from quancrypt_fl.experiments.summary import check

__all__ = ["summarize_inversion"]

Document = Mapping[str, Any]

_DLG_PSNR = 20.0  # dB
_RECOGNISABLE_SSIM = 0.5
_MARGINS = {"psnr": 1.0, "ssim": 0.1}  # differences that would not matter
_HEAD = ("view", "setting", "bytes / float32", "images", "PSNR (dB)", "SSIM", "SSIM above a guess",
         "labels")  # fmt: skip
_REFERENCES = ("random", "guess")


def summarize_inversion(documents: Sequence[Document]) -> dict[str, Any]:
    """The summary of an experiment of kind ``leakage``.

    Parameters
    ----------
    documents
        Of finished cells, in order.
    """
    targets = [_target(document, documents) for document in documents]
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
    "ciphertext: read as numbers, a byte for each value, scaled as usual gradients are; random: "
    "random bytes, read in the same way. decoded: taken apart and decoded as decryption would, "
    "without a key; unmasked: the same with the encryption switched off.",
    "guess: the mean image of the test set, or so many other images of it, matched in the same "
    "way. An SSIM that is no higher tells nothing about the image.",
)


def _target(document: Document, documents: Sequence[Document]) -> dict[str, Any]:
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
        "ssim_above_guess": _above_guess(document, documents),
        "bits": view["bits"] or None,
        "pruning_rate": view["rate"],
        "clients": view["clients"],
        "upload_bytes": results["sent"],
        "float32_bytes": results["float32"],
        "seconds": results["seconds"],
    }


def _above_guess(document: Document, documents: Sequence[Document]) -> list[float] | None:
    """Mean difference to a guess of as many images, and its interval, as low, mean, high."""
    clients = document["parameters"]["view"]["clients"]
    guess = next(
        (
            other
            for other in documents
            if other["parameters"]["view"]["kind"] == "guess"
            and other["parameters"]["view"]["clients"] == clients
            and _same_attack(document["parameters"], other["parameters"])
        ),
        None,
    )
    if guess is None or guess is document:
        return None
    found = _difference(document, guess, "ssim", LEVEL)
    half = found.half_width
    return None if half is None else [found.mean - half, found.mean, found.mean + half]


def _difference(one: Document, other: Document, metric: str, level: float) -> Interval:
    """Over the images that both have, which are the first ones."""
    found = paired_difference(
        dict(enumerate(one["results"][metric])), dict(enumerate(other["results"][metric])), level
    )
    assert found is not None
    return found


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
                if item["view"] in _REFERENCES
                else f"{item['upload_bytes'] / item['float32_bytes']:.2f}",
                str(item["images"]),
                _spread(item["psnr"], item["psnr_ci"], 1),
                _spread(item["ssim"], item["ssim_ci"], 2),
                _above(item["ssim_above_guess"]),
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


def _above(found: Sequence[float] | None) -> str:
    return "–" if found is None else f"{found[1]:+.2f} ± {found[2] - found[1]:.2f}"


def _checks(documents: Sequence[Document]) -> list[dict[str, Any]]:
    found = []
    for document in documents:
        parameters, results = document["parameters"], document["results"]
        if parameters["view"]["kind"] != "plaintext":
            continue
        basis = _basis(document, len(results["psnr"]))
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


_SAID = {"ciphertext": "a ciphertext", "decoded": "a ciphertext decoded without a key"}


def _ciphertext_checks(documents: Sequence[Document]) -> list[dict[str, Any]]:
    """What is encrypted against random bytes, image by image, and the same with encryption off.

    All intervals hold together at 95 %. One that is wider than what would matter decides nothing.
    """
    pairs = [
        (document, other)
        for document in documents
        for other in documents
        if document["parameters"]["view"]["kind"] in (*_SAID, "unmasked")
        and other["parameters"]["view"]["kind"] == "random"
        and _same_attack(document["parameters"], other["parameters"])
    ]
    level = 1 - (1 - LEVEL) / max(1, 2 * len(pairs))
    return [
        _against_random(document, other, metric, level)
        for document, other in pairs
        for metric in _MARGINS
    ]


def _against_random(
    document: Document, other: Document, metric: str, level: float
) -> dict[str, Any]:
    kind, unit = document["parameters"]["view"]["kind"], " dB" if metric == "psnr" else ""
    difference = _difference(document, other, metric, level)
    mean, half, margin = difference.mean, difference.half_width, _MARGINS[metric]
    if kind == "unmasked":
        text = f"encryption switched off gives more than random bytes ({metric.upper()})"
        required = f"difference > {margin:g}{unit}, with its interval"
        passed = None
        if half is not None and (mean - half > margin or mean + half <= margin):
            passed = mean - half > margin
    else:
        text = f"{_SAID[kind]} gives no more than random bytes ({metric.upper()})"
        required = f"0 within an interval of at most ± {margin:g}{unit}"
        equal = half is not None and abs(mean) <= half
        passed = None if half is None or (equal and half > margin) else equal
    said = f"{mean:+.2f}" + ("" if half is None else f" ± {half:.2f}") + unit
    if passed is None:
        said += ": too few images to say"
    return check(text, required, said, passed, _basis(document, difference.count))


def _same_attack(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(one[key] == other[key] for key in ("dataset", "network", "attack"))


def _basis(document: Document, images: int) -> str:
    parameters = document["parameters"]
    said = "1 image" if images == 1 else f"{images} images"
    return f"{parameters['dataset']}, {parameters['network']}, {parameters['attack']}, {said}"
