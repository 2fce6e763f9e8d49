"""The distinguishers' algebra on the package's own ciphertexts, read by a second implementation.

What wins against broken settings (test_distinguisher) gets nothing here, and wins as soon as the
noise of a decryption is handed to it, which the package never does. And the uploads and twins that
the distinguishers play with are what they say, by that implementation and by the package's own.
"""

from __future__ import annotations

import numpy as np
import pytest
from tests.native import oracle

import quancrypt_native as qn
from quancrypt_fl.leakage.decoding import as_polynomial
from quancrypt_fl.leakage.distinguisher import native_ciphertexts
from quancrypt_fl.leakage.distinguisher.native_ciphertexts import (
    NativeUploads,
    expand_c1,
    secret_coefficients,
)
from quancrypt_fl.protect import Channel

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


# --- the experiment's uploads ---

FULL = 20_480  # values of one ciphertext: two primes, five fields


class Known:
    """Uploads, and the key and parameters that only tests take out of their channel."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, values: int) -> None:
        self.rng = np.random.default_rng(5)
        made: list[Channel] = []

        def remembered(**choices: int) -> Channel:
            made.append(Channel(**choices))
            return made[-1]

        monkeypatch.setattr(native_ciphertexts, "Channel", remembered)
        self.uploads = NativeUploads(values, self.rng)
        self.params, self.secret = made[0]._params, made[0]._secret
        self.client = made[0].client()

    def integers(self) -> np.ndarray:
        return self.rng.integers(-127, 128, self.uploads.values)

    def read(self, data: bytes) -> qn.EncryptedUpdate:
        return qn.EncryptedUpdate.from_bytes(data, self.params)

    def opened(self, data: bytes) -> np.ndarray:
        """By the package."""
        return np.rint(self.client.unprotect(data)[0]["update"] * 127)


@pytest.fixture(params=[VALUES, FULL])
def known(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Known:
    return Known(monkeypatch, request.param)


def test_an_attacker_reads_both_polynomials(known: Known) -> None:
    data = known.uploads.upload(known.integers())
    found, expected = known.uploads.unopened(data), oracle.ciphertext(known.read(data))
    assert found.published is None
    assert found.c0.tolist() == expected.c0.tolist()
    assert found.c1.tolist() == expected.c1.tolist()
    assert expand_c1(data, known.uploads.packing).tolist() == expected.c1.tolist()


def test_a_made_up_ciphertext_decrypts_to_the_key(known: Known) -> None:
    data = known.uploads.upload(known.integers())
    found = secret_coefficients(known.client, known.uploads.params, data)
    assert found.tolist() == oracle.secret_coefficients(known.secret).tolist()


def test_what_is_published_is_exact_or_has_the_noise(known: Known) -> None:
    integers = known.integers()
    data = known.uploads.upload(integers)
    decoded = oracle.decrypt(known.read(data), known.secret)
    assert decoded.noise.any()
    used = decoded.sums[: known.uploads.values]
    assert (used - 127).tolist() == integers.tolist()
    exact = known.uploads.opened_exactly(data, integers).published
    handed = known.uploads.opened_with_noise(data).published
    for found, noise in ((exact, 0 * decoded.noise), (handed, decoded.noise)):
        assert found is not None
        coefficients = oracle.encode(decoded.sums, noise, known.params)
        for row, p in zip(found, known.params.data_primes, strict=True):
            assert row.tolist() == oracle.evaluate(coefficients % p, p).tolist()


def test_a_forged_upload_is_one_of_the_package_but_for_its_seed(known: Known) -> None:
    first = known.uploads.upload(known.integers())
    integers = known.integers()
    forged = known.uploads.under_the_seed_of(first, integers)
    assert known.opened(forged).tolist() == integers.tolist()
    one, two = (oracle.ciphertext(known.read(data)) for data in (first, forged))
    assert one.c1.tolist() == two.c1.tolist()
    noises = [oracle.decrypt(known.read(data), known.secret).noise for data in (first, forged)]
    assert np.abs(noises[1]).max() <= 21
    assert 2.5 < np.std(noises[1].astype(float)) < 4  # sqrt(21 / 2) = 3.24
    assert (noises[0] != noises[1]).any()
    # Everything but c0 and the checksum is the first upload's.
    assert len(forged) == len(first)
    assert oracle.unframe(forged)[0] == oracle.unframe(first)[0]


def test_an_unmasked_upload_is_the_plaintext(known: Known) -> None:
    integers = known.integers()
    c0 = oracle.ciphertext(known.read(known.uploads.unmasked(integers))).c0
    expected = as_polynomial(integers + 127, known.uploads.params)
    assert c0.tolist() == expected.tolist() == known.uploads.plaintext(integers).tolist()
