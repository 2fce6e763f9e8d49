"""``python language_models.py``: what protecting the LoRA adapters of a Llama-2-7B costs.

Shapes only, random numbers, one thread on one core. The rival is TenSEAL with the parameters of
FedShield-LLM (arXiv 2506.05640; its code: N = 8192, primes of 60 + 40 + 40 + 60 bits, scale 2^40),
on a whole ciphertext of every tensor, scaled to all of them. Both take turns; figures are medians.
Times are CPU times, which on one core are what the work takes where nothing else runs.
Prints a table and what is required, writes JSON, and ends with status 1 where a requirement fails.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import quancrypt_native as qn
from quancrypt_fl.bench.adapters import LLAMA_2_7B, value_count
from quancrypt_fl.bench.machine import describe_machine
from quancrypt_fl.bench.timing import Spread, quiet
from quancrypt_fl.experiments.subjects import Subject, update_of

CLIENTS = 10
OURS = {"method": "quancrypt", "pruning": False, "clients": CLIENTS, "bits": 8}
FEDSHIELD = {"method": "tenseal", "tenseal_parameters": "code", "clients": CLIENTS}
FEDSHIELD_SLOTS = 4096  # values in a ciphertext of it
CASES = (("both", 32), ("ffa", 32), ("sb", 64))
CLIP = 3e-3  # three mean magnitudes of what update_of draws
MAX_WEIGHT = 16


@dataclass(frozen=True)
class Case:
    """Figures of one adapter; seconds are medians of CPU time, sizes those of serialized uploads.

    Attributes
    ----------
    encrypt
        Clip, quantize, pack, encrypt, serialize.
    protect
        All that a client does with an update in a round: clip bounds for the next one, division
        by this round's, and ``encrypt``.
    faster
        Median of the paired ratios of the rival's seconds to those of ``protect``.
    """

    mode: str
    rank: int
    tensors: int
    values: int
    upload: int
    encrypt: float
    protect: float
    rival_upload: int
    rival_protect: float
    faster: float

    @property
    def over_float32(self) -> float:
        """Upload over the same values in float32."""
        return self.upload / (4 * self.values)

    @property
    def smaller(self) -> float:
        """The rival's upload over ours."""
        return self.rival_upload / self.upload


@dataclass(frozen=True)
class Requirement:
    """What must hold, and what was measured."""

    text: str
    measured: str
    passed: bool


class Encryption:
    """The native package on tensors as they are."""

    def __init__(self, tensors: Mapping[str, np.ndarray]) -> None:
        values = sum(tensor.size for tensor in tensors.values())
        params = qn.Parameters.for_aggregation(bits=8, max_weight=MAX_WEIGHT, values=values)
        keys = qn.keygen(params)
        self._encryptor = qn.Encryptor(params, keys.secret)
        self._tensors = dict(tensors)
        self._clips = dict.fromkeys(tensors, CLIP)
        sum_ = qn.EncryptedUpdate.from_bytes(self.upload(), params)
        mean = qn.Decryptor(params, keys.secret).decrypt_mean(sum_)
        for name, tensor in tensors.items():
            error = np.abs(mean[name] - np.clip(tensor, -CLIP, CLIP)).max()
            assert error <= CLIP / 127 / 2 + CLIP * 2**-22, (name, error)  # half a step, rounded

    def upload(self) -> bytes:
        """Clip, quantize, pack, encrypt, serialize."""
        return self._encryptor.encrypt(self._tensors, self._clips).to_bytes()

    def seconds(self) -> float:
        """CPU time of :meth:`upload`."""
        start = time.process_time()
        upload = self.upload()
        spent = time.process_time() - start
        del upload  # freeing it is not part of it
        return spent


