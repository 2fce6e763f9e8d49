"""The stated noise bound, at its worst: what parameters promise to hold, sums never exceed."""

from fractions import Fraction
from math import ceil

import numpy as np
import pytest
from tests.native import oracle
from tests.native.conftest import Party, packed

import quancrypt_native as qn

REPETITIONS = 1000
PARTIES = ("small", "public", "wide", "wide_public")


@pytest.fixture(params=PARTIES)
def party(request: pytest.FixtureRequest) -> Party:
    found: Party = request.getfixturevalue(request.param)
    return found


def stated_bound(params: qn.Parameters) -> int:
    """Largest noise of one fresh encryption by the definition of the scheme.

    Symmetric: ``e``, centred binomial of 21 + 21 bits. Public key: ``e0 + e1 s + u e`` with ternary
    ``u``, ``s``; with a special prime P divided by it, plus ``t0 + t1 s`` with ``|t| <= 1/2``.
    """
    if params.key_mode == "symmetric":
        return 21
    n = params.poly_degree
    undivided = Fraction(21 + 21 * n + 21 * n)
    if len(params.coeff_modulus) == 1:
        return int(undivided)
    return ceil(undivided / params.coeff_modulus[-1] + Fraction(1 + n, 2))


def forged(party: Party, fields: np.ndarray, noise: np.ndarray, weight: int) -> qn.EncryptedUpdate:
    """A sum of that weight with exactly these unsigned field sums and this noise."""
    params = party.params
    zeros = np.zeros(params.values_per_ciphertext, np.int64)
    like = qn.aggregate([party.encryptor.encrypt_integers(zeros)], weights=[weight])
    coefficients = oracle.encode(fields.astype(object), noise.astype(object), params)
    return qn.EncryptedUpdate.from_bytes(
        oracle.forge(like, party.keys.secret, coefficients), params
    )


def test_the_bound_is_the_schemes(party: Party) -> None:
    figures = party.params.explain().as_dict()
    assert figures["noise_bound"] == stated_bound(party.params)
    assert figures["noise_bound_of_sum"] == party.params.max_weight * stated_bound(party.params)
    allowed = 2 ** (figures["guard_bits"] - 1) - 1
    assert figures["noise_bound_of_sum"] <= figures["noise_allowed"] == allowed


@pytest.mark.parametrize("sign", [1, -1])
def test_noise_at_the_bound_is_rounded_off(party: Party, sign: int) -> None:
    """Every coefficient at the largest noise, every field at its largest and smallest sum."""
    params, weight = party.params, party.params.max_weight
    bound = weight * stated_bound(params)
    n, largest = params.poly_degree, 2 * params.q_max * weight
    for field in (0, largest):
        fields = np.full(params.values_per_ciphertext, field)
        total = forged(party, fields, np.full(n, sign * bound), weight)
        np.testing.assert_array_equal(
            party.decryptor.decrypt_integers(total), fields - weight * params.q_max
        )


@pytest.mark.parametrize("sign", [1, -1])
def test_noise_above_the_bound_is_refused(party: Party, sign: int) -> None:
    """One coefficient one unit above what the total weight allows, smallest and largest."""
    params = party.params
    for weight in (1, params.max_weight):
        fields = np.full(params.values_per_ciphertext, weight * params.q_max)
        noise = np.zeros(params.poly_degree, np.int64)
        noise[77] = sign * weight * stated_bound(params)
        forged_sum = forged(party, fields, noise, weight)
        np.testing.assert_array_equal(party.decryptor.decrypt_integers(forged_sum), 0 * fields)
        noise[77] += sign
        for decrypt in (party.decryptor.decrypt_integers, party.decryptor.decrypt_mean):
            with pytest.raises(qn.DecryptionError, match="valid sum"):
                decrypt(forged(party, fields, noise, weight))


def test_a_field_above_its_largest_sum_is_refused(party: Party) -> None:
    params, no_noise = party.params, np.zeros(party.params.poly_degree, np.int64)
    for weight in (1, params.max_weight):
        fields = np.zeros(params.values_per_ciphertext, np.int64)
        fields[-1] = 2 * params.q_max * weight
        result = party.decryptor.decrypt_integers(forged(party, fields, no_noise, weight))
        assert np.asarray(result)[-1] == weight * params.q_max
        fields[-1] += 1
        with pytest.raises(qn.DecryptionError, match="valid sum"):
            party.decryptor.decrypt_integers(forged(party, fields, no_noise, weight))


