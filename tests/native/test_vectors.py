"""Known answers: what an earlier version wrote is read and decrypted to the recorded values.

The files and the script that made them stand in ``tests/vectors``.
"""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.native import oracle, standard

import quancrypt_native as qn

FOLDER = Path(__file__).resolve().parents[1] / "vectors"
FILES = sorted(FOLDER.glob("*.json"))
SLOT_ULP = 1e-6
"""Slots pass a floating-point transform, whose last digits may differ between machines."""


class Vector:
    """One file, its parameters and keys read."""

    def __init__(self, path: Path) -> None:
        self.content: dict[str, Any] = json.loads(path.read_text())
        self.params = qn.Parameters.from_bytes(self.bytes("parameters"))
        self.public = qn.PublicKey.from_bytes(self.bytes("public_key"), self.params)
        self.secret = qn.SecretKey.from_bytes(
            self.bytes("secret_key"), self.params, passphrase=self.content["passphrase"].encode()
        )

    def bytes(self, field: str) -> bytes:
        return base64.b64decode(self.content[field])

    @property
    def updates(self) -> dict[str, Any]:
        found: dict[str, Any] = self.content["updates"]
        return found

    def update(self, name: str) -> qn.EncryptedUpdate:
        data = base64.b64decode(self.updates[name]["data"])
        return qn.EncryptedUpdate.from_bytes(data, self.params)


@pytest.fixture(scope="module", params=FILES, ids=lambda path: path.stem)
def vector(request: pytest.FixtureRequest) -> Vector:
    return Vector(request.param)


def test_all_files_are_here() -> None:
    assert [path.name for path in FILES] == [
        f"format1-{name}.json" for name in ("public", "slots", "symmetric", "two-primes")
    ]
    assert max(path.stat().st_size for path in FILES) < 100_000


def test_parameters_and_keys(vector: Vector) -> None:
    assert vector.content["format"] == 1
    assert vector.params.fingerprint == vector.content["fingerprint"]
    assert vector.public.key_id == vector.secret.key_id == vector.content["key_id"]
    assert vector.params.to_bytes() == vector.bytes("parameters")
    assert vector.public.to_bytes() == vector.bytes("public_key")
    standard.check(vector.params)


def values(result: Any) -> dict[str, np.ndarray]:
    return result if isinstance(result, dict) else {"": result}


def test_updates_decrypt_to_what_was_recorded(vector: Vector) -> None:
    decryptor = qn.Decryptor(vector.params, vector.secret)
    packed = vector.params.encoding == "packed"
    for name, expected in vector.updates.items():
        update = vector.update(name)
        assert (update.weight, update.seeded) == (expected["weight"], expected["seeded"])
        assert {n: list(shape) for n, shape in update.shapes.items()} == expected["shapes"]
        assert {t.name: t.clip for t in update.layout.tensors} == expected["clips"]
        assert update.to_bytes() == base64.b64decode(expected["data"])
        result = (decryptor.decrypt_integers if packed else decryptor.decrypt_sum)(update)
        assert isinstance(result, np.ndarray) == expected["single"]
        for tensor, array in values(result).items():
            sums = np.array(expected["sums"][tensor]).reshape(expected["shapes"][tensor])
            np.testing.assert_allclose(array, sums, rtol=0, atol=0 if packed else SLOT_ULP)


def test_means_of_recorded_updates(vector: Vector) -> None:
    decryptor = qn.Decryptor(vector.params, vector.secret)
    expected = vector.updates["sum"]
    means = values(decryptor.decrypt_mean(vector.update("sum")))
    for name, clip in expected["clips"].items():
        step = clip / vector.params.q_max if vector.params.encoding == "packed" else 1.0
        wanted = np.array(expected["sums"][name]) * step / expected["weight"]
        np.testing.assert_allclose(means[name].ravel(), wanted, rtol=1e-6, atol=SLOT_ULP)


def test_sums_come_out_bit_for_bit(vector: Vector) -> None:
    """The expansion of a seeded ciphertext is part of the format."""
    named = vector.update("named tensors")
    assert named.seeded
    for total in (qn.aggregate([named, named], [1, 2]), qn.aggregate([named], [3])):
        assert total.to_bytes() == base64.b64decode(vector.updates["sum"]["data"])


def test_the_oracle_reads_them_too(vector: Vector) -> None:
    """A second implementation agrees: the files are right, not only what wrote them."""
    if vector.params.encoding == "slots":
        stream = qn.seal.export_ciphertexts(vector.update("sum"))[0]
        pair = oracle.ciphertext(vector.update("sum"))
        words = np.frombuffer(stream, "<u8", offset=len(stream) - 2 * 8 * 1024).astype(object)
        np.testing.assert_array_equal(words.reshape(2, 1, 1024), [pair.c0, pair.c1])
        return
    for name, expected in vector.updates.items():
        update = vector.update(name)
        fields = oracle.decrypt(update, vector.secret).sums[: update.values]
        sums = fields - update.weight * vector.params.q_max
        assert sums.tolist() == [v for tensor in expected["sums"].values() for v in tensor]


def test_new_summands_join_old_sums(vector: Vector) -> None:
    """What this version encrypts adds up with what an earlier one encrypted."""
    old = vector.update("sum")
    layout = {t.name: np.zeros(t.shape) for t in old.layout.tensors}
    clips = {t.name: t.clip for t in old.layout.tensors}
    encryptor = qn.Encryptor(vector.params, vector.secret)
    total = qn.aggregate([old, encryptor.encrypt(layout, clip=clips)])
    result = values(qn.Decryptor(vector.params, vector.secret).decrypt_sum(total))
    before = values(qn.Decryptor(vector.params, vector.secret).decrypt_sum(old))
    slots = vector.params.encoding == "slots"
    for name, array in result.items():
        np.testing.assert_allclose(array, before[name], rtol=0, atol=0.03 if slots else 0)


@pytest.mark.parametrize(
    "damage",
    [lambda data: data[:-1], lambda data: data + b"\0", lambda data: data[:8] + b"\2" + data[9:]],
    ids=["truncated", "appended", "version 2"],
)
def test_damaged_files_are_refused(vector: Vector, damage: Callable[[bytes], bytes]) -> None:
    for read in (
        lambda: qn.Parameters.from_bytes(damage(vector.bytes("parameters"))),
        lambda: qn.PublicKey.from_bytes(damage(vector.bytes("public_key")), vector.params),
        lambda: qn.SecretKey.from_bytes(
            damage(vector.bytes("secret_key")), vector.params, passphrase=b"known answer"
        ),
    ):
        with pytest.raises(qn.WireFormatError):
            read()
