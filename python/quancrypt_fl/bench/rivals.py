"""What users have today: Microsoft SEAL (linked in), TenSEAL and Paillier (where installed)."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

import quancrypt_native as qn
from quancrypt_fl.bench.ours import AGGREGATED, CLIP
from quancrypt_fl.bench.subject import Subject, random_values
from quancrypt_fl.bench.timing import Thunk
from quancrypt_native import _core

__all__ = ["Missing", "Paillier", "Seal", "TenSeal", "missing_rivals"]

_INSTALL = "pip install 'quancrypt-native[baselines]'"


@dataclass(frozen=True, slots=True)
class Missing:
    """A rival that cannot be measured here, and what to do about it."""

    rival: str
    package: str
    install: str = _INSTALL

    def __str__(self) -> str:
        """One line for people."""
        return f"{self.rival} is left out: {self.package} is not installed ({self.install})"


def missing_rivals() -> list[Missing]:
    """Rivals whose packages cannot be imported."""
    wanted = (("tenseal", "tenseal"), ("paillier", "phe"), ("paillier", "gmpy2"))
    missing: dict[str, Missing] = {}
    for rival, package in wanted:
        try:
            importlib.import_module(package)
        except ImportError:
            missing.setdefault(rival, Missing(rival, package))
    return list(missing.values())


class Seal(Subject):
    """Microsoft SEAL's own operations under the parameters of ``params``, by ``_core.SealBench``.

    Its plaintexts are made once and keep their content: SEAL's times do not depend on it, and its
    answers are checked when the hook is made. Quantizing and packing are left out, in its favour.
    """

    def __init__(self, key: str, params: qn.Parameters, ciphertexts: int) -> None:
        self.key = key
        self.label = f"SEAL {qn.seal.version()}"
        self.values = ciphertexts * params.values_per_ciphertext
        self._ciphertexts = ciphertexts
        self._bench = _core.SealBench(params._core)
        self.upload_bytes = ciphertexts * self._bench.bytes("encrypt_symmetric_save")

    @property
    def operations(self) -> Mapping[str, Callable[[], Thunk]]:
        """Everything that the hook offers on ciphertexts."""
        whole = [name for name in self._bench.operations() if "crypt" in name or "add" in name]
        return {name: self._prepared(name) for name in whole}

    def _prepared(self, name: str) -> Callable[[], Thunk]:
        return lambda: lambda: self._bench.run(name, self._ciphertexts)

    def refresh(self, rng: np.random.Generator) -> None:
        """Nothing to draw."""

    def check(self, rng: np.random.Generator) -> None:
        """Done by the hook's constructor."""


class TenSeal(Subject):
    """TenSEAL's CKKS vectors as in the paper: one slot per value, public-key encryption.

    N = 16384, primes of 60-40-40-40-60 bits, scale 2^40; one vector fills one ciphertext, and lists
    of Python floats, which it takes, are made before the clock starts.
    """

    def __init__(self, ciphertexts: int, threads: int) -> None:
        import tenseal

        self.key = "tenseal"
        self.label = f"TenSEAL {tenseal.__version__}"
        self._tenseal: Any = tenseal
        self._context: Any = tenseal.context(
            tenseal.SCHEME_TYPE.CKKS,
            16384,
            coeff_mod_bit_sizes=[60, 40, 40, 40, 60],
            n_threads=threads,
        )
        self._context.global_scale = 2**40
        self._ciphertexts = ciphertexts
        self._slots = 8192
        self.values = ciphertexts * self._slots
        self._lists: list[list[float]] = []

    @property
    def operations(self) -> Mapping[str, Callable[[], Thunk]]:
        """Preparations by operation."""
        return {
            "encrypt": self._encrypt,
            "encrypt_alone": self._encrypt_alone,
            "parse": self._parse,
            "add": self._add,
            "parse_add": self._parse_add,
            "aggregate": self._aggregate,
            "decrypt": self._decrypt,
        }

    def refresh(self, rng: np.random.Generator) -> None:
        """New content."""
        self._lists = random_values(rng, self.values, CLIP).reshape(-1, self._slots).tolist()

    def check(self, rng: np.random.Generator) -> None:
        """Slots are approximate: a sum within 1e-5."""
        self.refresh(rng)
        first, x = self._upload(), np.array(self._lists)
        self.refresh(rng)
        second, y = self._upload(), np.array(self._lists)
        sums = [
            (self._load(a) + self._load(b)).decrypt() for a, b in zip(first, second, strict=True)
        ]
        self.require(np.allclose(sums, x + y, atol=1e-5), "a decrypted sum")
        self.upload_bytes = sum(len(data) for data in first)

    def _vectors(self) -> list[Any]:
        return [self._tenseal.ckks_vector(self._context, values) for values in self._lists]

    def _upload(self) -> list[bytes]:
        return [vector.serialize() for vector in self._vectors()]

    def _load(self, data: bytes) -> Any:
        return self._tenseal.ckks_vector_from(self._context, data)

    def _encrypt(self) -> Thunk:
        return self._upload

    def _encrypt_alone(self) -> Thunk:
        return self._vectors

    def _parse(self) -> Thunk:
        uploads = self._upload()
        return lambda: [self._load(data) for data in uploads]

    def _add(self) -> Thunk:
        sums, vectors = self._vectors(), self._vectors()
        return lambda: [total.add_(vector) for total, vector in zip(sums, vectors, strict=True)]

    def _parse_add(self) -> Thunk:
        sums, uploads = self._vectors(), self._upload()
        return lambda: [
            total.add_(self._load(data)) for total, data in zip(sums, uploads, strict=True)
        ]

    def _aggregate(self) -> Thunk:
        updates = [self._upload() for _ in range(AGGREGATED)]

        def total() -> list[Any]:
            return [
                reduce(lambda a, b: a.add_(b), map(self._load, parts))
                for parts in zip(*updates, strict=True)
            ]

        return total

    def _decrypt(self) -> Thunk:
        sums = [a + b for a, b in zip(self._vectors(), self._vectors(), strict=True)]
        return lambda: [total.decrypt() for total in sums]


