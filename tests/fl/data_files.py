"""Tiny data sets in the form of each real one. No two images are alike, so leaks show."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

DIAGNOSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, kind, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def distinct_images(count: int, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape)).astype(np.uint8)


def write_mnist(folder: Path, *, train: int = 6, test: int = 4, compress: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (prefix, count) in enumerate((("train", train), ("t10k", test))):
        images = distinct_images(count, (28, 28), seed)
        for stem, array in (("images-idx3", images), ("labels-idx1", np.arange(count) % 10)):
            content = idx(array)
            path = folder / f"{prefix}-{stem}-ubyte"
            if compress:
                path.with_name(path.name + ".gz").write_bytes(gzip.compress(content))
            else:
                path.write_bytes(content)


def cifar_records(count: int, *, classes: int = 10, seed: int = 0) -> bytes:
    """Labels count up from 0; CIFAR-100 (``classes=100``) has a coarse label in front."""
    fine = (np.arange(count) % classes).astype(np.uint8)
    label_columns = [fine] if classes == 10 else [fine // 5, fine]
    pixels = distinct_images(count, (3072,), seed)
    return np.column_stack([*label_columns, pixels]).astype(np.uint8).tobytes()


def cifar10_files(train: int = 10, test: int = 10) -> dict[str, bytes]:
    return {
        "data_batch_1.bin": cifar_records(train - train // 2, seed=1),
        "data_batch_2.bin": cifar_records(train // 2, seed=2),
        "test_batch.bin": cifar_records(test, seed=3),
    }


def cifar100_files(train: int = 100, test: int = 100) -> dict[str, bytes]:
    return {
        "train.bin": cifar_records(train, classes=100, seed=1),
        "test.bin": cifar_records(test, classes=100, seed=2),
    }


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def tar_gz(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def write_ham10000(folder: Path, *, lesions: int = 21, images_per_lesion: int = 2) -> None:
    """Lesion n has diagnosis n % 7; its images are in two subfolders and show its number."""
    from PIL import Image

    rows = ["lesion_id,image_id,dx,dx_type,age,sex,localization"]
    for image in range(lesions * images_per_lesion):
        lesion = image % lesions
        name = f"ISIC_{image:07d}"
        rows.append(f"HAM_{lesion:07d},{name},{DIAGNOSES[lesion % 7]},histo,50,female,back")
        inner = folder / f"HAM10000_images_part_{1 + image % 2}"
        inner.mkdir(parents=True, exist_ok=True)
        level = round(255 * lesion / max(lesions - 1, 1))
        colour = (level, 255 - level, 40 * (image // lesions))
        Image.new("RGB", (60, 45), colour).save(inner / f"{name}.jpg", quality=95)
    (folder / "HAM10000_metadata.csv").write_text("\n".join(rows) + "\n")
