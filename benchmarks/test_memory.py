"""Peak extra memory, each case in a process of its own (memory_probe.py)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROBE = Path(__file__).with_name("memory_probe.py")
PAGES = 4 * 2**20  # Python's own objects, page tables, allocator: noise of the measurement

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc"
)


def probe(case: str) -> dict[str, int]:
    command = [sys.executable, str(PROBE), case]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, int] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("case", "allowed"),
    [
        # The update, which is its serialization too, and a worker's buffers.
        ("encrypt", 1.5),
        # A piece of a million values at a time, whatever the whole is.
        ("stream", 0.5),
        # float32 values, and a worker's buffers.
        ("decrypt", 1.5),
    ],
)
def test_peak_beside_output(benchmark: Any, case: str, allowed: float) -> None:
    benchmark.group = "peak memory, 11 million values"
    found = benchmark.pedantic(probe, args=(case,), rounds=1)
    benchmark.extra_info.update(kind="memory", case=case, **found)
    assert found["output"] > 0
    assert found["peak"] <= allowed * found["output"] + PAGES


def test_aggregator_is_constant_in_the_number_of_clients(benchmark: Any) -> None:
    """Two clients against a thousand, a million values each, under the same parameters."""
    benchmark.group = "peak memory, clients"

    def both() -> tuple[dict[str, int], dict[str, int]]:
        return probe("aggregate-2"), probe("aggregate-1000")

    few, many = benchmark.pedantic(both, rounds=1)
    benchmark.extra_info.update(kind="memory", case="aggregate", few=few, many=many)
    assert many["peak"] <= few["peak"] + PAGES
