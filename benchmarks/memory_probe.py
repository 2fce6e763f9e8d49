"""``python memory_probe.py CASE``: peak memory of one operation beyond what was there before.

Runs in a process of its own, so that memory which Python or the allocator kept from something else
is not reused unseen. Linux only: it reads the peak of the resident set from /proc/self/status.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

import quancrypt_native as qn

VALUES = 11_000_000  # a ResNet18
CLIENT_VALUES = 1_000_000
PIECE_VALUES = 1_000_000
MOST_CLIENTS = 1000
CLIP = 0.05


def resident(field: str) -> int:
    """``VmRSS`` or its peak ``VmHWM``, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def peak_of(call: Callable[[], object]) -> int:
    """Bytes by which the resident set grew at most while ``call`` ran."""
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = resident("VmRSS")
    call()
    return resident("VmHWM") - before


def measure(case: str) -> dict[str, int]:
    """``peak`` and, to compare it with, ``output`` in bytes."""
    qn.set_num_threads(1)
    name, _, count = case.partition("-")
    clients = int(count or 1)
    params = qn.Parameters.for_aggregation(max_weight=MOST_CLIENTS if count else 16)
    keys = qn.keygen(params)
    encryptor, decryptor = qn.Encryptor(params, keys.secret), qn.Decryptor(params, keys.secret)
    rng = np.random.default_rng(1)
    # Everything that is made once is made before the first peak counts.
    small = np.zeros(params.values_per_ciphertext, np.float32)
    decryptor.decrypt_sum(qn.aggregate([encryptor.encrypt(small, clip=CLIP)]))
    x = rng.normal(0, CLIP / 2, VALUES).astype(np.float32)
    kept: list[object] = []

    if name == "encrypt":
        output = encryptor.encrypt(x, clip=CLIP).nbytes
        return {"peak": peak_of(lambda: kept.append(encryptor.encrypt(x, clip=CLIP).to_bytes())),
                "output": output}  # fmt: skip
    if name == "stream":
        written = 0

        def stream() -> None:
            nonlocal written
            with tempfile.TemporaryFile() as sink:
                for start in range(0, VALUES, PIECE_VALUES):
                    piece = x[start : start + PIECE_VALUES]
                    written += sink.write(encryptor.encrypt(piece, clip=CLIP).to_bytes())

        return {"peak": peak_of(stream), "output": written}
    if name == "decrypt":
        total = qn.aggregate([encryptor.encrypt(x, clip=CLIP)])
        return {"peak": peak_of(lambda: kept.append(decryptor.decrypt_sum(total))),
                "output": x.nbytes}  # fmt: skip
    if name == "aggregate":
        data = encryptor.encrypt(x[:CLIENT_VALUES], clip=CLIP).to_bytes()

        def add_all() -> None:
            aggregator = qn.Aggregator(params)
            for _ in range(clients):
                aggregator.add(data)
            kept.append(aggregator)

        return {"peak": peak_of(add_all), "output": len(data)}
    raise SystemExit(f"unknown case {case!r}")


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