class Paillier(Subject):
    """Paillier with a 2048-bit modulus by phe over gmpy2, on quantized integers.

    ``lanes = 1`` puts one value into a ciphertext, as is usual; more lanes of ``field_bits`` bits
    fill the modulus in the manner of BatchCrypt, offset binary as in our packing.
    """

    def __init__(self, ciphertexts: int, *, packed: bool, bits: int, field_bits: int) -> None:
        from phe import paillier

        self.key = "paillier_packed" if packed else "paillier"
        self.label = "Paillier 2048, packed" if packed else "Paillier 2048"
        self._paillier: Any = paillier
        self._public, self._private = paillier.generate_paillier_keypair(n_length=2048)
        self._bits = bits
        self._field_bits = field_bits
        self._lanes = (self._public.max_int.bit_length() - 1) // field_bits if packed else 1
        self._q_max = 2 ** (bits - 1) - 1
        self._width = (self._public.nsquare.bit_length() + 7) // 8
        self.values = ciphertexts * self._lanes
        self.upload_bytes = ciphertexts * self._width
        self._fields: NDArray[np.int64] = np.zeros((ciphertexts, self._lanes), np.int64)

    @property
    def operations(self) -> Mapping[str, Callable[[], Thunk]]:
        """Preparations by operation."""
        return {
            "encrypt": self._encrypt,
            "parse_add": self._parse_add,
            "decrypt": self._decrypt,
        }

    def refresh(self, rng: np.random.Generator) -> None:
        """New content."""
        x = random_values(rng, self.values, CLIP)
        self._fields = (qn.quantize(x, CLIP, self._bits).astype(np.int64) + self._q_max).reshape(
            -1, self._lanes
        )

    def check(self, rng: np.random.Generator) -> None:
        """Sums must be exact."""
        self.refresh(rng)
        first, x = self._upload(), self._fields
        self.refresh(rng)
        second, y = self._upload(), self._fields
        sums = [self._load(a) + self._load(b) for a, b in zip(first, second, strict=True)]
        self.require(np.array_equal(self._open(sums), x + y), "a decrypted sum")

    def _upload(self) -> list[bytes]:
        return [
            self._public.encrypt(self._join(row)).ciphertext().to_bytes(self._width, "big")
            for row in self._fields
        ]

    def _join(self, row: NDArray[np.int64]) -> int:
        return sum(int(field) << (self._field_bits * lane) for lane, field in enumerate(row))

    def _load(self, data: bytes) -> Any:
        return self._paillier.EncryptedNumber(self._public, int.from_bytes(data, "big"))

    def _open(self, sums: list[Any]) -> NDArray[np.int64]:
        mask = (1 << self._field_bits) - 1
        numbers = [self._private.decrypt(total) for total in sums]
        return np.array(
            [
                [number >> (self._field_bits * lane) & mask for lane in range(self._lanes)]
                for number in numbers
            ],
            dtype=np.int64,
        )

    def _encrypt(self) -> Thunk:
        return self._upload

    def _parse_add(self) -> Thunk:
        sums = [self._load(data) for data in self._upload()]
        uploads = self._upload()
        return lambda: [total + self._load(data) for total, data in zip(sums, uploads, strict=True)]

    def _decrypt(self) -> Thunk:
        sums = [self._load(a) + self._load(b) for a, b in zip(*self._two(), strict=True)]
        return lambda: self._open(sums)

    def _two(self) -> tuple[list[bytes], list[bytes]]:
        return self._upload(), self._upload()
