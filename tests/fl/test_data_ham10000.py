"""Loader of HAM10000: metadata, JPEG files, and a test set that no lesion straddles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.fl.data_files import DIAGNOSES, write_ham10000

from quancrypt_fl.data import ImageDataset, jpeg, load_dataset, split
from quancrypt_fl.errors import DataError


def load(folder: Path, seed: int = 1) -> ImageDataset:
    return load_dataset("ham10000", folder, seed)


@pytest.mark.parametrize("inner", ["", "ham10000", "HAM10000"])
def test_a_small_folder_loads(tmp_path: Path, inner: str) -> None:
    write_ham10000(tmp_path / inner)
    dataset = load(tmp_path)
    assert dataset.image_shape == (3, 64, 64)
    assert dataset.class_names == DIAGNOSES
    assert len(dataset.train) + len(dataset.test) == 42
    assert dataset.notes == ()
    images = np.concatenate([dataset.train.images, dataset.test.images])
    assert images.min() >= -1
    assert images.max() <= 1


def test_images_have_the_labels_of_their_rows(tmp_path: Path) -> None:
    """The red level of an image of :func:`write_ham10000` is its lesion's number."""
    write_ham10000(tmp_path)
    dataset = load(tmp_path)
    for samples in (dataset.train, dataset.test):
        red = (samples.images[:, 0].mean(axis=(1, 2)) + 1) / 2
        np.testing.assert_array_equal(np.round(red * 20).astype(int) % 7, samples.labels)


@pytest.mark.parametrize("seed", range(5))
def test_no_lesion_is_on_both_sides(tmp_path: Path, seed: int) -> None:
    write_ham10000(tmp_path, lesions=35)
    dataset = load(tmp_path, seed)
    train, test = dataset.train, dataset.test
    assert train.groups is not None
    assert test.groups is not None
    assert not set(train.groups) & set(test.groups)
    assert (len(train), len(test)) == (56, 14)
    assert np.bincount(test.labels).tolist() == [2] * 7  # one of five lesions, two images each
    divided = split(train.labels, 4, "iid", seed, groups=train.groups)
    held_out = set(train.groups[divided.validation])
    assert held_out
    assert not held_out & set(train.groups[np.concatenate(divided.clients)])


