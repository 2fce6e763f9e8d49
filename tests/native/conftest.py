"""What the tests of the native package share: parameter sets and keys, made once a session."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import quancrypt_native as qn


@dataclass(frozen=True)
class Party:
    """A parameter set, a key pair, and both ends of it."""

    params: qn.Parameters
    keys: qn.KeyPair

    @property
    def encryptor(self) -> qn.Encryptor:
        """With the public key where the parameters hold its noise, else with the secret key."""
        public = self.params.key_mode == "public"
        return qn.Encryptor(self.params, self.keys.public if public else self.keys.secret)

    @property
    def seeded(self) -> qn.Encryptor:
        """With the secret key."""
        return qn.Encryptor(self.params, self.keys.secret)

    @property
    def decryptor(self) -> qn.Decryptor:
        return qn.Decryptor(self.params, self.keys.secret)


@functools.cache
def _packed(items: tuple[tuple[str, Any], ...]) -> Party:
    params = qn.Parameters.for_aggregation(**dict(items))
    return Party(params, qn.keygen(params))


def packed(**choices: Any) -> Party:
    """``Parameters.for_aggregation(**choices)`` with a key pair; the same one for equal choices."""
    return _packed(tuple(sorted(choices.items())))


@functools.cache
def slots(**choices: Any) -> Party:
    """``Parameters.slots(**choices)`` with a key pair."""
    params = qn.Parameters.slots(**choices)
    return Party(params, qn.keygen(params))


@pytest.fixture(scope="session")
def small() -> Party:
    """Symmetric, one 22-bit prime at N = 1024, one field of 8-bit values, weights up to 16."""
    return packed(bits=8, max_weight=16, max_poly_degree=1024)


@pytest.fixture(scope="session")
def public() -> Party:
    """Public key, one 46-bit prime at N = 2048, two fields."""
    return packed(bits=8, max_weight=16, max_poly_degree=2048, key_mode="public")


@pytest.fixture(scope="session")
def wide() -> Party:
    """Symmetric, two data primes and the special prime at N = 4096, six fields."""
    return packed(bits=8, max_weight=16, max_poly_degree=4096)


@pytest.fixture(scope="session")
def wide_public() -> Party:
    """Public key, two data primes and the special prime at N = 4096."""
    return packed(bits=8, max_weight=16, max_poly_degree=4096, key_mode="public")


@pytest.fixture(scope="session")
def small_slots() -> Party:
    """Slots at N = 1024 with one 27-bit prime and a scale of 2^15: small, not precise."""
    return slots(poly_degree=1024, coeff_modulus_bits=(27,), scale_bits=15, max_weight=4)


@pytest.fixture(scope="session")
def standard_slots() -> Party:
    """The default slots: N = 8192, 60 + 40 + 40 + 60 bits, scale 2^40."""
    return slots()


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    """``set_num_threads``; the number before the test comes back after it."""
    before = qn.num_threads()
    yield qn.set_num_threads
    qn.set_num_threads(before)


def integers(
    rng: np.random.Generator, q_max: int, shape: int | tuple[int, ...]
) -> npt.NDArray[np.int64]:
    """Uniform quantized values."""
    return rng.integers(-q_max, q_max + 1, shape)
