"""Reading uploads without a key: judged by a second implementation and by the package itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.native import oracle

import quancrypt_native as qn
from quancrypt_fl.leakage import polynomials
from quancrypt_fl.leakage.decoding import (
    Packing,
    as_plaintext,
    as_polynomial,
    decoded_values,
    frame,
    read_c0,
    unframe,
    unmasked_upload,
)

SIZES = (500, 5_000, 20_000, 300_000)  # one prime to four, one ciphertext to several


class Uploaded:
    """An upload of known integers under a fresh key."""

    def __init__(self, values: int) -> None:
        self.params = qn.Parameters.for_aggregation(bits=8, max_weight=16, values=values)
        self.keys = qn.keygen(self.params)
        self.integers = np.random.default_rng(1).integers(-127, 128, values)
        unit = (self.integers / 127).astype(np.float32)
        half = values // 2
        tensors: dict[str, Any] = {"a": unit[:half], "b": unit[half:]}
        encryptor = qn.Encryptor(self.params, self.keys.secret)
        self.update = encryptor.encrypt(tensors, clip={"a": 1.0, "b": 1.0})
        self.data = self.update.to_bytes()


@pytest.fixture(scope="module", params=SIZES)
def uploaded(request: pytest.FixtureRequest) -> Uploaded:
    return Uploaded(request.param)


def test_sizes_are_of_several_kinds() -> None:
    made = [Uploaded(values) for values in SIZES]
    assert {len(item.params.data_primes) for item in made} >= {1, 2, 4}
    assert {item.params.fields for item in made} >= {1, 5, 13}
    assert {item.update.ciphertexts for item in made} >= {1, 3}


def test_the_packing_is_that_of_the_parameters(uploaded: Uploaded) -> None:
    packing, params = Packing.of(uploaded.params), uploaded.params
    assert packing.primes == tuple(params.data_primes)
    assert packing.offset == params.q_max
    assert packing.values == params.values_per_ciphertext
    assert packing.nbytes == oracle.polynomial_bytes(params)
    assert Packing.of(params.explain().as_dict()) == packing


def test_products_are_exact_up_to_primes_of_50_bits() -> None:
    rng = np.random.default_rng(2)
    for p in (4188161, 34359697409, 2**50 - 27):
        a, b = rng.integers(0, p, (2, 20_000))
        a[:4], b[:4] = [0, 1, p - 1, p - 1], [p - 1, p - 1, p - 1, 1]
        expected = [x * y % p for x, y in zip(a.tolist(), b.tolist(), strict=True)]
        assert polynomials.multiply(a, b, p).tolist() == expected
    a = np.array([0, 1, 2, 4188160])
    product = polynomials.multiply(a, polynomials.inverse(a, 4188161), 4188161)
    assert product.tolist() == [0, 1, 1, 1]


def test_transforms_are_those_of_the_format(uploaded: Uploaded) -> None:
    rng = np.random.default_rng(3)
    p = uploaded.params.data_primes[-1]
    x = rng.integers(0, p, uploaded.params.poly_degree)
    values = polynomials.evaluate(x, p)
    assert values.tolist() == oracle.evaluate(x.astype(object), p).tolist()
    assert polynomials.interpolate(values, p).tolist() == x.tolist()


def test_c0_is_read_as_it_was_written(uploaded: Uploaded) -> None:
    last = uploaded.update.ciphertexts - 1
    for index in {0, last}:
        found = read_c0(uploaded.data, uploaded.params, index)
        assert found.tolist() == oracle.ciphertext(uploaded.update, index).c0.tolist()
    packed = polynomials.pack_residues(found, uploaded.params.data_primes)
    assert packed == oracle.pack_polynomial(uploaded.params, found.astype(object))


def test_with_the_key_it_unpacks_as_decryption_does(uploaded: Uploaded) -> None:
    """The same function on ``c0 + c1 s``, noise and all, gives the integers."""
    params, primes = uploaded.params, uploaded.params.data_primes
    pair = oracle.ciphertext(uploaded.update)
    secret = oracle.secret_coefficients(uploaded.keys.secret)
    opened = []
    for c0, c1, p in zip(pair.c0, pair.c1, primes, strict=True):
        values = polynomials.evaluate((secret % p).astype(np.int64), p).astype(object)
        opened.append(((c0 + c1 * values) % p).astype(np.int64))
    found = as_plaintext(np.stack(opened), params) - params.q_max
    expected = uploaded.integers[: params.values_per_ciphertext]
    assert found[: len(expected)].tolist() == expected.tolist()
    assert (found[len(expected) :] == -params.q_max).all()  # empty fields are zero


def test_noise_below_an_empty_coefficient_is_rounded_off(uploaded: Uploaded) -> None:
    """Zero fields less noise are just below the modulus."""
    packing = Packing.of(uploaded.params)
    noise = np.full(packing.n, -21)
    fields = np.zeros(packing.values, dtype=np.int64)
    assert not as_plaintext(as_polynomial(fields, uploaded.params, noise), uploaded.params).any()


def test_without_encryption_every_integer_is_read(uploaded: Uploaded) -> None:
    data = unmasked_upload(uploaded.data, uploaded.params, uploaded.integers)
    assert len(data) == len(uploaded.data)
    assert unframe(data)[0] == unframe(uploaded.data)[0]
    found = decoded_values(data, uploaded.params, len(uploaded.integers))
    assert found.tolist() == uploaded.integers.tolist()
    qn.EncryptedUpdate.from_bytes(data, uploaded.params)  # well-formed, to the checksum


def test_of_an_encrypted_upload_nothing_is(uploaded: Uploaded) -> None:
    found = decoded_values(uploaded.data, uploaded.params, len(uploaded.integers))
    fields = found + 127
    assert fields.min() >= 0
    assert fields.max() < 4096
    # All 4,096 values of a field are as likely: one in 4,096 is right, by chance.
    expected = len(found) / 4096
    assert np.count_nonzero(found == uploaded.integers) < expected + 6 * expected**0.5 + 6
    assert abs(np.corrcoef(found, uploaded.integers)[0, 1]) < 5 / len(found) ** 0.5


def test_a_frame_has_the_librarys_checksum(uploaded: Uploaded) -> None:
    header, body = unframe(uploaded.data)
    assert (header, body) == oracle.unframe(uploaded.data)
    again = frame(header, body)
    assert again == oracle.frame(1, header, body)
    assert qn.EncryptedUpdate.from_bytes(again, uploaded.params).key_id == uploaded.update.key_id
