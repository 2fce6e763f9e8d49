"""Every kernel of every instruction set at every ring degree, and SEAL's where it has the like."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import quancrypt_native as qn
from quancrypt_fl.bench.kernels import (
    NTT_DEGREES,
    SEAL_KERNELS,
    draw_benches,
    ring_parameters,
    slot_kernels,
)
from quancrypt_native import _core

SAMPLE_SECONDS = 2e-4
ROUNDS = 15
DRAWS = 4  # operands and alignments that rounds take in turn


@functools.cache
def packed(degree: int) -> qn.Parameters:
    """Packed parameters in the ring of that degree, 8 bits, weight 16."""
    params = qn.Parameters.for_aggregation(max_poly_degree=degree)
    assert params.poly_degree == degree
    return params


@functools.cache
def of_slots(degree: int) -> tuple[str, ...]:
    """Kernels that only the slot encoding has."""
    return slot_kernels(ring_parameters(degree), packed(degree))


@functools.lru_cache(maxsize=4)
def drawn(degree: int, slots: bool) -> list[dict[str, _core.KernelBench]]:
    """For each draw, the same operands for every set."""
    rng = np.random.default_rng(degree)
    params = ring_parameters(degree) if slots else packed(degree)
    return [draw_benches(params, rng) for _ in range(DRAWS)]


def draws(degree: int, kernel: str) -> list[dict[str, _core.KernelBench]]:
    return drawn(degree, kernel in of_slots(degree))


@functools.lru_cache(maxsize=2)
def seal_bench(degree: int) -> _core.SealBench:
    return _core.SealBench(packed(degree)._core)


def cases() -> list[Any]:
    return [
        pytest.param(degree, kernel, name, id=f"{degree}-{kernel}-{name}")
        for degree in NTT_DEGREES
        for kernel in (*drawn(degree, False)[0]["portable"].kernels(), *of_slots(degree))
        for name in (*qn.backends(), *(["seal"] if kernel in SEAL_KERNELS else []))
    ]


@functools.cache
def runs_in_a_round(degree: int, kernel: str) -> int:
    """The same for all sets, so that pytest-benchmark's own table compares like with like."""
    run = draws(degree, kernel)[0][qn.backend()].run
    count = 1
    while run(kernel, count) < SAMPLE_SECONDS:
        count *= 2
    return count


@pytest.mark.parametrize(("degree", "kernel", "name"), cases())
def test_kernel(benchmark: Any, degree: int, kernel: str, name: str) -> None:
    benchmark.group = f"{kernel}, N = {degree}"
    work = draws(degree, kernel)[0]["portable"].work(kernel)
    runs: list[Callable[[int], float]]
    if name == "seal":
        operation = SEAL_KERNELS[kernel]
        seal = seal_bench(degree)
        runs = [functools.partial(seal.run, operation)]
        elements = seal.bytes(operation) if operation == "random_bytes" else work["elements"]
    else:
        for draw in draws(degree, kernel):
            assert draw[name].digest(kernel) == draw["portable"].digest(kernel)
        runs = [functools.partial(draw[name].run, kernel) for draw in draws(degree, kernel)]
        elements = work["elements"]
    count = runs_in_a_round(degree, kernel)
    turns = itertools.cycle(runs)
    benchmark.extra_info.update(
        kind="kernel", degree=degree, kernel=kernel, set=name, runs=count, elements=elements,
        work=work,
    )  # fmt: skip
    seconds = benchmark.pedantic(
        lambda: next(turns)(count), rounds=ROUNDS, iterations=1, warmup_rounds=1
    )
    assert seconds > 0
