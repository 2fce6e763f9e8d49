"""One run of everything: :func:`run_benchmarks` makes the document that tables and charts show."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import quancrypt_native as qn
from quancrypt_fl.bench.kernels import measure_kernels, measure_ntt, slot_kernels
from quancrypt_fl.bench.machine import describe_machine
from quancrypt_fl.bench.operations import Subjects, compare, threads, upload_bytes
from quancrypt_fl.bench.rivals import missing_rivals
from quancrypt_fl.bench.stages import measure_stages
from quancrypt_fl.bench.timing import quiet
from quancrypt_fl.errors import FederatedError

__all__ = ["QUICK", "SCHEMA", "BenchConfig", "run_benchmarks"]

SCHEMA = 1
_THREADS_VALUES = 11_000_000  # a ResNet18


@dataclass(frozen=True, slots=True)
class BenchConfig:
    """What to measure, and how thoroughly.

    Attributes
    ----------
    values
        Values of one update of ours.
    repeat
        Pairs of each comparison; samples of each kernel.
    threads
        For us and for TenSEAL.
    kernels
        Whether kernels and stages are measured too.
    backends
        Whether operations are measured with the other kernel sets too.
    sample_seconds
        Shortest sample of a kernel.
    threads_values
        Values of the update that one thread and two threads encrypt.
    seed
        Of the inputs.
    """

    values: int = 1_228_800  # ten full ciphertexts of the default parameters
    repeat: int = 9
    threads: int = 1
    kernels: bool = True
    backends: bool = False
    sample_seconds: float = 2e-3
    threads_values: int = _THREADS_VALUES
    seed: int = 1


QUICK = BenchConfig(values=245_760, repeat=3, sample_seconds=2e-4, threads_values=491_520)
"""Seconds instead of minutes: shows the order of magnitude, no more."""


def run_benchmarks(
    config: BenchConfig, announce: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Check every answer, then measure.

    Parameters
    ----------
    config
        What to measure.
    announce
        Told what is being measured.

    Returns
    -------
    dict
        ``schema``, ``machine``, ``config``, ``parameters``, ``missing``, ``operations``
        (:func:`.operations.compare`), ``bytes``, ``threads``; with kernels also ``kernels``,
        ``ntt`` (:func:`.kernels.measure_kernels`) and ``stages``
        (:func:`.stages.measure_stages`); with backends also ``backends``: the operations by kernel
        set.

    Raises
    ------
    WrongAnswerError
        If anything decrypts wrongly, or a kernel differs from the portable one.
    """
    before = qn.num_threads()
    qn.set_num_threads(config.threads)
    try:
        with quiet():
            return _measure(config, announce)
    finally:
        qn.set_num_threads(before)


def _measure(config: BenchConfig, announce: Callable[[str], None]) -> dict[str, Any]:
    missing = missing_rivals()
    subjects = Subjects(config.values, config.threads, missing, config.seed)
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "machine": describe_machine(),
        "config": asdict(config),
        "parameters": {
            key: subjects.parameters(key).explain().as_dict()
            for key in ("packed", "packed_small", "public", "slots")
        },
        "missing": [asdict(item) for item in missing],
        "operations": compare(subjects, config.repeat, announce),
        "bytes": upload_bytes(subjects),
    }
    announce("one thread and two")
    document["threads"] = threads(config.threads_values, config.repeat, config.seed)
    if config.kernels:
        options: dict[str, Any] = {
            "repeat": config.repeat,
            "sample_seconds": config.sample_seconds,
        }
        announced = {**options, "seed": config.seed, "announce": announce}
        slots = subjects.parameters("slots")
        document["kernels"] = [
            *measure_kernels(subjects.packed, **announced),
            *measure_kernels(slots, only=slot_kernels(slots, subjects.packed), **announced),
        ]
        document["ntt"] = measure_ntt(**announced)
        announce("limits")
        document["stages"] = measure_stages(subjects.packed, **options)
    if config.backends:
        others = [name for name in qn.backends() if name != qn.backend()]
        document["backends"] = {}
        for name in others:
            announce(f"the same with QUANCRYPT_BACKEND={name}")
            document["backends"][name] = _with_backend(name, config)
    return document


def _with_backend(name: str, config: BenchConfig) -> list[dict[str, Any]]:
    """Operations of a process that runs the kernel set ``name``."""
    command = [sys.executable, "-m", "quancrypt_fl.bench.child", json.dumps(asdict(config))]
    done = subprocess.run(
        command,
        env={**os.environ, "QUANCRYPT_BACKEND": name},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise FederatedError(f"the benchmark with QUANCRYPT_BACKEND={name} failed: {reason[0]}")
    operations: list[dict[str, Any]] = json.loads(done.stdout)
    return operations
