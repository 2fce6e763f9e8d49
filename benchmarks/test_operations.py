"""Each whole operation in one group with those who do the same job; answers are checked first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import quancrypt_native as qn
from quancrypt_fl.bench.operations import COMPARISONS, Subjects
from quancrypt_fl.bench.rivals import missing_rivals
from quancrypt_fl.bench.run import BenchConfig
from quancrypt_fl.bench.timing import Thunk

ROUNDS = 7
CASES = dict.fromkeys(
    case
    for item in COMPARISONS
    for case in (
        (item.name, item.label, item.ours, item.operation, ""),
        (item.name, item.label, item.rival, item.rival_operation, item.rival_does),
    )
)


@pytest.fixture(scope="module")
def subjects() -> Iterator[Subjects]:
    config = BenchConfig()
    before = qn.num_threads()
    qn.set_num_threads(1)
    yield Subjects(config.values, 1, missing_rivals(), config.seed)
    qn.set_num_threads(before)


@pytest.mark.parametrize(
    ("name", "label", "key", "operation", "does"),
    [pytest.param(*case, id=f"{case[0]}-{case[2]}-{case[3]}") for case in CASES],
)
def test_operation(
    benchmark: Any,
    subjects: Subjects,
    name: str,
    label: str,
    key: str,
    operation: str,
    does: str,
) -> None:
    if not subjects.has(key):
        pytest.skip(f"{key} is not installed: pip install 'quancrypt-native[baselines]'")
    subject = subjects[key]  # checks its answer when it is made

    def prepare() -> tuple[tuple[Thunk], dict[str, Any]]:
        subject.refresh(subjects.rng)
        return (subject.operations[operation](),), {}

    benchmark.group = label
    benchmark.extra_info.update(
        kind="operation", name=name, subject=key, label=subject.label, does=does,
        values=subject.values,
    )  # fmt: skip
    benchmark.pedantic(lambda thunk: thunk(), setup=prepare, rounds=ROUNDS, warmup_rounds=1)
