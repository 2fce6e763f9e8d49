"""The distinguishers' algebra on the package's own ciphertexts, read by a second implementation.

What wins against broken settings (test_distinguisher) gets nothing here, and wins as soon as the
noise of a decryption is handed to it, which the package never does.
"""

from __future__ import annotations

import numpy as np
import pytest
from tests.native import oracle

import quancrypt_native as qn

VALUES = 500


@pytest.fixture(scope="module")
def params() -> qn.Parameters:
    return qn.Parameters.for_aggregation(bits=8, max_weight=16, values=VALUES)


@pytest.fixture(scope="module")
def keys(params: qn.Parameters) -> qn.KeyPair:
    return qn.keygen(params)


def solved(pair: oracle.Polynomials, message: oracle.Integers, params: qn.Parameters) -> list[int]:
    """``(m' - c0) / c1`` modulo the first prime, as centred coefficients."""
    p = params.data_primes[0]
    inverses = np.array([pow(int(c), p - 2, p) for c in pair.c1[0]], dtype=object)
    found = (oracle.evaluate(message % p, p) - pair.c0[0]) * inverses % p
    return [c - p if c > p // 2 else c for c in oracle.interpolate(found, p).tolist()]


def test_an_exact_sum_is_no_equation_for_the_key(params: qn.Parameters, keys: qn.KeyPair) -> None:
    encryptor = qn.Encryptor(params, keys.secret)
    x = np.random.default_rng(1).uniform(-1, 1, VALUES).astype(np.float32)
    update = encryptor.encrypt(x, clip=1.0)
    decoded = oracle.decrypt(update, keys.secret)
    pair, secret = oracle.ciphertext(update), oracle.secret_coefficients(keys.secret).tolist()
    assert np.count_nonzero(decoded.noise) > params.poly_degree / 2
    # What is published, exactly: the sums. The message has no noise in it.
    exact = oracle.encode(decoded.sums, np.zeros_like(decoded.noise), params)
    found = solved(pair, exact, params)
    assert sum(abs(c) <= 1 for c in found) < 5
    assert sum(a == b for a, b in zip(found, secret, strict=True)) < 5
    # With its noise, as standard CKKS decrypts: the key, whole.
    noisy = oracle.encode(decoded.sums, decoded.noise, params)
    assert solved(pair, noisy, params) == secret


def test_two_uploads_share_no_randomness(params: qn.Parameters, keys: qn.KeyPair) -> None:
    """Their difference tells nothing, of the same message either."""
    encryptor = qn.Encryptor(params, keys.secret)
    x = np.ones(VALUES, dtype=np.float32)
    one, two = (oracle.ciphertext(encryptor.encrypt(x, clip=1.0)) for _ in range(2))
    p = params.data_primes[0]
    assert not np.array_equal(one.c1, two.c1)
    difference = oracle.interpolate((one.c0[0] - two.c0[0]) % p, p)
    # Under one seed all of them would be differences of two noises, 42 at most.
    small = sum(min(int(c), p - int(c)) <= 42 for c in difference)
    assert small < 5