def test_the_test_set_is_seeded(tmp_path: Path) -> None:
    write_ham10000(tmp_path, lesions=35, images_per_lesion=1)
    one, again, other = (load(tmp_path, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.test.images, again.test.images)
    assert not np.array_equal(one.test.images, other.test.images)


def test_the_first_samples_are_of_every_diagnosis(tmp_path: Path) -> None:
    """Though the metadata is sorted by diagnosis, as the official file is."""
    write_ham10000(tmp_path, lesions=70)
    metadata = tmp_path / "HAM10000_metadata.csv"
    header, *rows = metadata.read_text().splitlines()
    rows.sort(key=lambda row: row.split(",")[2])
    metadata.write_text("\n".join([header, *rows]) + "\n")
    one, again, other = (load(tmp_path, seed) for seed in (1, 1, 2))
    for part in ("train", "test"):
        samples = getattr(one, part)
        assert len(np.unique(samples.head(len(samples) // 2).labels)) >= 5
        assert np.all(samples.groups[::2] == samples.groups[1::2])  # a lesion's images together
        np.testing.assert_array_equal(samples.labels, getattr(again, part).labels)
    assert not np.array_equal(one.train.labels, other.train.labels)


def test_any_size_and_mode_becomes_64_by_64(tmp_path: Path) -> None:
    write_ham10000(tmp_path)
    paths = sorted(tmp_path.rglob("*.jpg"))
    Image.new("L", (700, 500), 128).save(paths[0])
    Image.new("CMYK", (1, 3)).save(paths[1])
    paths[2].rename(paths[2].with_suffix(".JPEG"))
    assert len(load(tmp_path).train) + len(load(tmp_path).test) == 42
    grey = jpeg.read_images([paths[0]], 64)
    assert grey.shape == (1, 3, 64, 64)
    assert np.abs(grey.astype(int) - 128).max() <= 1


def test_rows_without_images_and_images_without_rows_are_noted(tmp_path: Path) -> None:
    write_ham10000(tmp_path)
    paths = sorted(tmp_path.rglob("*.jpg"))
    paths[0].unlink()
    paths[5].rename(paths[5].with_stem("ISIC_9999999"))
    dataset = load(tmp_path)
    assert len(dataset.train) + len(dataset.test) == 40
    assert dataset.notes == (
        "2 of 42 rows of HAM10000_metadata.csv have no image here",
        "1 of 41 images have no row in HAM10000_metadata.csv",
    )
    for path in tmp_path.rglob("*.jpg"):
        path.unlink()
    with pytest.raises(DataError, match=r"no image of the 42 rows .* called ISIC_0000000\.jpg"):
        load(tmp_path)


def test_copies_count_once_but_must_be_alike(tmp_path: Path) -> None:
    write_ham10000(tmp_path)
    first = min(tmp_path.rglob("*.jpg"))
    copy = tmp_path / "copies" / first.name
    copy.parent.mkdir()
    copy.write_bytes(first.read_bytes())
    assert len(load(tmp_path).train) + len(load(tmp_path).test) == 42
    copy.write_bytes(first.read_bytes() + b"x")
    with pytest.raises(DataError, match="differs from"):
        load(tmp_path)


def test_the_table_of_dataverse_has_tabs(tmp_path: Path) -> None:
    write_ham10000(tmp_path)
    metadata = tmp_path / "HAM10000_metadata.csv"
    expected = load(tmp_path)
    text = metadata.read_text().replace(",", "\t").replace("female", '"female"')
    metadata.with_suffix(".tab").write_text(text)
    metadata.unlink()
    np.testing.assert_array_equal(load(tmp_path).test.images, expected.test.images)


HEADER = "lesion_id,image_id,dx"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: no column lesion_id, image_id, dx"),
        ("lesion_id,dx\n", "line 1: no column image_id"),
        (f"{HEADER}\n", "line 2: no row after the header"),
        (f"{HEADER}\nH1,I1,nv\nH2,I2,wart\n", "line 3: dx 'wart' is not one of akiec, bcc"),
        (f"{HEADER}\nH1,I1,nv\n\nH2,I1,nv\n", "line 4: I1 was in line 2 already"),
        (f"{HEADER}\nH1,I1\n", "line 2: 2 fields, the header has 3"),
        (f"{HEADER}\nH1,,nv\n", "line 2: lesion_id or image_id is empty"),
        (f'{HEADER}\nH1,I1,nv\nH2,"I2"x,nv\n', "line 3: "),
        (f'{HEADER}\nH1,I1,nv\nH2,"I2,nv\n', "line 3: unexpected end of data"),
    ],
)
def test_broken_metadata_is_named_with_line_and_reason(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "HAM10000_metadata.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path)
    assert str(caught.value).startswith(f"{path}: ")


def test_metadata_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "HAM10000_metadata.csv"
    path.write_bytes(b"lesion_id\xff")
    with pytest.raises(DataError, match="at byte 9: not UTF-8 text"):
        load(tmp_path)
    with path.open("wb") as stream:
        stream.truncate(65 << 20)
    with pytest.raises(DataError, match="more than 64 MiB"):
        load(tmp_path)


def test_broken_images_are_all_named(tmp_path: Path) -> None:
    write_ham10000(tmp_path)
    paths = sorted(tmp_path.rglob("*.jpg"))
    whole = paths[0].read_bytes()
    paths[0].write_bytes(whole[: len(whole) // 2])
    paths[1].write_bytes(b"")
    Image.new("RGB", (5, 5)).save(paths[2], format="PNG")
    with pytest.raises(DataError, match="3 broken JPEG files: ") as caught:
        load(tmp_path)
    for path in paths[:3]:
        assert str(path) in str(caught.value)
    assert "not a JPEG file" in str(caught.value)
    for path in paths:
        path.write_bytes(b"x")
    with pytest.raises(DataError, match=r"42 broken JPEG files: .*; and 37 more$"):
        load(tmp_path)


@pytest.mark.parametrize("side", [65_500, 10_000, 9_000])
def test_huge_claims_are_refused_before_decoding(tmp_path: Path, side: int) -> None:
    """A small file whose header claims gigabytes: above Pillow's own limits, and below them."""
    path = tmp_path / "bomb.jpg"
    Image.new("RGB", (16, 16)).save(path)
    content = bytearray(path.read_bytes())
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = side.to_bytes(2, "big") * 2
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"bomb\.jpg: .*more than 50,000,000"):
        jpeg.read_images([path], 64)


def test_where_to_get_it(tmp_path: Path) -> None:
    for folder in (None, tmp_path / "none", tmp_path):
        with pytest.raises(DataError, match=r"Harvard Dataverse .*DBW86T"):
            load_dataset("ham10000", folder, 1)
