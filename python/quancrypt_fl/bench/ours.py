"""The public API of ``quancrypt_native`` as a subject: packed with either key, and slots."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

import quancrypt_native as qn
from quancrypt_fl.bench.subject import Subject, random_values
from quancrypt_fl.bench.timing import Thunk

__all__ = ["AGGREGATED", "CLIP", "Ours"]

CLIP = 0.05
AGGREGATED = 10  # uploads that "aggregate" parses and sums
_SLOT_ERROR = 1e-4


class Ours(Subject):
    """Encryption, aggregation and decryption under one parameter set.

    Parameters
    ----------
    key
        Short name.
    params
        Packed or slots.
    values
        Values of an update.
    public
        Encrypt with the public key instead of the secret one.
    """

    def __init__(
        self, key: str, params: qn.Parameters, values: int, *, public: bool = False
    ) -> None:
        self.key = key
        self.label = "QuanCrypt"
        self.values = values
        self.params = params
        keys = qn.keygen(params)
        self._encryptor = qn.Encryptor(params, keys.public if public else keys.secret)
        self._decryptor = qn.Decryptor(params, keys.secret)
        self._x: NDArray[np.float32] = np.zeros(values, np.float32)

    @property
    def operations(self) -> Mapping[str, Callable[[], Thunk]]:
        """Preparations by operation."""
        return {
            "encrypt": self._encrypt,
            "parse": self._parse,
            "add": self._add,
            "parse_add": self._parse_add,
            "aggregate": self._aggregate,
            "decrypt": self._decrypt,
        }

    def refresh(self, rng: np.random.Generator) -> None:
        """New content, new alignment."""
        self._x = random_values(rng, self.values, CLIP)

    def check(self, rng: np.random.Generator) -> None:
        """Packed sums must be exact, slots close."""
        self.refresh(rng)
        first, x = self.upload(), self._x
        self.refresh(rng)
        second, y = self.upload(), self._x
        total = qn.aggregate([self._load(first), self._load(second)])
        if self.params.encoding == "packed":
            bits = self.params.bits
            integers = qn.quantize(x, CLIP, bits).astype(np.int64) + qn.quantize(y, CLIP, bits)
            right = np.array_equal(np.asarray(self._decryptor.decrypt_integers(total)), integers)
        else:
            floats = np.clip(x, -CLIP, CLIP) + np.clip(y, -CLIP, CLIP)
            total_floats = np.asarray(self._decryptor.decrypt_sum(total))
            right = np.allclose(total_floats, floats, atol=_SLOT_ERROR)
        self.require(right, "a decrypted sum")
        self.upload_bytes = len(first)

    def upload(self) -> bytes:
        """The present input, encrypted and serialized."""
        return self._encryptor.encrypt(self._x, clip=CLIP).to_bytes()

    def _load(self, data: bytes) -> qn.EncryptedUpdate:
        return qn.EncryptedUpdate.from_bytes(data, self.params)

    def _encrypt(self) -> Thunk:
        return self.upload

    def _parse(self) -> Thunk:
        data = self.upload()
        return lambda: self._load(data)

    def _started(self) -> qn.Aggregator:
        aggregator = qn.Aggregator(self.params)
        aggregator.add(self._load(self.upload()))
        return aggregator

    def _add(self) -> Thunk:
        aggregator, update = self._started(), self._load(self.upload())
        return lambda: aggregator.add(update)

    def _parse_add(self) -> Thunk:
        aggregator, data = self._started(), self.upload()
        return lambda: aggregator.add(data)

    def _aggregate(self) -> Thunk:
        uploads = [self.upload() for _ in range(AGGREGATED)]

        def total() -> qn.EncryptedUpdate:
            aggregator = qn.Aggregator(self.params)
            for data in uploads:
                aggregator.add(data)
            return aggregator.result()

        return total

    def _decrypt(self) -> Thunk:
        total = qn.aggregate([self._load(self.upload()) for _ in range(2)])
        decrypt: Callable[[qn.EncryptedUpdate], Any] = self._decryptor.decrypt_sum
        return lambda: decrypt(total)
