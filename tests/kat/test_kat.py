"""Known answers: what each released format version wrote means the same to this version.

Beside ``tests/vectors``, which holds more parameter sets as JSON, these are the objects as they
are, those of a deployment among them, frozen by their SHA-256.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.kat.objects import FORMATS, PASSPHRASE, Format, facts, history_facts

import quancrypt_native as qn
from quancrypt_native import wire

ROOT = FORMATS.parents[1]
FROZEN = {
    "tests/kat/format1/expected.json": (
        "2757b6c4f3c928aaa43c166085b85937c11771765006c0269bbc9666fdd7f7ae"
    ),
    "tests/vectors/format1-public.json": (
        "10c7f09330472e51f79f33bae6b8ca77244564de5843d5eb3a7481da3b9e9377"
    ),
    "tests/vectors/format1-slots.json": (
        "58e6534f895239b7244ac653a2c41e2e53f53492eaa82567440c373789d9d2e7"
    ),
    "tests/vectors/format1-symmetric.json": (
        "443d8fa02d49ccca5446fe6e3df26e9cc0e7843c3266a64ce5bfa370de6cdd10"
    ),
    "tests/vectors/format1-two-primes.json": (
        "ee24b752dfa16ecc0959aec7464bc6ea88383622b2130bbf43b533efec3fe511"
    ),
}
"""SHA-256 of what must never change. A later format adds lines."""

FOLDERS = sorted(path for path in FORMATS.iterdir() if path.name.startswith("format"))


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda path: path.name)
def files(request: pytest.FixtureRequest) -> Format:
    return Format(request.param)


@pytest.mark.parametrize("name", FROZEN)
def test_nothing_frozen_has_changed(name: str) -> None:
    assert hashlib.sha256((ROOT / name).read_bytes()).hexdigest() == FROZEN[name]


def test_every_format_version_has_its_files() -> None:
    assert [path.name for path in FOLDERS] == [f"format{n}" for n in range(1, wire.VERSION + 1)]


def test_the_files_are_those_that_were_written(files: Format) -> None:
    expected = files.expected["sha256"]
    present = {path.name for path in files.folder.iterdir()} - {"expected.json"}
    assert present == set(expected)
    for name, digest in expected.items():
        assert hashlib.sha256(files.data(name)).hexdigest() == digest
    assert sum(path.stat().st_size for path in files.folder.iterdir()) < 100_000


def close(found: Any, expected: Any, slots: bool) -> None:
    """Equal; the sums of slots up to the last digits of a floating-point transform."""
    if slots:
        for name, values in expected["sums"].items():
            np.testing.assert_allclose(found["sums"].pop(name), values, rtol=0, atol=1e-6)
        expected["sums"] = {}
    assert found == expected


def test_every_file_means_what_was_recorded(files: Format) -> None:
    found, expected = json.loads(json.dumps(facts(files))), files.expected["facts"]
    assert found.keys() == expected.keys()
    for name in expected:
        close(found[name], expected[name], slots=name in ("update-slots.bin", "sum-slots.bin"))


def test_what_is_read_is_written_again_bit_for_bit(files: Format) -> None:
    params = files.params
    for data, again in (
        (files.data("parameters.bin"), params.to_bytes()),
        (files.data("parameters-slots.bin"), files.slots.to_bytes()),
        (
            files.data("public-key.bin"),
            qn.PublicKey.from_bytes(files.data("public-key.bin"), params).to_bytes(),
        ),
        (files.data("sum.bin"), files.update("sum.bin").to_bytes()),
    ):
        assert data == again


def test_sums_come_out_bit_for_bit(files: Format) -> None:
    """So that servers of two versions agree on the digest of a sum."""
    seeded, by_public = files.update("update-seeded.bin"), files.update("update-public-key.bin")
    total = qn.aggregate([seeded, by_public], weights=[2, 1])
    assert total.to_bytes() == files.data("sum.bin")
    assert qn.aggregate([total, seeded]).to_bytes() == files.data("sum-deep.bin")
    slots = qn.aggregate([files.update("update-slots.bin")], weights=[3])
    assert slots.to_bytes() == files.data("sum-slots.bin")


def test_new_keys_are_not_the_old_ones(files: Format) -> None:
    """The files are not merely ignored: another key or passphrase does not open them."""
    other = qn.keygen(files.params)
    with pytest.raises(qn.KeyMismatchError):
        qn.Decryptor(files.params, other.secret).decrypt_integers(files.update("sum.bin"))
    with pytest.raises(qn.PassphraseError):
        qn.SecretKey.from_bytes(
            files.data("secret-key.bin"), files.params, passphrase=PASSPHRASE + b"!"
        )


def test_one_changed_byte_is_noticed(files: Format) -> None:
    def changed(name: str) -> bytes:
        data = bytearray(files.data(name))
        data[len(data) // 2] ^= 1
        return bytes(data)

    for name in ("parameters.bin", "public-key.bin", "sum.bin"):
        read = {
            "parameters.bin": qn.Parameters.from_bytes,
            "public-key.bin": lambda data: qn.PublicKey.from_bytes(data, files.params),
            "sum.bin": lambda data: qn.EncryptedUpdate.from_bytes(data, files.params),
        }[name]
        with pytest.raises(qn.WireFormatError):
            read(changed(name))
    from quancrypt_fl.flower.history_files import HistoryError

    with pytest.raises(HistoryError):
        history_facts(changed)


def test_the_folder_is_in_the_tree() -> None:
    assert (Path(__file__).parent / f"format{wire.VERSION}" / "expected.json").is_file()