def measure(mode: str, rank: int, repeat: int) -> Case:
    """All figures of one adapter; every answer is checked."""
    shapes = LLAMA_2_7B.shapes(mode, rank)
    weights = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    update = update_of(weights, seed=1)
    (size,) = {tensor.size for tensor in update.values()}
    encryption = Encryption(update)
    ours = Subject(OURS, weights, update, clock=time.process_time)
    rival = Subject(FEDSHIELD, weights, update, FEDSHIELD_SLOTS / size, clock=time.process_time)
    encrypt, first, second = [], [], []
    for number in range(repeat + 1):
        with quiet():
            samples = encryption.seconds(), ours.sample(), rival.sample()
        if number:  # the first of each does not count
            encrypt.append(samples[0])
            first.append(samples[1])
            second.append(samples[2])
    for subject in (ours, rival):
        subject.close()
    protect = [sample.seconds["protect"] for sample in first]
    rivals = [sample.seconds["protect"] for sample in second]
    return Case(
        mode,
        rank,
        len(shapes),
        value_count(shapes),
        round(first[-1].upload),
        Spread.of(encrypt).median,
        Spread.of(protect).median,
        round(second[-1].upload),
        Spread.of(rivals).median,
        Spread.of([b / a for a, b in zip(protect, rivals, strict=True)]).median,
    )


def requirements(cases: Mapping[str, Case]) -> Iterator[Requirement]:
    """What issue 9 asks of the figures."""
    both, sb = cases["both"], cases["sb"]
    yield _below("both, r = 32: protected in under 200 ms", 1e3 * both.protect, 200, "ms")
    yield _below("both, r = 32: under 30 MB", both.upload / 1e6, 30, "MB")
    yield _below("sb, r = 64: under 1 MB", sb.upload / 1e6, 1, "MB")
    for case in cases.values():
        name = f"{case.mode}, r = {case.rank}"
        yield Requirement(
            f"{name}: at most 0.5 of float32",
            f"{case.over_float32:.3f}",
            case.over_float32 <= 0.5,
        )
        yield Requirement(
            f"{name}: at least 40 times smaller than FedShield-LLM's",
            f"{case.smaller:.1f}",
            case.smaller >= 40,
        )


def _below(text: str, value: float, limit: float, unit: str) -> Requirement:
    return Requirement(text, f"{value:.3g} {unit}", value < limit)


def _print(cases: Mapping[str, Case], required: list[Requirement]) -> None:
    header = (
        "| mode | values | float32 | upload | of float32 | encrypt | protect "
        "| FedShield-LLM: upload | protect | times ours: bytes | time |"
    )
    print(header)
    print("| --- " + "| ---: " * 10 + "|")
    for case in cases.values():
        print(
            f"| {case.mode}, r = {case.rank} | {case.values:,} | {4 * case.values / 1e6:.3g} MB "
            f"| {case.upload / 1e6:.3g} MB | {case.over_float32:.3f} | {1e3 * case.encrypt:.1f} ms "
            f"| {1e3 * case.protect:.1f} ms | {case.rival_upload / 1e6:,.4g} MB "
            f"| {case.rival_protect:,.2f} s | {case.smaller:.1f} | {case.faster:,.0f} |"
        )
    print()
    for each in required:
        print(f"{'pass' if each.passed else 'FAIL'}  {each.text}: {each.measured}")


def main() -> None:
    """Measure, print, write, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=9, help="samples of each figure")
    parser.add_argument("--core", type=int, help="core to stay on (default: the last one allowed)")
    parser.add_argument("--out", type=Path, default=Path("build/language-models.json"))
    args = parser.parse_args()
    if args.repeat < 1:
        parser.error(f"--repeat is {args.repeat}; allowed: 1 or more")
    allowed = os.sched_getaffinity(0)
    core = max(allowed) if args.core is None else args.core
    if core not in allowed:
        parser.error(f"--core is {core}; allowed: {', '.join(map(str, sorted(allowed)))}")
    os.sched_setaffinity(0, {core})
    qn.set_num_threads(1)
    cases = {mode: measure(mode, rank, args.repeat) for mode, rank in CASES}
    required = list(requirements(cases))
    document: dict[str, Any] = {
        "schema": 1,
        "model": "Llama-2-7B, query and value projections",
        "repeat": args.repeat,
        "machine": describe_machine(),
        "cases": [
            {**asdict(case), "over_float32": case.over_float32, "smaller": case.smaller}
            for case in cases.values()
        ],
        "requirements": [asdict(each) for each in required],
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    _print(cases, required)
    print(f"\n{document['machine']['cpu']}, {qn.backend()} kernels, 1 thread; written: {args.out}")
    sys.exit(0 if all(each.passed for each in required) else 1)


if __name__ == "__main__":
    main()
