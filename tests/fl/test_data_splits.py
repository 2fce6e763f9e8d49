"""Splits: disjoint, complete, seeded, and what their names say, for every partition and data set.

The published code mixes up indices of a subset with indices of the whole set, so that validation
leaks into training and its "non-IID" MNIST is IID. Here every property is asserted of the labels
and pixels that the indices lead to.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.fl.data_files import (
    cifar10_files,
    cifar100_files,
    write_files,
    write_ham10000,
    write_mnist,
)

from quancrypt_fl.data import DATASETS, load_dataset, split
from quancrypt_fl.data.partition import PARTITIONS, Split
from quancrypt_fl.errors import DataError

Labels = NDArray[np.int64]

LABELS = np.repeat(np.arange(10), 100)


@st.composite
def label_arrays(draw: st.DrawFn) -> Labels:
    """60 to 400 labels of 2 to 12 classes of unequal sizes, in random order."""
    classes = draw(st.integers(2, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shares = rng.dirichlet(np.full(classes, 2.0))
    return rng.choice(classes, size=draw(st.integers(60, 400)), p=shares).astype(np.int64)


def assert_a_partition(result: Split, samples: int) -> None:
    everything = np.concatenate([*result.clients, result.validation])
    np.testing.assert_array_equal(np.sort(everything), np.arange(samples))
    assert min(len(part) for part in result.clients) >= 1
    for part in (*result.clients, result.validation):
        assert np.all(np.diff(part) > 0)


def equal(one: Split, two: Split) -> bool:
    pairs = zip((*one.clients, one.validation), (*two.clients, two.validation), strict=True)
    return all(np.array_equal(first, second) for first, second in pairs)


@settings(max_examples=60, deadline=None)
@given(
    labels=label_arrays(),
    partition=st.sampled_from(PARTITIONS),
    clients=st.integers(1, 20),
    shards_per_client=st.integers(1, 2),
    alpha=st.sampled_from([1e-320, 1e-3, 0.1, 1.0, 100.0, 1e308]),
    validation=st.sampled_from([0.0, 0.1, 0.2, 0.3]),
    seed=st.integers(0, 2**63 - 1),
)
def test_parts_are_disjoint_complete_and_seeded(
    labels: Labels,
    partition: str,
    clients: int,
    shards_per_client: int,
    alpha: float,
    validation: float,
    seed: int,
) -> None:
    def divide() -> Split:
        return split(
            labels,
            clients,
            partition,
            seed,
            shards_per_client=shards_per_client,
            dirichlet_alpha=alpha,
            validation=validation,
        )

    result = divide()
    assert_a_partition(result, len(labels))
    assert equal(result, divide())
    assert len(result.validation) == round(validation * len(labels))
    counts = result.counts(labels, 12)
    assert counts.shape == (clients, 12)
    assert [int(row.sum()) for row in counts] == [len(part) for part in result.clients]


@settings(max_examples=60, deadline=None)
@given(
    labels=label_arrays(),
    clients=st.integers(1, 20),
    shards_per_client=st.integers(1, 2),
    seed=st.integers(0, 2**32),
)
def test_shards_give_few_classes_also_when_nothing_divides_evenly(
    labels: Labels, clients: int, shards_per_client: int, seed: int
) -> None:
    """A shard is a run of the sorted labels: another class begins ``classes - 1`` times in all."""
    result = split(labels, clients, "shards", seed, shards_per_client=shards_per_client)
    per_client = [len(np.unique(labels[part])) for part in result.clients]
    classes = len(np.unique(labels[np.concatenate(result.clients)]))
    assert sum(per_client) <= clients * shards_per_client + classes - 1
    sizes = [len(part) for part in result.clients]
    assert max(sizes) - min(sizes) <= shards_per_client


@pytest.mark.parametrize(("clients", "most"), [(7, 4), (10, 4), (13, 4), (30, 4), (50, 4)])
@pytest.mark.parametrize("seed", range(5))
def test_two_shards_touch_two_classes_each_at_most(clients: int, most: int, seed: int) -> None:
    """Shards are shorter than the smallest class here, of which 700 samples have about 80."""
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(10), 70 + np.arange(10)))
    result = split(labels, clients, "shards", seed)
    assert max(len(np.unique(labels[part])) for part in result.clients) <= most
    iid = split(labels, clients, "iid", seed)
    if clients <= 13:
        assert min(len(np.unique(labels[part])) for part in iid.clients) > most


def test_iid_parts_are_equal_and_mixed() -> None:
    result = split(LABELS, 10, "iid", 1)
    assert {len(part) for part in result.clients} == {80}
    assert min(len(np.unique(LABELS[part])) for part in result.clients) >= 8


@settings(max_examples=20, deadline=None)
@given(labels=label_arrays(), clients=st.integers(1, 30), seed=st.integers(0, 2**32))
def test_iid_parts_differ_by_one_sample_at_most(labels: Labels, clients: int, seed: int) -> None:
    sizes = [len(part) for part in split(labels, clients, "iid", seed).clients]
    assert max(sizes) - min(sizes) <= 1


def test_alpha_decides_how_uneven() -> None:
    def counts(alpha: float) -> np.ndarray:
        labels = np.repeat(np.arange(10), 1000)
        return split(labels, 10, "dirichlet", 3, dirichlet_alpha=alpha).counts(labels, 10)

    spread = [float(counts(alpha).std()) for alpha in (0.05, 0.5, 5.0, 1e6)]
    assert spread == sorted(spread, reverse=True)
    assert spread[0] > 10 * spread[-1]
    assert np.abs(counts(1e308) - counts(1e9)).max() <= 1
    assert np.ptp(counts(1e308).sum(axis=1)) <= 10


def test_seeds_and_partitions_differ() -> None:
    parts = {
        (partition, seed): split(LABELS, 5, partition, seed).clients[0].tobytes()
        for partition in PARTITIONS
        for seed in (1, 2)
    }
    assert len(set(parts.values())) == 6


def test_validation_does_not_depend_on_how_the_rest_is_divided() -> None:
    """So that runs of different partitions and numbers of clients are validated alike."""
    held_out = {
        split(LABELS, clients, partition, 5).validation.tobytes()
        for partition in PARTITIONS
        for clients in (1, 3, 10)
    }
    assert len(held_out) == 1


@settings(max_examples=40, deadline=None)
@given(
    labels=label_arrays(),
    partition=st.sampled_from(PARTITIONS),
    group_size=st.integers(1, 6),
    seed=st.integers(0, 2**32),
)
def test_groups_are_not_divided(labels: Labels, partition: str, group_size: int, seed: int) -> None:
    groups = np.random.default_rng(seed).permutation(np.arange(len(labels)) // group_size)
    result = split(labels, 3, partition, seed, groups=groups)
    assert_a_partition(result, len(labels))
    assert not set(groups[result.validation]) & set(groups[np.concatenate(result.clients)])
    share = round(0.2 * len(labels))
    assert share - group_size < len(result.validation) <= share
    assert equal(result, split(labels, 3, partition, seed, groups=groups))


@pytest.mark.parametrize("partition", PARTITIONS)
@pytest.mark.parametrize("samples", [2, 3, 7])
def test_one_sample_at_least_is_set_aside(partition: str, samples: int) -> None:
    result = split(LABELS[:samples], 1, partition, 1)
    assert_a_partition(result, samples)
    assert len(result.validation) == 1
    assert len(split(LABELS[:samples], 1, partition, 1, validation=0).validation) == 0


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("sizes", [(5, 4), (1, 9), (9, 1, 1), (30, 40, 30), (20, 2, 20)])
def test_one_group_at_least_is_set_aside(sizes: tuple[int, ...], seed: int) -> None:
    """The smallest, where the first in random order is above a fifth."""
    groups = np.repeat(np.arange(len(sizes)), sizes)
    result = split(np.zeros(len(groups), np.int64), 1, "iid", seed, groups=groups)
    assert_a_partition(result, len(groups))
    held_out = set(groups[result.validation])
    assert held_out
    assert not held_out & set(groups[result.clients[0]])
    assert len(result.validation) <= max(min(sizes), len(groups) // 5)


# --- refusals ---


def test_too_few_samples_for_validation_are_refused() -> None:
    with pytest.raises(DataError, match="split of 0 training samples, with 1 set aside"):
        split(LABELS[:1], 1, "iid", 1)
    with pytest.raises(DataError, match="all 50 training samples are of one group"):
        split(LABELS[:50], 1, "iid", 1, groups=np.zeros(50, np.int64))
    alone = split(LABELS[:50], 1, "iid", 1, groups=np.zeros(50, np.int64), validation=0)
    assert (len(alone.clients[0]), len(alone.validation)) == (50, 0)


@pytest.mark.parametrize("partition", PARTITIONS)
def test_too_many_clients_are_refused(partition: str) -> None:
    with pytest.raises(DataError, match="has no sample in the"):
        split(LABELS[:50], 60, partition, 1)
    with pytest.raises(DataError, match="client 0 of 1 has no sample"):
        split(LABELS[:0], 1, partition, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"partition": "random"}, "partition 'random' is not one of iid, shards, dirichlet"),
        ({"clients": 0}, "clients = 0 is not at least 1"),
        ({"shards_per_client": 0}, "shards_per_client = 0 is not at least 1"),
        ({"dirichlet_alpha": 0.0}, "dirichlet_alpha = 0.0 is not a positive number"),
        ({"dirichlet_alpha": float("nan")}, "dirichlet_alpha = nan is not a positive number"),
        ({"dirichlet_alpha": float("inf")}, "dirichlet_alpha = inf is not a positive number"),
        ({"validation": 1.0}, r"validation = 1.0 is not in \[0, 1\)"),
        ({"validation": -0.1}, r"validation = -0.1 is not in \[0, 1\)"),
        ({"validation": float("nan")}, r"validation = nan is not in \[0, 1\)"),
        ({"groups": np.arange(3)}, "groups of shape .* for labels of shape"),
    ],
)
def test_arguments_out_of_range_are_refused(options: dict, message: str) -> None:
    arguments = {"clients": 4, "partition": "iid", "seed": 1, **options}
    with pytest.raises(DataError, match=message):
        split(LABELS, **arguments)


# --- every data set ---

WRITERS: dict[str, Callable[[Path], None]] = {
    "digits": lambda folder: None,
    "mnist": lambda folder: write_mnist(folder, train=120, test=20),
    "fashion-mnist": lambda folder: write_mnist(folder, train=120, test=20),
    "cifar10": lambda folder: write_files(folder, cifar10_files(train=120)),
    "cifar100": lambda folder: write_files(folder, cifar100_files(train=200)),
    "ham10000": lambda folder: write_ham10000(folder, lesions=70),
}


def keys(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


@pytest.mark.parametrize("partition", PARTITIONS)
@pytest.mark.parametrize("name", list(DATASETS))
def test_no_image_is_in_two_places(tmp_path: Path, name: str, partition: str) -> None:
    """By content: clients, validation and test set share no image."""
    WRITERS[name](tmp_path)
    dataset = load_dataset(name, tmp_path, seed=3)
    train = dataset.train
    result = split(train.labels, 4, partition, 3, groups=train.groups)
    assert_a_partition(result, len(train))
    parts = [train.take(indices) for indices in (*result.clients, result.validation)]
    seen = [keys(part.images) for part in (*parts, dataset.test)]
    # A few of scikit-learn's digits are alike, in whatever parts they are.
    everything = np.concatenate([train.images, dataset.test.images])
    twins = len(everything) - len(keys(everything))
    assert sum(len(part) for part in seen) - len(set().union(*seen)) <= twins
    assert twins == 0 or name == "digits"
    for part, indices in zip(parts, (*result.clients, result.validation), strict=True):
        np.testing.assert_array_equal(part.labels, train.labels[indices])
    if partition == "shards":
        per_client = [len(np.unique(part.labels)) for part in parts[:-1]]
        assert sum(per_client) <= 4 * 2 + dataset.classes - 1


@pytest.mark.parametrize("name", list(DATASETS))
def test_the_same_seed_gives_the_same_data_and_split(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path)
    one, again = (load_dataset(name, tmp_path, seed=7) for _ in range(2))
    np.testing.assert_array_equal(one.train.images, again.train.images)
    np.testing.assert_array_equal(one.test.labels, again.test.labels)
    splits = [
        split(dataset.train.labels, 5, "dirichlet", 7, groups=dataset.train.groups)
        for dataset in (one, again)
    ]
    assert equal(*splits)
