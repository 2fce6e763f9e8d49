"""Loaders of CIFAR-10 and CIFAR-100: files, archives, and what can be wrong with them."""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from tests.fl.conftest import SHARED_DATA
from tests.fl.data_files import cifar10_files, cifar100_files, cifar_records, tar_gz, write_files

from quancrypt_fl.data import archive, load_dataset
from quancrypt_fl.errors import DataError

MEAN_STD = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
}
FOLDER = {"cifar10": "cifar-10-batches-bin", "cifar100": "cifar-100-binary"}
ARCHIVE = {"cifar10": "cifar-10-binary.tar.gz", "cifar100": "cifar-100-binary.tar.gz"}


def files(name: str) -> dict[str, bytes]:
    return cifar10_files() if name == "cifar10" else cifar100_files()


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("place", ["", "folder", "name", "both"])
def test_binary_files_load(tmp_path: Path, name: str, place: str) -> None:
    inner = {"": "", "folder": FOLDER[name], "name": name, "both": f"{name}/{FOLDER[name]}"}[place]
    content = files(name)
    write_files(tmp_path / inner, content)
    dataset = load_dataset(name, tmp_path, seed=1)
    assert dataset.image_shape == (3, 32, 32)
    assert dataset.classes == {"cifar10": 10, "cifar100": 100}[name]
    train = b"".join(data for file, data in content.items() if not file.startswith("test"))
    label_bytes = 1 if name == "cifar10" else 2
    records = np.frombuffer(train, np.uint8).reshape(-1, 3072 + label_bytes)
    np.testing.assert_array_equal(dataset.train.labels, records[:, label_bytes - 1])
    pixels = records[:, label_bytes:].reshape(-1, 3, 32, 32) / 255
    mean, std = (np.reshape(values, (1, 3, 1, 1)) for values in MEAN_STD[name])
    np.testing.assert_allclose(dataset.train.images, (pixels - mean) / std, atol=1e-5)
    assert dataset.train.images.dtype == np.float32


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("inner", ["", "name"])
def test_the_original_archive_gives_the_same(tmp_path: Path, name: str, inner: str) -> None:
    write_files(tmp_path / "files", files(name))
    packed = {f"{FOLDER[name]}/{file}": data for file, data in files(name).items()}
    packed[f"{FOLDER[name]}/readme.html"] = b"<html>"
    folder = tmp_path / "archive" / (name if inner else "")
    write_files(folder, {ARCHIVE[name]: tar_gz(packed)})
    loose = load_dataset(name, tmp_path / "files", seed=1)
    archived = load_dataset(name, tmp_path / "archive", seed=1)
    np.testing.assert_array_equal(loose.train.images, archived.train.images)
    np.testing.assert_array_equal(loose.test.labels, archived.test.labels)
    assert [path.name for path in folder.iterdir()] == [ARCHIVE[name]]


def test_names_of_classes() -> None:
    from quancrypt_fl.data.cifar_names import CIFAR10, CIFAR100

    assert (len(set(CIFAR10)), CIFAR10[3]) == (10, "cat")
    assert (len(set(CIFAR100)), CIFAR100[0], CIFAR100[99]) == (100, "apple", "worm")
    assert list(CIFAR100) == sorted(CIFAR100)


def test_batches_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """Any batches will do; 10 comes after 2."""
    for number in (10, 2):
        (tmp_path / f"data_batch_{number}.bin").write_bytes(bytes([number % 10]) + bytes(3072))
    (tmp_path / "test_batch.bin").write_bytes(cifar_records(1))
    assert load_dataset("cifar10", tmp_path, seed=1).train.labels.tolist() == [2, 0]


def test_the_shared_cifar10_loads() -> None:
    if not (SHARED_DATA / FOLDER["cifar10"]).is_dir():
        pytest.skip(f"CIFAR-10 is not in {SHARED_DATA}")
    dataset = load_dataset("cifar10", SHARED_DATA, seed=1)
    assert (len(dataset.train), len(dataset.test)) == (20_000, 5_000)
    assert np.abs(dataset.test.images.mean(axis=(0, 2, 3))).max() < 0.05
    assert np.bincount(dataset.train.labels, minlength=10).min() > 1900


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("cifar10", "data_batch_2.bin", b"", "at byte 0: the file is empty"),
        (
            "cifar10",
            "test_batch.bin",
            cifar_records(2)[:-1],
            "at byte 3073: truncated record: 3072 bytes of 3073; the length 6145 is no multiple",
        ),
        (
            "cifar10",
            "data_batch_1.bin",
            cifar_records(2) + b"\x0a" + bytes(3072),
            r"at byte 6146: label 10 is not in 0\.\.9",
        ),
        (
            "cifar100",
            "train.bin",
            cifar_records(1, classes=100) + b"\x14\x00" + bytes(3072),
            r"at byte 3074: label 20 is not in 0\.\.19",
        ),
        (
            "cifar100",
            "test.bin",
            cifar_records(1, classes=100) + b"\x13\x64" + bytes(3072),
            r"at byte 3075: label 100 is not in 0\.\.99",
        ),
        ("cifar100", "test.bin", cifar_records(3), "no multiple of 3074"),
    ],
)
@pytest.mark.parametrize("archived", [False, True])
def test_broken_files_are_named_with_offset_and_reason(
    tmp_path: Path, name: str, file: str, content: bytes, message: str, archived: bool
) -> None:
    broken = {**files(name), file: content}
    if archived:
        write_files(tmp_path, {ARCHIVE[name]: tar_gz(broken)})
    else:
        write_files(tmp_path, broken)
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(name, tmp_path, seed=1)
    place = tmp_path / ARCHIVE[name] if archived else tmp_path
    assert str(caught.value).startswith(str(place / file))


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_absent_files(tmp_path: Path, name: str) -> None:
    hint = rf"quancrypt data --dataset {name} --data-dir .* --download"
    with pytest.raises(DataError, match=f"needs --data-dir.*{hint}"):
        load_dataset(name, None, seed=1)
    with pytest.raises(DataError, match=rf"has neither .* nor {ARCHIVE[name]}.*{hint}"):
        load_dataset(name, tmp_path, seed=1)
    train, *_, test = files(name)
    write_files(tmp_path, {train: files(name)[train]})
    with pytest.raises(DataError, match=f"has no {test}"):
        load_dataset(name, tmp_path, seed=1)
    (tmp_path / train).rename(tmp_path / test)
    with pytest.raises(DataError, match=r"has no (data_batch_|train.bin)"):
        load_dataset(name, tmp_path, seed=1)


