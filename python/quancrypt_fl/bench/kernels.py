"""Kernels one by one, timed in C++: every set beside the portable one, and beside SEAL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import quancrypt_native as qn
from quancrypt_fl.bench.subject import WrongAnswerError
from quancrypt_fl.bench.timing import Spread
from quancrypt_native import _core

__all__ = [
    "NTT_DEGREES",
    "SEAL_KERNELS",
    "check_digests",
    "draw_benches",
    "measure_kernels",
    "measure_ntt",
    "ring_parameters",
    "slot_kernels",
]

NTT_DEGREES = (1024, 2048, 4096, 8192, 16384, 32768)
_ONLY_PRIME_BITS = {1024: 27, 2048: 48}  # 128-bit security leaves room for one prime
_PRIME_BITS = 48
_ROOM_BITS = 8  # above the scale
_REFERENCE = "portable"
SEAL_KERNELS = {
    "ntt_forward": "ntt_forward",
    "ntt_inverse": "ntt_inverse",
    "chacha20": "random_bytes",
}
"""What SEAL has the like of, and its name in ``_core.SealBench``."""
_OFFSETS = 64
_SEEDS = 2**63


def ring_parameters(degree: int) -> qn.Parameters:
    """Slots in the ring of that degree whose first prime has fewer than 50 bits."""
    bits = _ONLY_PRIME_BITS.get(degree, _PRIME_BITS)
    return qn.Parameters.slots(
        poly_degree=degree,
        coeff_modulus_bits=(bits,) if degree in _ONLY_PRIME_BITS else (bits, bits),
        scale_bits=bits - _ROOM_BITS,
        max_weight=16,
    )


def slot_kernels(slots: qn.Parameters, packed: qn.Parameters) -> tuple[str, ...]:
    """Kernels that only the slot encoding has."""
    of_packed = _core.KernelBench(packed._core, _REFERENCE).kernels()
    of_slots = _core.KernelBench(slots._core, _REFERENCE).kernels()
    return tuple(name for name in of_slots if name not in of_packed)


def check_digests(benches: dict[str, _core.KernelBench], kernels: list[str]) -> None:
    """Raise :class:`WrongAnswerError` unless every set's result equals the portable one's."""
    for kernel in kernels:
        expected = benches[_REFERENCE].digest(kernel)
        for name, bench in benches.items():
            if bench.digest(kernel) != expected:
                raise WrongAnswerError(
                    f"kernel {kernel} of set {name} gives another result than {_REFERENCE}"
                )


def measure_kernels(
    params: qn.Parameters,
    *,
    repeat: int,
    sample_seconds: float,
    seed: int,
    announce: Callable[[str], None],
    only: tuple[str, ...] | None = None,
) -> list[dict[str, Any]]:
    """Time kernels of all sets that run here, in turn, on operands drawn anew each time.

    Parameters
    ----------
    params
        Whose ring, first prime and layout the operands have.
    repeat
        Samples of each kernel and set.
    sample_seconds
        Shortest time of one sample.
    only
        Names of kernels; all if None.

    Returns
    -------
    list of dict
        ``kernel``, ``degree``, ``prime_bits``, ``work`` (see ``KernelBench::work``) and, by set and
        for SEAL where it has the like, ``ns_per_element``, ``gigabytes_per_second`` and
        ``speedup`` over the portable set; for each set also ``seal_ratio``: how much longer SEAL
        takes.
    """
    rng = np.random.default_rng(seed)
    seal = _core.SealBench(params._core)
    samples: dict[str, dict[str, list[float]]] = {}
    counts: dict[tuple[str, str], int] = {}
    work: dict[str, dict[str, int]] = {}
    for repetition in range(repeat):
        announce(f"kernels, N = {params.poly_degree}: {repetition + 1} of {repeat}")
        benches = draw_benches(params, rng)
        kernels = [k for k in benches[_REFERENCE].kernels() if only is None or k in only]
        if repetition == 0:
            check_digests(benches, kernels)
        for kernel in kernels:
            work[kernel] = benches[_REFERENCE].work(kernel)
            runs: dict[str, Callable[[int], float]] = {
                name: lambda n, b=bench, k=kernel: b.run(k, n)  # type: ignore[misc]
                for name, bench in benches.items()
            }
            elements = dict.fromkeys(runs, work[kernel]["elements"])
            if operation := SEAL_KERNELS.get(kernel):
                runs["seal"] = lambda n, o=operation: seal.run(o, n)  # type: ignore[misc]
                elements["seal"] = (
                    seal.bytes(operation) if kernel == "chacha20" else elements[_REFERENCE]
                )
            for name, run in runs.items():
                count = counts.setdefault((kernel, name), _runs_for(run, sample_seconds))
                each = run(count) / count / elements[name] * 1e9
                samples.setdefault(kernel, {}).setdefault(name, []).append(each)
    bits = (params.coeff_modulus[0] - 1).bit_length()
    return [
        {
            "kernel": kernel,
            "degree": params.poly_degree,
            "prime_bits": bits,
            "work": work[kernel],
            "sets": _summary(by_set, work[kernel]),
        }
        for kernel, by_set in samples.items()
    ]


def measure_ntt(
    *, repeat: int, sample_seconds: float, seed: int, announce: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Both transforms at all ring degrees, a prime under 50 bits; as :func:`measure_kernels`."""
    rows: list[dict[str, Any]] = []
    for degree in NTT_DEGREES:
        rows += measure_kernels(
            ring_parameters(degree),
            repeat=repeat,
            sample_seconds=sample_seconds,
            seed=seed,
            announce=announce,
            only=("ntt_forward", "ntt_inverse"),
        )
    return rows


def draw_benches(params: qn.Parameters, rng: np.random.Generator) -> dict[str, _core.KernelBench]:
    """The same new operands for each set, at the same random alignment."""
    offset, seed = int(rng.integers(_OFFSETS)), int(rng.integers(_SEEDS))
    return {
        name: _core.KernelBench(params._core, name, offset=offset, seed=seed)
        for name in qn.backends()
    }


def _runs_for(run: Callable[[int], float], shortest: float) -> int:
    count = 1
    while run(count) < shortest:
        count *= 2
    return count


def _summary(by_set: dict[str, list[float]], work: dict[str, int]) -> dict[str, dict[str, Any]]:
    portable = by_set[_REFERENCE]
    bytes_per_element = work["bytes"] / work["elements"]
    summary: dict[str, dict[str, Any]] = {}
    for name, samples in by_set.items():
        spread = Spread.of(samples)
        summary[name] = {
            "ns_per_element": spread.as_dict(),
            "gigabytes_per_second": bytes_per_element / spread.median,
            "speedup": _ratio(portable, samples),
        }
        if "seal" in by_set and name != "seal":
            summary[name]["seal_ratio"] = _ratio(by_set["seal"], samples)
    return summary


def _ratio(longer: list[float], shorter: list[float]) -> dict[str, float]:
    return Spread.of([a / b for a, b in zip(longer, shorter, strict=True)]).as_dict()
