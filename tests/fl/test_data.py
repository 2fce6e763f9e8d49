"""Loaders of digits, MNIST and Fashion-MNIST, and what all loaders share."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import pytest
from tests.fl.data_files import distinct_images, idx, write_mnist

from quancrypt_fl.config import CHOICES
from quancrypt_fl.data import DATASETS, ImageDataset, Samples, load_dataset, mnist
from quancrypt_fl.data.dataset import normalised
from quancrypt_fl.data.idx import read_idx
from quancrypt_fl.data.partition import PARTITIONS
from quancrypt_fl.errors import DataError


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
    pixels = distinct_images(6, (28, 28)).astype(np.float64) / 255
    mean, std = {"mnist": (0.1307, 0.3081), "fashion-mnist": (0.2860, 0.3530)}[name]
    np.testing.assert_allclose(dataset.train.images[:, 0], (pixels - mean) / std, atol=1e-5)
    np.testing.assert_array_equal(dataset.train.labels, np.arange(6))


@pytest.mark.parametrize(
    ("name", "inner"), [("mnist", "MNIST/raw"), ("fashion-mnist", "FashionMNIST/raw")]
)
def test_folders_of_torchvision_are_found(tmp_path: Path, name: str, inner: str) -> None:
    write_mnist(tmp_path / inner, compress=False)
    (tmp_path / name).mkdir()  # an empty folder of the right name does not hide the files
    assert len(load_dataset(name, tmp_path, seed=1).train) == 6


def test_fashion_mnist_of_debian_is_used_without_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Path("/usr/share/datasets/fashion-mnist") == mnist.DEBIAN_FASHION_MNIST
    monkeypatch.setattr(mnist, "DEBIAN_FASHION_MNIST", tmp_path / "debian")
    with pytest.raises(
        DataError, match=r"needs --data-dir.*Debian's package dataset-fashion-mnist"
    ):
        load_dataset("fashion-mnist", None, seed=1)
    write_mnist(tmp_path / "debian")
    dataset = load_dataset("fashion-mnist", None, seed=1)
    assert len(dataset.train) == 6
    assert dataset.class_name(9) == "ankle boot"


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


@pytest.mark.parametrize("level", [1, 9])
def test_a_truncated_gzip_file_is_named_with_the_byte_reached(tmp_path: Path, level: int) -> None:
    """All that can be unzipped counts, also less than one piece of it."""
    content = idx(np.random.default_rng(1).integers(0, 9, 300_000, dtype=np.uint8))
    whole = gzip.compress(content, level)
    path = tmp_path / "labels"
    for cut in (len(whole) // 3, len(whole) - 20, len(whole) - 4):
        path.write_bytes(whole[:cut])
        expected = len(zlib.decompressobj(wbits=31).decompress(whole[:cut]))
        assert 50_000 < expected <= len(content)
        with pytest.raises(DataError, match=f"at byte {expected}: damaged gzip stream"):
            read_idx(path, dimensions=1)


def test_absent_files_and_folders(tmp_path: Path) -> None:
    download = r"quancrypt data --dataset mnist --data-dir \S+ --download"
    with pytest.raises(DataError, match=f"needs --data-dir.*{download}"):
        load_dataset("mnist", None, seed=1)
    with pytest.raises(DataError, match=f"no such folder.*{download}"):
        load_dataset("mnist", tmp_path / "none", seed=1)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file: is not a folder"):
        load_dataset("mnist", tmp_path / "file", seed=1)
    with pytest.raises(DataError, match=rf"has no train-images-idx3-ubyte\.gz.*{download}"):
        load_dataset("mnist", tmp_path, seed=1)
    with pytest.raises(DataError, match="'imagenet' is not available; available: digits, mnist"):
        load_dataset("imagenet", None, seed=1)


def test_labels_that_do_not_fit_the_images(tmp_path: Path) -> None:
    write_mnist(tmp_path, compress=False)
    labels = tmp_path / "train-labels-idx1-ubyte"
    labels.write_bytes(idx(np.arange(5)))
    with pytest.raises(DataError, match="5 labels for 6 images in train-images"):
        load_dataset("mnist", tmp_path, seed=1)
    labels.write_bytes(idx(np.arange(6) + 7))
    with pytest.raises(
        DataError, match=r"labels-idx1-ubyte: at byte 11: label 10 is not in 0\.\.9"
    ):
        load_dataset("mnist", tmp_path, seed=1)


def test_images_that_do_not_fit_each_other(tmp_path: Path) -> None:
    write_mnist(tmp_path, compress=False)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(distinct_images(4, (28, 27))))
    with pytest.raises(DataError, match=r"training images are of shape .*28, 28.*28, 27"):
        load_dataset("mnist", tmp_path, seed=1)
    for prefix, count in (("train", 6), ("t10k", 4)):
        (tmp_path / f"{prefix}-images-idx3-ubyte").write_bytes(idx(np.zeros((count, 0, 28))))
    with pytest.raises(DataError, match="training set have no pixels"):
        load_dataset("mnist", tmp_path, seed=1)


# --- what all loaders share ---


def test_normalisation_is_the_formula_and_writes_in_place() -> None:
    pixels = distinct_images(3, (2, 5, 4))
    out = np.zeros((4, 2, 5, 4), np.float32)
    returned = normalised(pixels, (0.1, 0.2), (0.3, 0.4), out=out[:3])
    assert np.shares_memory(returned, out)
    mean = np.array([0.1, 0.2]).reshape(1, 2, 1, 1)
    std = np.array([0.3, 0.4]).reshape(1, 2, 1, 1)
    np.testing.assert_allclose(out[:3], (pixels / 255 - mean) / std, atol=1e-6)
    assert not out[3].any()


def test_groups_travel_with_their_samples() -> None:
    images = np.zeros((4, 1, 2, 2), np.float32)
    samples = Samples(images, np.arange(4), np.array([5, 6, 7, 8]))
    taken, head = samples.take(np.array([3, 1])), samples.head(2)
    assert taken.groups is not None
    assert head.groups is not None
    assert taken.groups.tolist() == [8, 6]
    assert head.groups.tolist() == [5, 6]
    assert samples.head(None) is samples
    dataset = ImageDataset("x", samples, samples, 4, tuple("abcd"), ("a note",))
    fewer = dataset.limited(2, 1)
    assert (len(fewer.train), len(fewer.test)) == (2, 1)
    assert (fewer.class_name(1), fewer.notes) == ("b", ("a note",))


@pytest.mark.parametrize("label", [-1, 4])
def test_labels_out_of_range_and_empty_sets_are_refused(label: int) -> None:
    images = np.zeros((1, 1, 2, 2), np.float32)
    good, bad = Samples(images, np.array([0])), Samples(images, np.array([label]))
    with pytest.raises(DataError, match=rf"label {label} in the test set is not in 0\.\.3"):
        ImageDataset("x", good, bad, 4)
    with pytest.raises(DataError, match="the training set is empty"):
        ImageDataset("x", good.head(0), good, 4)
