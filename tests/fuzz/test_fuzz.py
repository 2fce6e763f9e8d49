"""The fuzz targets of the Python side for a short while: seeds, found cases, seeded mutations.

The long runs, and the targets in C++, are in docs/fuzzing.md.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from fuzz.python import federated_targets, frames, native_targets
from fuzz.python.run import CORPUS, all_targets, execute, found_cases, inputs
from fuzz.python.target import Target

RUNS = 1500
MORE_MEMORY = 4 << 30
TARGETS = all_targets()


@pytest.fixture
def little_memory() -> Iterator[None]:
    """A number in the input does not decide what is allocated: beyond this, a MemoryError."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MORE_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.usefixtures("little_memory")
def test_nothing_is_found(name: str, tmp_path: Path) -> None:
    assert execute(name, TARGETS[name], RUNS, seed=1, work=tmp_path) == 0


def test_a_finding_is_reported_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The harness itself: a parser that breaks is noticed, once for each place."""

    def parser(data: bytes) -> None:
        if data.startswith(b"\xff"):
            raise IndexError(data[0])

    target = Target(parser, [b"\xff\x01"], frames.raw)
    assert execute("broken", target, 200, seed=1, work=tmp_path) == 1
    (kept,) = tmp_path.iterdir()
    assert kept.read_bytes() == b"\xff\x01"
    assert "IndexError" in capsys.readouterr().err


def test_the_same_seed_makes_the_same_inputs() -> None:
    target = TARGETS["reply"]
    first = list(inputs(target, Random("a"), 50))
    assert first == list(inputs(target, Random("a"), 50))
    assert first != list(inputs(target, Random("b"), 50))


def test_seeds_are_read() -> None:
    """Every seed is good input, and so what is mutated from it is near good input."""
    for data in TARGETS["frame"].seeds:
        assert frames.split(data) is not None
    for target in TARGETS.values():
        for data in target.seeds:
            target.run(data)


def test_mutations_pass_checksums() -> None:
    """The better part of changed updates gets past the checksum, and some are read."""
    import quancrypt_native as qn

    random = Random(1)
    target = TARGETS["update_packed"]
    params, _ = native_targets._party("packed")
    checksum = read = 0
    for data in inputs(target, random, 400):
        try:
            qn.EncryptedUpdate.from_bytes(data, params)
            read += 1
        except (qn.WireFormatError, qn.CapacityError) as error:
            checksum += "checksum" in str(error)
    assert checksum < 40
    assert read > 10


def test_found_cases_belong_to_targets() -> None:
    folders = {path.name for path in CORPUS.iterdir()}
    assert folders <= set(TARGETS)
    assert len(found_cases("history")) >= 4
    assert federated_targets.targets().keys() <= TARGETS.keys()
