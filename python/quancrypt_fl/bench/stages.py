"""Limits on paper: which kernels an operation runs on one ciphertext, and what bounds each of them.

A stage takes at least its bytes at the highest rate that any kernel which only moves and adds
reaches in this ring, its random bytes at the generator's rate, and its modular multiplications at
the highest rate that any kernel reaches in the smallest ring. These rates are measured here too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import quancrypt_native as qn
from quancrypt_fl.bench.kernels import ring_parameters
from quancrypt_fl.bench.timing import Spread
from quancrypt_native import _core

__all__ = ["Stage", "measure_stages", "stages_of"]

_SMALLEST_DEGREE = 1024
_MOVING = ("memcpy", "add", "subtract_small", "find_not_below", "unpack_bits", "pack_bits")
_MULTIPLYING = ("ntt_forward", "ntt_inverse", "multiply_add", "scale_add")
_COPY_BYTES = 128 * 2**20  # beyond the cache that one core has
_CHACHA_BYTES = 6  # per coefficient, one run of the kernel in _core.KernelBench


@dataclass(frozen=True, slots=True)
class Stage:
    """A kernel's part in one ciphertext of an operation."""

    name: str
    kernel: str
    runs: float  # of the kernel as _core.KernelBench runs it, for one ciphertext


def stages_of(params: qn.Parameters) -> dict[str, list[Stage]]:
    """Stages of encryption to bytes, of parsing and adding, and of decrypting a sum.

    Packed encoding, secret key, seeded uploads: ``c0`` travels, ``c1`` is expanded from the seed.
    """
    facts = params.explain().as_dict()
    degree, fields = params.poly_degree, facts["fields"]
    bits = [(p - 1).bit_length() for p in params.data_primes]
    primes = len(bits)
    body = degree * sum(bits) / 8  # bytes of one polynomial
    per_run = _CHACHA_BYTES * degree
    expand = [
        Stage("c1: random bytes", "chacha20", body / per_run),
        Stage("c1: words", "unpack_bits", primes),
        Stage("c1: range", "find_not_below", primes),
    ]
    read = [Stage("unpack", "unpack_bits", primes), Stage("check range", "find_not_below", primes)]
    return {
        "encrypt": [
            Stage("clip, quantize", "quantize_f32", fields),
            Stage("pack fields", "pack_fields", 1),
            Stage("noise: random bytes", "chacha20", 1),
            Stage("noise: sample", "sample_centred_binomial", 1),
            Stage("subtract noise", "subtract_small", primes),
            Stage("forward NTT", "ntt_forward", primes),
            *expand,
            Stage("subtract c1 · s", "multiply_subtract", primes),
            Stage("pack bits", "pack_bits", primes),
            Stage("checksum", "crc32c", body / per_run),
        ],
        "parse_add": [
            Stage("checksum", "crc32c", body / per_run),
            *read,
            *expand,
            Stage("add both polynomials", "add", 2 * primes),
        ],
        "decrypt": [
            Stage("unpack", "unpack_bits", 2 * primes),
            Stage("check range", "find_not_below", 2 * primes),
            Stage("c0 + c1 · s", "multiply_add", primes),
            Stage("inverse NTT", "ntt_inverse", primes),
            Stage("CRT, fields", "unpack_fields", 1),
            Stage("dequantize", "dequantize", fields),
        ],
    }


def measure_stages(params: qn.Parameters, *, repeat: int, sample_seconds: float) -> dict[str, Any]:
    """Time every stage with the kernel set in use.

    Returns
    -------
    dict
        ``set``; ``rates`` in GB/s: ``memcpy_cache``, ``memcpy_memory`` and ``cache`` (bytes read
        and written) and ``random``, and ``multiplications`` in 10^9 per second; ``operations``: by
        name, ``stages`` (each with ``bytes``, ``random_bytes`` and ``multiplications`` per value,
        ``ns_per_value``, ``limit_ns_per_value``, ``bound`` and ``share``) and their sums.
    """
    bench = _core.KernelBench(params._core, qn.backend())
    small = _core.KernelBench(ring_parameters(_SMALLEST_DEGREE)._core, qn.backend())

    def time_of(kernel: str, which: _core.KernelBench = bench) -> float:
        return _seconds_a_run(lambda n: which.run(kernel, n), repeat, sample_seconds)

    kernels = {stage.kernel for stages in stages_of(params).values() for stage in stages}
    times = {kernel: time_of(kernel) for kernel in sorted(kernels | {*_MOVING})}
    rates = {
        "memcpy_cache": bench.work("memcpy")["bytes"] / times["memcpy"] / 1e9,
        "memcpy_memory": _memory_rate(repeat),
        "cache": max(bench.work(kernel)["bytes"] / times[kernel] / 1e9 for kernel in _MOVING),
        "random": bench.work("chacha20")["random_bytes"] / times["chacha20"] / 1e9,
        "multiplications": max(
            small.work(kernel)["multiplications"] / time_of(kernel, small) / 1e9
            for kernel in _MULTIPLYING
        ),
    }
    values = params.values_per_ciphertext
    operations: dict[str, Any] = {}
    for name, stages in stages_of(params).items():
        rows = [
            _row(stage, bench.work(stage.kernel), times[stage.kernel], rates, values)
            for stage in stages
        ]
        operations[name] = {
            "stages": rows,
            "ns_per_value": sum(row["ns_per_value"] for row in rows),
            "limit_ns_per_value": sum(row["limit_ns_per_value"] for row in rows),
        }
    return {"set": qn.backend(), "rates": rates, "operations": operations}


def _row(
    stage: Stage, work: dict[str, int], seconds: float, rates: dict[str, float], values: int
) -> dict[str, Any]:
    # The generator's own stages make their random bytes; samplers find theirs made already.
    made = work["random_bytes"] if stage.kernel == "chacha20" else 0
    limits = {
        "memory": work["bytes"] / rates["cache"],
        "random": made / rates["random"],
        "multiplications": work["multiplications"] / rates["multiplications"],
    }
    bound = max(limits, key=lambda key: limits[key])
    each = stage.runs / values
    return {
        "stage": stage.name,
        "kernel": stage.kernel,
        "bytes": work["bytes"] * each,
        "random_bytes": made * each,
        "multiplications": work["multiplications"] * each,
        "ns_per_value": seconds * 1e9 * each,
        "limit_ns_per_value": limits[bound] * each,
        "bound": bound,
        "share": limits[bound] / (seconds * 1e9),
    }


def _seconds_a_run(run: Callable[[int], float], repeat: int, shortest: float) -> float:
    count = 1
    while run(count) < shortest:
        count *= 2
    return Spread.of([run(count) / count for _ in range(repeat)]).median


def _memory_rate(repeat: int) -> float:
    source = np.ones(_COPY_BYTES // 8)
    target = np.zeros_like(source)
    samples = []
    for _ in range(repeat):
        start = time.perf_counter()
        np.copyto(target, source)
        samples.append(2 * source.nbytes / (time.perf_counter() - start) / 1e9)
    return Spread.of(samples).median
