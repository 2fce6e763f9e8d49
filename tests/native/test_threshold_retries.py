"""Why a party answers once: two answers for two sets give the share away. Masks prevent it.

The rule is broken here on purpose, by asking the core, which remembers nothing. Masks that two
participants share cancel within one answer if both are given the same seed: that is an answer
without masks.
"""

import math
import random
import secrets
from dataclasses import dataclass

import numpy as np
from tests.native import oracle
from tests.native.threshold_parties import ceremony_of, parameters

import quancrypt_native as qn
from quancrypt_native.threshold import Party

PARTIES, THRESHOLD, COEFFICIENTS = 128, 65, 20
POINT = 1


@dataclass(frozen=True)
class Victim:
    """One party, a second polynomial, and what the party's share makes of it: ``S c1`` mod Q."""

    party: Party
    body: bytes
    product: oracle.Integers

    @property
    def params(self) -> qn.Parameters:
        return self.party.ceremony.params


def whole(params: qn.Parameters, residues: oracle.Integers) -> oracle.Integers:
    """NTT residues ``[primes, N]`` -> the first coefficients in [0, Q)."""
    rows = [oracle.interpolate(r % p, p) for r, p in zip(residues, params.data_primes, strict=True)]
    return oracle.recombine(np.array(rows)[:, :COEFFICIENTS], params.data_primes)


def make_victim() -> Victim:
    party = Party(ceremony_of(parameters(PARTIES, None), THRESHOLD), POINT - 1)
    params = party.ceremony.params
    size = oracle.polynomial_bytes(params)
    c1 = np.array(
        [[secrets.randbelow(p) for _ in range(params.poly_degree)] for p in params.data_primes],
        dtype=object,
    )
    state = bytes(party._core.save())
    share = oracle.unpack_polynomial(params, state[-size:])
    body = bytes(size) + oracle.pack_polynomial(params, c1)
    return Victim(party, body, whole(params, share * c1))


def lagrange(points: list[int], q: int) -> int:
    top = math.prod(x for x in points if x != POINT)
    bottom = math.prod(x - POINT for x in points if x != POINT)
    return top * pow(bottom, -1, q) % q


def answer(victim: Victim, points: list[int], *, masked: bool) -> oracle.Integers:
    """What the party answers for these participants, first coefficients."""
    count = len(points) - 1
    seeds = [secrets.token_bytes(32) for _ in range(count)]
    if not masked:
        seeds[1::2] = seeds[0::2]
    masks = [(seed, i % 2 == 1) for i, seed in enumerate(seeds)]
    request, prefix = secrets.token_bytes(32), b""
    data = victim.party._core.partial_decryption(
        np.frombuffer(victim.body, np.uint8), 1, points, masks, request, prefix
    )
    return whole(victim.params, oracle.unpack_polynomial(victim.params, data[:-4]))


def shortest(ratio: int, offset: int, q: int) -> tuple[int, int]:
    """The least ``(x, y)`` with ``x = ratio y + offset`` mod q: Gauss's reduction, rounding."""
    u, v = (ratio, 1), (q, 0)
    while True:
        if u[0] ** 2 + u[1] ** 2 > v[0] ** 2 + v[1] ** 2:
            u, v = v, u
        k = round_half(u[0] * v[0] + u[1] * v[1], u[0] ** 2 + u[1] ** 2)
        if k == 0:
            break
        v = v[0] - k * u[0], v[1] - k * u[1]
    det = u[0] * v[1] - u[1] * v[0]
    a, b = offset * v[1], -offset * u[1]  # (offset, 0) = a / det u + b / det v
    i, j = (round_half(a, det), round_half(b, det))
    return offset - i * u[0] - j * v[0], -i * u[1] - j * v[1]


def round_half(a: int, b: int) -> int:
    return (2 * a + b) // (2 * b) if b > 0 else (-2 * a - b) // (-2 * b)


def attack(victim: Victim, *, masked: bool) -> int:
    """From two answers: how many of the first coefficients of S c1 come out right."""
    q = math.prod(victim.params.data_primes)
    draw = random.Random(1)
    others = range(2, PARTIES + 1)
    sets = [[POINT, *sorted(draw.sample(others, THRESHOLD - 1))] for _ in range(2)]
    one, two = (lagrange(points, q) for points in sets)
    first, second = (answer(victim, points, masked=masked) for points in sets)
    right = 0
    for d, other, truth in zip(first, second, victim.product, strict=True):
        # d = one T + e and other = two T + f, so e = (one / two) f + (d - one / two other).
        ratio = one * pow(two, -1, q) % q
        error, _ = shortest(ratio, (d - ratio * other) % q, q)
        right += (d - error) * pow(one, -1, q) % q == truth
    return right


def test_two_answers_without_masks_give_the_share_away_and_masks_prevent_it() -> None:
    victim = make_victim()
    assert attack(victim, masked=False) == COEFFICIENTS
    assert attack(victim, masked=True) == 0
