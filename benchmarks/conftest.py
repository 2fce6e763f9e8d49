"""What the benchmarks share. Without ``--benchmark-enable`` each runs once and is not timed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import quancrypt_native as qn
from quancrypt_fl.bench.machine import describe_machine


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: Any) -> None:
    """The facts that docs/performance.md names beside a figure; no name of a host."""
    machine_info.clear()
    machine_info["quancrypt"] = {**describe_machine(), "threads": 1}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Everything runs on one thread unless a benchmark is about threads."""
    before = qn.num_threads()
    qn.set_num_threads(1)
    yield
    qn.set_num_threads(before)
