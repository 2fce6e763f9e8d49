"""Loaders and splits."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quancrypt_fl.config import CHOICES
from quancrypt_fl.data import DATASETS, load_dataset, split
from quancrypt_fl.data.idx import read_idx
from quancrypt_fl.data.partition import PARTITIONS
from quancrypt_fl.errors import DataError

LABELS = np.repeat(np.arange(10), 100)


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, kind, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def write_mnist(folder: Path, *, train: int = 6, compress: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, count in (("train", train), ("t10k", 4)):
        images = np.arange(count * 28 * 28).reshape(count, 28, 28) % 256
        for stem, array in (("images-idx3", images), ("labels-idx1", np.arange(count) % 10)):
            content = idx(array)
            path = folder / f"{prefix}-{stem}-ubyte"
            if compress:
                path.with_name(path.name + ".gz").write_bytes(gzip.compress(content))
            else:
                path.write_bytes(content)


def test_the_configuration_offers_what_there_is() -> None:
    assert CHOICES["dataset"] == tuple(DATASETS)
    assert CHOICES["partition"] == PARTITIONS


def test_digits_are_stratified_and_seeded() -> None:
    one, again, two = (load_dataset("digits", None, seed) for seed in (1, 1, 2))
    assert len(one.train) + len(one.test) == 1797
    assert one.image_shape == (1, 8, 8)
    counts = np.bincount(one.test.labels, minlength=10)
    assert counts.min() >= 34
    assert counts.max() <= 37
    np.testing.assert_array_equal(one.test.images, again.test.images)
    assert not np.array_equal(one.test.images, two.test.images)
    assert abs(float(one.train.images.mean())) < 0.02
    assert abs(float(one.train.images.std()) - 1) < 0.02


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
@pytest.mark.parametrize("nested", [True, False])
def test_shortened_idx_files_load(tmp_path: Path, compress: bool, name: str, nested: bool) -> None:
    write_mnist(tmp_path / name if nested else tmp_path, compress=compress)
    dataset = load_dataset(name, tmp_path, seed=1)
    assert (len(dataset.train), len(dataset.test)) == (6, 4)
    assert dataset.train.images.dtype == np.float32
    assert dataset.train.images.shape == (6, 1, 28, 28)
    if name == "mnist":
        assert dataset.train.images[0, 0, 0, 0] == pytest.approx(-0.1307 / 0.3081)
        assert dataset.train.images[0, 0, 9, 3] == pytest.approx((1 - 0.1307) / 0.3081)


def test_the_shared_mnist_loads(mnist_dir: Path) -> None:
    dataset = load_dataset("mnist", mnist_dir.parent, seed=1)
    assert (len(dataset.train), len(dataset.test)) == (10_000, 10_000)
    assert abs(float(dataset.train.images.mean())) < 0.02


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "at byte 0: truncated inside the header of 8 bytes"),
        (b"\0\0\x08\x01\0\0\0", "at byte 7: truncated inside the header"),
        (b"\1\0\x08\x01\0\0\0\0", "at byte 0: an IDX file starts with two zero bytes"),
        (b"\0\0\x0d\x01\0\0\0\0", "at byte 2: element type 0x0d"),
        (b"\0\0\x08\x03\0\0\0\0", "at byte 3: 3 dimensions, expected 1"),
        (b"\0\0\x08\x01\0\0\0\x05abc", r"at byte 11: truncated: shape \(5,\) needs 13 bytes"),
        (b"\0\0\x08\x01\0\0\0\x01abc", "at byte 9: 2 bytes after the end"),
        (b"\0\0\x08\x01\xff\xff\xff\xff", "at byte 8: truncated"),
        (gzip.compress(idx(np.arange(99)))[:-20], "at byte .*: damaged gzip stream"),
        (b"\x1f\x8bnonsense!", "at byte 0: damaged gzip stream"),
    ],
)
def test_broken_files_are_named_with_offset_and_reason(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "labels"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_idx(path, dimensions=1)
    assert str(caught.value).startswith(str(path))


def test_absent_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needs --data-dir"):
        load_dataset("mnist", None, seed=1)
    with pytest.raises(DataError, match="no such folder"):
        load_dataset("mnist", tmp_path / "none", seed=1)
    with pytest.raises(DataError, match=r"has no train-images-idx3-ubyte\.gz"):
        load_dataset("mnist", tmp_path, seed=1)
    with pytest.raises(DataError, match="'imagenet' is not available; available: digits, mnist"):
        load_dataset("imagenet", None, seed=1)


def test_labels_that_do_not_fit_the_images(tmp_path: Path) -> None:
    write_mnist(tmp_path, compress=False)
    labels = tmp_path / "train-labels-idx1-ubyte"
    labels.write_bytes(idx(np.arange(5)))
    with pytest.raises(DataError, match="5 labels for 6 images"):
        load_dataset("mnist", tmp_path, seed=1)
    labels.write_bytes(idx(np.arange(6) + 7))
    with pytest.raises(DataError, match="label 12 in the training set is not in"):
        load_dataset("mnist", tmp_path, seed=1)


@settings(max_examples=30)
@given(
    partition=st.sampled_from(PARTITIONS), clients=st.integers(1, 40), seed=st.integers(0, 2**40)
)
def test_parts_are_disjoint_complete_and_seeded(partition: str, clients: int, seed: int) -> None:
    one = split(LABELS, clients, partition, seed, dirichlet_alpha=0.05)
    again = split(LABELS, clients, partition, seed, dirichlet_alpha=0.05)
    everything = np.concatenate([*one.clients, one.validation])
    np.testing.assert_array_equal(np.sort(everything), np.arange(len(LABELS)))
    assert len(one.validation) == 200
    assert min(len(part) for part in one.clients) >= 1
    for first, second in zip(one.clients, again.clients, strict=True):
        np.testing.assert_array_equal(first, second)


def test_seeds_and_partitions_differ() -> None:
    parts = {
        (partition, seed): split(LABELS, 5, partition, seed).clients[0].tobytes()
        for partition in PARTITIONS
        for seed in (1, 2)
    }
    assert len(set(parts.values())) == 6


def test_iid_parts_are_equal_and_mixed() -> None:
    result = split(LABELS, 10, "iid", 1)
    assert {len(part) for part in result.clients} == {80}
    assert min(len(np.unique(LABELS[part])) for part in result.clients) >= 8


def test_shards_give_few_classes() -> None:
    """Two shards of 40 samples touch two classes each at most, as classes have about 80."""
    result = split(LABELS, 10, "shards", 1)
    classes = [len(np.unique(LABELS[part])) for part in result.clients]
    assert max(classes) <= 4
    assert np.mean(classes) < 4
    one_shard = split(LABELS, 10, "shards", 1, shards_per_client=1)
    assert max(len(np.unique(LABELS[part])) for part in one_shard.clients) <= 3


def test_small_alpha_is_uneven() -> None:
    def spread(alpha: float) -> float:
        parts = split(LABELS, 10, "dirichlet", 3, dirichlet_alpha=alpha).clients
        return float(np.std([len(part) for part in parts]))

    assert spread(0.1) > 2 * spread(100.0)


@pytest.mark.parametrize("partition", PARTITIONS)
def test_too_many_clients_are_refused(partition: str) -> None:
    with pytest.raises(DataError, match="has no sample in the"):
        split(LABELS[:50], 60, partition, 1)