def test_the_python_version_is_not_opened_but_named(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-python.tar.gz").touch()
    with pytest.raises(DataError, match="is the Python version, this needs the binary one"):
        load_dataset("cifar10", tmp_path, seed=1)


def test_unreadable_files(tmp_path: Path) -> None:
    write_files(tmp_path, {"test_batch.bin": cifar_records(1)})
    (tmp_path / "data_batch_1.bin").mkdir()
    with pytest.raises(DataError, match=r"data_batch_1\.bin: cannot be read: Is a directory"):
        load_dataset("cifar10", tmp_path, seed=1)


# --- archives ---


def wanted(name: str) -> bool:
    return name.endswith(".bin")


def read(tmp_path: Path, content: bytes) -> dict[str, bytes]:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(content)
    return archive.read_members(path, wanted)


def test_nothing_of_an_archive_reaches_the_disk(tmp_path: Path) -> None:
    """Absolute names, names with "..", links and devices."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as packed:
        for name in ("../../evil.bin", f"{tmp_path}/absolute.bin"):
            member = tarfile.TarInfo(name)
            member.size = 3
            packed.addfile(member, io.BytesIO(b"abc"))
        for kind, name in (
            (tarfile.SYMTYPE, "link.bin"),
            (tarfile.LNKTYPE, "hard.bin"),
            (tarfile.CHRTYPE, "device.bin"),
            (tarfile.FIFOTYPE, "pipe.bin"),
            (tarfile.DIRTYPE, "folder.bin"),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            packed.addfile(member)
    found = read(tmp_path, buffer.getvalue())
    assert found == {"evil.bin": b"abc", "absolute.bin": b"abc"}
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar.gz"]


@pytest.mark.parametrize("cut", [0, 1, 20, 3000, -1, -9])
def test_a_truncated_archive_is_named(tmp_path: Path, cut: int) -> None:
    with pytest.raises(DataError, match=r"a\.tar\.gz: at byte \d+: damaged archive"):
        read(tmp_path, tar_gz({"x.bin": cifar_records(3)})[:cut])


@pytest.mark.parametrize("cut", [40_000, 90_000, -9])
def test_a_truncated_archive_is_named_with_the_byte_reached(tmp_path: Path, cut: int) -> None:
    content = tar_gz({"x.bin": cifar_records(50)})[:cut]
    reached = len(zlib.decompressobj(wbits=31).decompress(content))
    with pytest.raises(DataError, match=f"at byte {reached}: damaged archive"):
        read(tmp_path, content)


def test_a_flipped_byte_is_found(tmp_path: Path) -> None:
    """Random pixels are stored as they are, so only gzip's checksum sees it."""
    content = bytearray(tar_gz({"x.bin": cifar_records(3)}))
    content[len(content) // 2] ^= 1
    with pytest.raises(DataError, match="damaged archive"):
        read(tmp_path, bytes(content))


@pytest.mark.parametrize(
    "content",
    [b"", b"no archive", gzip.compress(b"no archive" * 100)],
    ids=["nothing", "text", "gzip"],  # gzip writes the time: the bytes are no name of a test
)
def test_what_is_no_archive_is_named(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError, match=r"a\.tar\.gz: at byte \d+: damaged archive"):
        read(tmp_path, content)


def test_a_member_shorter_than_its_header_says(tmp_path: Path) -> None:
    inner = gzip.decompress(tar_gz({"x.bin": bytes(5000)}))
    with pytest.raises(DataError, match=r"damaged archive|truncated: x.bin"):
        read(tmp_path, gzip.compress(inner[:3000]))


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_MAX_BYTES", 1 << 20)
    for name in ("x.bin", "other"):  # wanted or passed over
        with pytest.raises(DataError, match="unpacks to more than 1 MiB"):
            read(tmp_path, tar_gz({name: bytes(2 << 20)}))
    monkeypatch.setattr(archive, "_MAX_MEMBERS", 3)
    with pytest.raises(DataError, match="more than 3 members"):
        read(tmp_path, tar_gz({str(number): b"" for number in range(4)}))


def test_a_name_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds x.bin twice"):
        read(tmp_path, tar_gz({"a/x.bin": b"1", "b/x.bin": b"2"}))
