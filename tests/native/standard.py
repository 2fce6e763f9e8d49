"""What a parameter set must meet, in Python integers, from the standard and the design."""

import math
from fractions import Fraction

import quancrypt_native as qn

LIMITS = {
    1024: {128: 27, 192: 19, 256: 14},
    2048: {128: 54, 192: 37, 256: 29},
    4096: {128: 109, 192: 75, 256: 58},
    8192: {128: 218, 192: 152, 256: 118},
    16384: {128: 438, 192: 305, 256: 237},
    32768: {128: 881, 192: 611, 256: 476},
}
"""Homomorphic Encryption Standard (November 2018), table 1: largest log2 of the whole modulus for
ternary secrets, classical attacks, by ring degree and security level."""

LARGEST_ERROR = 21
LARGEST_DATA_PRIME_BITS = 50


def is_prime(value: int) -> bool:
    """Miller-Rabin with the first twelve primes as bases: certain below 3.3e24."""
    bases = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
    if value < 41:
        return value in bases
    odd, twos = value - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in bases:
        x = pow(base, odd, value)
        if x in (1, value - 1):
            continue
        for _ in range(twos - 1):
            x = x * x % value
            if x == value - 1:
                break
        else:
            return False
    return True


def fresh_noise(degree: int, special: int | None, key_mode: str) -> int:
    """Largest noise of one encryption; see ``test_noise.stated_bound``."""
    if key_mode == "symmetric":
        return LARGEST_ERROR
    undivided = Fraction(LARGEST_ERROR * (2 * degree + 1))
    return math.ceil(
        undivided if special is None else undivided / special + Fraction(degree + 1, 2)
    )


def check_modulus(params: qn.Parameters) -> None:
    """Assert that the modulus is secure by the standard and fit for the transform."""
    n, primes = params.poly_degree, params.coeff_modulus
    assert math.prod(primes).bit_length() <= LIMITS[n][params.security]
    assert len(set(primes)) == len(primes) > 0
    for p in primes:
        assert is_prime(p)
        assert p % (2 * n) == 1


def check_packed(params: qn.Parameters) -> None:
    """Assert every inequality that exactness rests on."""
    check_modulus(params)
    n, primes = params.poly_degree, params.coeff_modulus
    special = primes[-1] if len(primes) > 1 else None
    data = primes[:-1] if special else primes
    assert params.data_primes == data
    assert all(p < 2**LARGEST_DATA_PRIME_BITS for p in data)
    figures = params.explain().as_dict()
    guard, width, fields = figures["guard_bits"], figures["field_bits"], params.fields
    weight, q_max, q = params.max_weight, 2 ** (params.bits - 1) - 1, math.prod(data)
    assert params.q_max == q_max

    noise = fresh_noise(n, special, params.key_mode)
    assert figures["noise_bound"] == noise
    assert weight * noise < 2 ** (guard - 1)  # rounding to multiples of 2^guard is exact
    assert weight * 2 * q_max < 2**width  # no field carries into the next
    assert width <= 32
    largest = sum(weight * 2 * q_max << (guard + width * f) for f in range(fields))
    assert largest + 2**guard <= q  # nothing wraps, noise of either sign included
    assert largest + weight * noise + 2 ** (guard - 1) < q

    assert params.values_per_ciphertext == n * fields
    polynomials = 1 if params.key_mode == "symmetric" else 2
    size = polynomials * sum(n * (p - 1).bit_length() // 8 for p in data)
    assert params.bytes_per_value == size / (n * fields)


def check(params: qn.Parameters) -> None:
    """:func:`check_packed`, or what there is to check of slots."""
    if params.encoding == "packed":
        check_packed(params)
    else:
        check_modulus(params)
        assert 1 <= params.scale_bits < math.prod(params.coeff_modulus).bit_length()
        assert params.values_per_ciphertext == params.poly_degree // 2
