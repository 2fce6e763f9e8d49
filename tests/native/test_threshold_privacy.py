"""Fewer parts than the threshold are uniform; all of them are not."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from tests.native import oracle
from tests.native.threshold_parties import SHAPES, Group, group

import quancrypt_native as qn
from quancrypt_native import _core

COEFFICIENTS = 1_000_000
BINS = 1000

Words = npt.NDArray[np.uint64]


def multiply(a: Words, b: Words, p: int) -> Words:
    """Modulo p < 2^50: the quotient in long double is right up to 1."""
    quotient = (a.astype(np.longdouble) * b.astype(np.longdouble) / p).astype(np.uint64)
    rest = (a * b - quotient * np.uint64(p)).astype(np.int64)  # wraps, small
    rest = np.where(rest < 0, rest + p, rest)
    return np.where(rest >= p, rest - p, rest).astype(np.uint64)


def interpolate(values: Words, p: int) -> Words:
    """``oracle.interpolate`` of each row of ``[rows, N]``, on machine words."""
    n = values.shape[1]
    psi = pow(oracle._primitive_root(n, p), -1, p)
    x = _cyclic(values[:, oracle._reversal(n)], psi * psi % p, p)
    factors = oracle._powers(psi, n, p) * pow(n, -1, p) % p
    return multiply(x, factors.astype(np.uint64)[None, :], p)


def _cyclic(x: Words, root: int, p: int) -> Words:
    n = x.shape[1]
    if n == 1:
        return x
    even = _cyclic(x[:, 0::2], root * root % p, p)
    twiddles = oracle._powers(root, n // 2, p).astype(np.uint64)[None, :]
    odd = multiply(_cyclic(x[:, 1::2], root * root % p, p), twiddles, p)
    upper, lower = even + odd, even + np.uint64(p) - odd
    return np.concatenate([upper % np.uint64(p), lower % np.uint64(p)], axis=1)


def fractions(total: qn.EncryptedUpdate, parts: list[bytes]) -> npt.NDArray[np.float64]:
    """Coefficients of ``c0`` plus the parts over Q, in [0, 1)."""
    params = total.params
    n, primes = params.poly_degree, params.data_primes
    size = oracle.polynomial_bytes(params)
    q = math.prod(primes)
    out = np.zeros((total.ciphertexts, n), dtype=np.longdouble)
    rows: list[Words] = [np.zeros((total.ciphertexts, n), np.uint64) for _ in primes]
    bodies = [(oracle.unframe(total.to_bytes())[1], 2)]
    bodies += [(oracle.unframe(part)[1], 1) for part in parts]
    for body, step in bodies:
        for index in range(total.ciphertexts):
            at = step * index * size
            found = oracle.unpack_polynomial(params, body[at : at + size]).astype(np.uint64)
            for i, p in enumerate(primes):
                rows[i][index] = (rows[i][index] + found[i]) % np.uint64(p)
    for row, p in zip(rows, primes, strict=True):
        weight = np.uint64(pow(q // p, -1, p))
        digits = multiply(interpolate(row, p), np.full_like(row, weight), p)
        out += digits.astype(np.longdouble) / p
    return (out % 1).astype(np.float64).ravel()


def deviations(x: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Of uniformity: chi-square in standard deviations, Kolmogorov and Smirnov's sqrt(n) D."""
    counts = np.bincount((x * BINS).astype(int), minlength=BINS)
    expected = len(x) / BINS
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    ordered = np.sort(x)
    steps = np.arange(1, len(x) + 1) / len(x)
    distance = max((steps - ordered).max(), (ordered - steps + 1 / len(x)).max())
    return (chi_square - (BINS - 1)) / math.sqrt(2 * (BINS - 1)), float(distance) * len(x) ** 0.5


def _shape(threshold: int, parties: int) -> object:
    quick = (threshold, parties) == (3, 5)
    marks = () if quick else (pytest.mark.slow,)
    return pytest.param((threshold, parties), marks=marks, id=f"{threshold} of {parties}")


@pytest.fixture(scope="module", params=[_shape(*shape) for shape in SHAPES])
def answered(
    request: pytest.FixtureRequest,
) -> tuple[Group, qn.EncryptedUpdate, dict[int, bytes]]:
    """A sum of a million zeros, and the parts of as many parties as are needed."""
    threshold, parties = request.param
    party_group = group(threshold, parties)
    per = party_group.params.values_per_ciphertext
    assert per == party_group.params.poly_degree  # a value a coefficient
    values = np.zeros(-(-COEFFICIENTS // per) * per, dtype=np.int64)
    total = party_group.total(values)
    return party_group, total, party_group.parts(total, range(parties - threshold, parties))


def test_one_part_too_few_is_uniform(
    answered: tuple[Group, qn.EncryptedUpdate, dict[int, bytes]],
) -> None:
    """A million coefficients of what t - 1 parts decrypt to. Chance fails it once in 10^7."""
    party_group, total, parts = answered
    given = list(parts.values())[1:]
    assert len(given) == party_group.ceremony.threshold - 1
    x = fractions(total, given)
    assert len(x) >= COEFFICIENTS
    chi_square, distance = deviations(x)
    assert abs(chi_square) < 6
    assert distance < 3.1


def test_one_part_too_few_is_an_error(
    answered: tuple[Group, qn.EncryptedUpdate, dict[int, bytes]],
) -> None:
    """Before anything is computed; and what the core computes of them is no valid sum."""
    party_group, total, parts = answered
    ceremony = party_group.ceremony
    for left_out in parts:
        given = {index: part for index, part in parts.items() if index != left_out}
        with pytest.raises(qn.ParameterError, match=f"there are {len(given)} partial decryptions"):
            ceremony.decrypt_integers(total, given)
        bodies = [np.frombuffer(oracle.unframe(part)[1], np.uint8) for part in given.values()]
        with pytest.raises(qn.DecryptionError):
            _core.combine_packed(
                ceremony.params._core, total._body, bodies, 1, [total.values], [1.0], True
            )


def test_one_part_alone_is_uniform(
    answered: tuple[Group, qn.EncryptedUpdate, dict[int, bytes]],
) -> None:
    """Also against the ciphertext of which it is a part: masks hide lambda c1 share + smudging."""
    _, total, parts = answered
    chi_square, distance = deviations(fractions(total, list(parts.values())[-1:]))
    assert abs(chi_square) < 6
    assert distance < 3.1


def test_the_statistics_see_a_plaintext(
    answered: tuple[Group, qn.EncryptedUpdate, dict[int, bytes]],
) -> None:
    """With all parts every coefficient is the same field, and both statistics say so."""
    party_group, total, parts = answered
    x = fractions(total, list(parts.values()))
    chi_square, distance = deviations(x)
    assert chi_square > 1000
    assert distance > 100
    assert x.max() - x.min() < 1e-3
    sums = party_group.ceremony.decrypt_integers(total, parts)
    assert not np.asarray(sums).any()
