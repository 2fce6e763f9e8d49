"""How time grows with values, clients and threads; and a billion values in a stream."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import quancrypt_native as qn
from quancrypt_fl.bench.ours import CLIP, Ours
from quancrypt_fl.bench.subject import random_values
from quancrypt_fl.bench.timing import Thunk

MILLION = 10**6
THREADED_VALUES = 11 * MILLION  # a ResNet18
STREAM_CHUNK = 16 * MILLION
DISTINCT_CLIENTS = 4
OPERATIONS = ("encrypt", "parse_add", "decrypt")

slow = pytest.mark.slow


def timed(benchmark: Any, subject: Ours, operation: str, rounds: int) -> None:
    rng = np.random.default_rng(1)

    def prepare() -> tuple[tuple[Thunk], dict[str, Any]]:
        subject.refresh(rng)
        return (subject.operations[operation](),), {}

    benchmark.extra_info["values"] = subject.values
    benchmark.pedantic(lambda thunk: thunk(), setup=prepare, rounds=rounds, warmup_rounds=1)


@pytest.mark.parametrize("values", [*(10**e for e in range(3, 8)), pytest.param(10**8, marks=slow)])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_values(benchmark: Any, operation: str, values: int) -> None:
    benchmark.group = f"{operation}, by values"
    subject = Ours("packed", qn.Parameters.for_aggregation(values=values), values)
    subject.check(np.random.default_rng(values))
    benchmark.extra_info.update(
        kind="values", operation=operation, bytes=subject.upload_bytes,
        degree=subject.params.poly_degree,
    )  # fmt: skip
    timed(benchmark, subject, operation, 3 if values > MILLION else 9)


@pytest.mark.parametrize("threads", sorted({1, 2, os.cpu_count() or 1}))
@pytest.mark.parametrize("operation", OPERATIONS)
def test_threads(benchmark: Any, operation: str, threads: int) -> None:
    benchmark.group = f"{operation}, by threads"
    qn.set_num_threads(threads)
    subject = Ours("packed", qn.Parameters.for_aggregation(), THREADED_VALUES)
    subject.check(np.random.default_rng(threads))
    benchmark.extra_info.update(kind="threads", operation=operation, threads=threads)
    timed(benchmark, subject, operation, 7)


@pytest.mark.parametrize("clients", [1, 10, 100, 1000, pytest.param(10_000, marks=slow)])
def test_clients(benchmark: Any, clients: int) -> None:
    """Uploads of a million values, parsed and added one after the other."""
    benchmark.group = "parse and add, by clients"
    params = qn.Parameters.for_aggregation(max_weight=max(clients, 2))
    keys = qn.keygen(params)
    encryptor, decryptor = qn.Encryptor(params, keys.secret), qn.Decryptor(params, keys.secret)
    rng = np.random.default_rng(clients)
    uploads: list[bytes] = []
    integers: list[NDArray[np.int64]] = []
    for _ in range(min(clients, DISTINCT_CLIENTS)):
        x = random_values(rng, MILLION, CLIP)
        uploads.append(encryptor.encrypt(x, clip=CLIP).to_bytes())
        integers.append(qn.quantize(x, CLIP, params.bits).astype(np.int64))

    def add_all() -> qn.EncryptedUpdate:
        aggregator = qn.Aggregator(params)
        for client in range(clients):
            aggregator.add(uploads[client % len(uploads)])
        return aggregator.result()

    benchmark.extra_info.update(
        kind="clients", clients=clients, values=MILLION, bytes_per_value=params.bytes_per_value
    )
    total = benchmark.pedantic(add_all, rounds=1 if clients > 100 else 5, warmup_rounds=0)
    assert total.weight == clients
    times = [len(range(first, clients, len(uploads))) for first in range(len(uploads))]
    expected = sum(count * q for count, q in zip(times, integers, strict=True))
    assert np.array_equal(decryptor.decrypt_integers(total), expected)


@pytest.mark.parametrize(
    ("values", "max_weight"),
    [
        (10**9, 16),
        pytest.param(10**9, 10_000, marks=slow),
        pytest.param(7 * 10**9, 16, marks=slow),
    ],
)
def test_stream(benchmark: Any, values: int, max_weight: int) -> None:
    """A model larger than memory: piece after piece is encrypted and written away."""
    benchmark.group = "encrypt in a stream"
    subject = Ours("packed", qn.Parameters.for_aggregation(max_weight=max_weight), STREAM_CHUNK)
    subject.check(np.random.default_rng(1))

    def stream() -> int:
        written = 0
        with Path(os.devnull).open("wb") as sink:
            for _ in range(-(-values // STREAM_CHUNK)):
                written += sink.write(subject.upload())
        return written

    pieces = -(-values // STREAM_CHUNK)
    benchmark.extra_info.update(
        kind="stream", values=pieces * STREAM_CHUNK, model=values, max_weight=max_weight,
        piece=STREAM_CHUNK,
    )  # fmt: skip
    written = benchmark.pedantic(stream, rounds=1, warmup_rounds=0)
    benchmark.extra_info["bytes"] = written
    assert written >= pieces * subject.params.upload_bytes(STREAM_CHUNK)