@pytest.mark.parametrize("key_mode", ["symmetric", "public"])
def test_all_maximum_sums_a_thousand_times(key_mode: str) -> None:
    """``max_weight`` fresh encryptions of all-maximum inputs, summed, ``REPETITIONS`` times."""
    party = packed(bits=8, max_weight=16, max_poly_degree=2048, key_mode=key_mode)
    values = np.full(party.params.values_per_ciphertext, party.params.q_max)
    encryptor, decryptor = party.encryptor, party.decryptor
    for _ in range(REPETITIONS):
        total = qn.aggregate(encryptor.encrypt_integers(values) for _ in range(16))
        np.testing.assert_array_equal(decryptor.decrypt_integers(total), 16 * values)


@pytest.mark.parametrize("sign", [1, -1])
def test_all_maximum_with_the_largest_weight_a_thousand_times(party: Party, sign: int) -> None:
    """One encryption, ``max_weight`` times itself: its noise grows as fast as the bound."""
    values = np.full(party.params.values_per_ciphertext, sign * party.params.q_max)
    encryptor, decryptor, weight = party.encryptor, party.decryptor, party.params.max_weight
    for _ in range(REPETITIONS // 2):
        total = qn.aggregate([encryptor.encrypt_integers(values)], weights=[weight])
        np.testing.assert_array_equal(decryptor.decrypt_integers(total), weight * values)


def noise_of(party: Party, encryptor: qn.Encryptor, ciphertexts: int) -> np.ndarray:
    values = np.full(party.params.values_per_ciphertext * ciphertexts, party.params.q_max)
    update = encryptor.encrypt_integers(values)
    secret = oracle.secret_coefficients(party.keys.secret)
    rows = []
    for index in range(ciphertexts):
        residues = oracle.plaintext_residues(oracle.ciphertext(update, index), secret, party.params)
        rows.append(
            oracle.decode(oracle.recombine(residues, party.params.data_primes), party.params)
        )
        assert (rows[-1].sums == 2 * party.params.q_max).all()
    return np.array([row.noise for row in rows]).astype(np.float64)


def test_fresh_symmetric_noise_is_centred_binomial(small: Party) -> None:
    """Mean 0, standard deviation sqrt(10.5), at most 21; six standard errors are allowed."""
    noise = noise_of(small, small.encryptor, 64)
    count = noise.size
    assert abs(noise).max() <= 21
    assert abs(noise.mean()) < 6 * np.sqrt(10.5 / count)
    # Kurtosis of the binomial: variance of e^2 is 10.5^2 (2 - 2 / 42 ...) < 2 * 10.5^2.
    assert abs(noise.var() - 10.5) < 6 * 10.5 * np.sqrt(2 / count)
    assert abs(np.corrcoef(noise[:-1].ravel(), noise[1:].ravel())[0, 1]) < 6 / np.sqrt(count)


def test_fresh_public_noise_is_of_the_expected_size(public: Party, wide_public: Party) -> None:
    """Variance of ``e0 + e1 s + u e`` without division, of ``t0 + t1 s`` with it."""
    noise = noise_of(public, public.encryptor, 4)
    n = public.params.poly_degree
    assert abs(noise).max() <= stated_bound(public.params)
    # Each of 2 N products has variance 10.5 * 2 / 3.
    assert noise.std() == pytest.approx(np.sqrt(10.5 * (1 + 2 * n * 2 / 3)), rel=0.2)
    noise = noise_of(wide_public, wide_public.encryptor, 2)
    n = wide_public.params.poly_degree
    assert abs(noise).max() <= stated_bound(wide_public.params)
    # Rounding errors are uniform in [-1/2, 1/2].
    assert noise.std() == pytest.approx(np.sqrt((1 + n * 2 / 3) / 12), rel=0.2)


def test_noise_of_a_sum_stays_below_the_stated_bound(small: Party) -> None:
    """Ten sums of ``max_weight`` fresh encryptions, and ten of one times ``max_weight``."""
    weight = small.params.max_weight
    values = np.full(small.params.values_per_ciphertext, small.params.q_max)
    for _ in range(10):
        fresh = [small.encryptor.encrypt_integers(values) for _ in range(weight)]
        spread = oracle.decrypt(qn.aggregate(fresh), small.keys.secret).noise
        scaled = oracle.decrypt(qn.aggregate(fresh[:1], [weight]), small.keys.secret).noise
        assert 0 < max(abs(spread)) <= weight * 21
        assert 0 < max(abs(scaled)) <= weight * 21
        # Noise of one encryption, times its weight: nothing else was added.
        assert not (scaled % weight).any()
