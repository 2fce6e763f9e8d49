"""Ablations, none of which the paper publishes: one field of the method at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from quancrypt_fl.experiments.accuracy import BATCHCRYPT_NOTE, study
from quancrypt_fl.experiments.experiment import AccuracyExperiment, Arm

__all__ = ["ABLATION_BITS", "ABLATION_CLIP", "ABLATION_PRUNING", "ABLATION_SMOOTHING"]

_BITS = (2, 3, 4, 6, 8, 12, 16)
_BATCHCRYPT_BITS = (4, 6, 8, 16)
_CLIP_FACTORS = (1.0, 2.0, 3.0, 4.0, 5.0, 100.0)  # 100 times the mean magnitude clips nothing
_SMOOTHING = (0.25, 0.5, 0.75, 1.0)
_RATES = (0.2, 0.5, 0.7, 0.9)
_NOTE = "The paper publishes no ablation. Differences are paired with Vanilla-FL, seed by seed."


def _vanilla(base: Mapping[str, Any], group: str) -> Arm:
    fields = {**base, "method": "vanilla"}
    return Arm(key="vanilla", group=group, label="Vanilla-FL", fields=fields)


def _varying(
    field: str, values: tuple[float, ...], write: Callable[[float], str], group: str
) -> Callable[[str], list[Arm]]:
    """One field over its values, after Vanilla-FL."""

    def arms(scale: str) -> list[Arm]:
        base = study(scale)
        if scale == "standard":  # fewer arms than in the other studies
            base["rounds"] = 24
        return [
            _vanilla(base, group),
            *(
                Arm(
                    key=f"{field.replace('_', '-')}-{value:g}",
                    group=group,
                    label=write(value),
                    fields={**base, field: value},
                    against="vanilla",
                    x=float(value),
                )
                for value in values
            ),
        ]

    return arms


_OURS_OVER_BITS = _varying("bits", _BITS, lambda value: f"{value:g} bits", "10 clients")


def _bits_arms(scale: str) -> list[Arm]:
    """Ours, then BatchCrypt: a group, and so a panel and a series, of its own."""
    ours = _OURS_OVER_BITS(scale)
    base = ours[0].fields
    return [
        *ours,
        *(
            Arm(
                key=f"batchcrypt-{bits}",
                group="10 clients, BatchCrypt",
                label=f"BatchCrypt, {bits} bits",
                fields={**base, "method": "batchcrypt", "encryption": False, "bits": bits},
                against="vanilla",
                x=float(bits),
            )
            for bits in _BATCHCRYPT_BITS
        ),
    ]


ABLATION_BITS = AccuracyExperiment(
    name="ablation-bits",
    title="Bits of a quantized value, 2 to 16",
    question="How few bits are enough, and how few are for BatchCrypt?",
    group_heading="clients",
    label_heading="bits",
    arms=_bits_arms,
    notes=(
        _NOTE,
        BATCHCRYPT_NOTE,
        "At equal clip bounds BatchCrypt's step is that of QuanCrypt-FL times the number of "
        "clients: the more there are, the more bits it needs.",
    ),
    axis="bits",
)

ABLATION_CLIP = AccuracyExperiment(
    name="ablation-clip",
    title="Clip factor, 1 to 5 and without clipping",
    question="Where should values be clipped, in multiples of a tensor's mean magnitude?",
    group_heading="clients",
    label_heading="clip factor",
    arms=_varying(
        "clip_factor",
        _CLIP_FACTORS,
        lambda value: f"alpha = {value:g}" if value < 100 else "no clipping (alpha = 100)",
        "10 clients",
    ),
    notes=(_NOTE, "The paper searched 1.0 to 5.0 and took 3.0, without giving the accuracies."),
)

ABLATION_SMOOTHING = AccuracyExperiment(
    name="ablation-smoothing",
    title="Smoothing of the global weights",
    question="Does smoothing help?",
    group_heading="clients",
    label_heading="smoothing",
    arms=_varying("smoothing", _SMOOTHING, lambda value: f"lambda = {value:g}", "10 clients"),
    notes=(_NOTE, "lambda = 1 is no smoothing."),
    axis="lambda",
)

_PRUNING: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "shared": ("shared mask", {"mask": "shared"}),
    "client": ("mask of each client", {"mask": "client"}),
    "feedback": ("shared mask, error feedback", {"mask": "shared", "error_feedback": True}),
    "global": ("shared mask, global model pruned too", {"prune_global": True}),
}


def _pruning_arms(scale: str) -> list[Arm]:
    base = study(scale)
    found = [
        _vanilla(base, "no pruning"),
        Arm(
            key="rate-0",
            group="no pruning",
            label="p = 0",
            fields={**base, "pruning": False},
            against="vanilla",
            x=0.0,
        ),
    ]
    for key, (group, fields) in _PRUNING.items():
        rates = _RATES if scale != "quick" or key == "shared" else (0.5, 0.9)
        found += [
            Arm(
                key=f"{key}-{rate:g}",
                group=group,
                label=f"p = {rate:g}",
                fields={**base, **fields, "p_0": rate, "p_target": rate},
                against="vanilla",
                x=rate,
            )
            for rate in rates
        ]
    return found


ABLATION_PRUNING = AccuracyExperiment(
    name="ablation-pruning",
    title="Pruning rate and kind of mask",
    question="How much can be left out, and who should choose what?",
    group_heading="mask",
    label_heading="pruning rate",
    arms=_pruning_arms,
    notes=(_NOTE, "The rate is the same in all rounds, without the schedule."),
    axis="pruning rate",
)
