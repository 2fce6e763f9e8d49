"""Threshold keys from end to end: exact sums for every admissible set of participants."""

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
from tests.native import oracle
from tests.native.conftest import integers
from tests.native.threshold_parties import SHAPES, Group, ceremony_of, group, meet, parameters

import quancrypt_native as qn
from quancrypt_native.threshold import Ceremony, Party

SIZE = 300


def admissible(threshold: int, parties: int) -> Iterator[tuple[int, ...]]:
    """All sets of ``threshold`` participants and more."""
    for size in range(threshold, parties + 1):
        yield from itertools.combinations(range(parties), size)


@pytest.mark.parametrize(("threshold", "parties"), SHAPES)
def test_every_admissible_set_gives_the_exact_sum(threshold: int, parties: int) -> None:
    """With all weight that the parameters hold, and the largest values among the inputs."""
    party_group = group(threshold, parties)
    rng = np.random.default_rng(threshold)
    count = 0
    for chosen in admissible(threshold, parties):
        inputs = [integers(rng, 127, SIZE) for _ in range(2)]
        inputs[0][:8] = inputs[1][:8] = [127, -127, 127, -127, 0, 127, -127, 0]
        updates = [party_group.encrypt(q) for q in inputs]
        total = qn.aggregate(updates, weights=[11, 5])
        sums = party_group.ceremony.decrypt_integers(total, party_group.parts(total, chosen))
        np.testing.assert_array_equal(sums, 11 * inputs[0] + 5 * inputs[1])
        count += 1
    assert count == sum(math.comb(parties, size) for size in range(threshold, parties + 1))


def test_the_order_of_participants_does_not_matter() -> None:
    party_group = group(3, 5)
    q = integers(np.random.default_rng(1), 127, SIZE)
    total = party_group.total(q)
    parts = {
        4: party_group.parties[4].partial_decryption(total, participants=[0, 4, 2]),
        0: party_group.parties[0].partial_decryption(total, participants=(4, 2, 0)),
        2: party_group.parties[2].partial_decryption(total, participants={2, 4, 0}),
    }
    np.testing.assert_array_equal(party_group.ceremony.decrypt_integers(total, parts), q)


@pytest.mark.parametrize("threads", [1, 3])
def test_several_ciphertexts_in_the_ring_of_large_updates(
    threads: int, set_threads: object
) -> None:
    """Without ``values``: N = 16384, many fields; two ciphertexts, the second one short."""
    assert callable(set_threads)
    set_threads(threads)
    party_group = group(2, 3, None)
    params = party_group.params
    assert (params.poly_degree, params.fields > 20) == (16384, True)
    rng = np.random.default_rng(2)
    inputs = [integers(rng, 127, params.values_per_ciphertext + 5) for _ in range(3)]
    total = party_group.total(*inputs)
    data = qn.EncryptedUpdate.from_bytes(total.to_bytes(), params)
    parts = party_group.parts(data, [0, 2])
    np.testing.assert_array_equal(
        party_group.ceremony.decrypt_integers(total, parts), inputs[0] + inputs[1] + inputs[2]
    )


def test_means_and_sums_of_named_tensors() -> None:
    party_group = group(2, 3)
    rng = np.random.default_rng(3)
    updates = [
        {"w": rng.normal(0, 0.02, (20, 7)), "b": rng.normal(0, 0.1, 5).astype(np.float32)}
        for _ in range(3)
    ]
    clip = {"w": 0.05, "b": 0.3}
    encryptor = qn.Encryptor(party_group.params, party_group.public)
    encrypted = [encryptor.encrypt(update, clip) for update in updates]
    weights = [3, 1, 2]
    total = qn.aggregate(encrypted, weights)
    mean = party_group.ceremony.decrypt_mean(total, party_group.parts(total, [0, 1]))
    again = qn.aggregate([encryptor.encrypt(update, clip) for update in updates], weights)
    sums = party_group.ceremony.decrypt_sum(again, party_group.parts(again, [1, 2]))
    assert isinstance(mean, dict)
    assert isinstance(sums, dict)
    for name, bound in clip.items():
        clipped = [np.clip(update[name], -bound, bound) for update in updates]
        expected = sum(w * x for w, x in zip(weights, clipped, strict=True)) / 6
        assert (mean[name].shape, mean[name].dtype) == (updates[0][name].shape, np.float32)
        assert np.abs(mean[name] - expected).max() <= bound / 127 / 2 * (1 + 1e-5)
        np.testing.assert_allclose(sums[name], 6 * mean[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("bits", [2, 12, 16])
def test_other_widths_and_weights(bits: int) -> None:
    params = qn.Parameters.for_aggregation(
        bits=bits, max_weight=1000, key_mode="threshold", parties=2, values=100
    )
    party_group = meet(ceremony_of(params, 2))
    q = integers(np.random.default_rng(bits), params.q_max, 100)
    q[:2] = [params.q_max, -params.q_max]
    total = qn.aggregate([party_group.encrypt(q)], weights=[1000])
    sums = party_group.ceremony.decrypt_integers(total, party_group.parts(total, [0, 1]))
    np.testing.assert_array_equal(sums, 1000 * q)


# --- against computations of our own ---


def dealt_shares(party_group: Group) -> list[oracle.Integers]:
    """Each party's share of the joint secret, added up from what was dealt: ``[primes, N]``."""
    params = party_group.params
    primes = np.array(params.data_primes, dtype=object)[:, None]
    shares = []
    deals = [party.deal() for party in party_group.parties]
    for recipient in range(params.parties):
        total = 0
        for deal in deals:
            _, body = oracle.unframe(deal[recipient])
            total = total + oracle.unpack_polynomial(params, body[32:])
        shares.append(total % primes)
    return shares


def reconstruct(
    shares: list[oracle.Integers], chosen: tuple[int, ...], params: qn.Parameters
) -> oracle.Integers:
    """Shamir in Python integers: the joint secret's coefficients ``[primes, N]``."""
    rows = []
    for i, p in enumerate(params.data_primes):
        row = np.zeros(params.poly_degree, dtype=object)
        for j in chosen:
            others = [k for k in chosen if k != j]
            top = math.prod(k + 1 for k in others)
            bottom = math.prod(k - j for k in others)
            row = row + shares[j][i] * (top * pow(bottom, -1, p) % p)
        rows.append(oracle.interpolate(row % p, p))
    return np.array(rows)


def centred(row: oracle.Integers, p: int) -> oracle.Integers:
    return (row + p // 2) % p - p // 2


def test_shares_and_decryption_against_python_integers() -> None:
    """The joint secret is a sum of ternaries; with it, CRT and division give what parties get."""
    party_group = meet(ceremony_of(parameters(3), 2))
    params, parties = party_group.params, 3
    shares = dealt_shares(party_group)
    secrets = [reconstruct(shares, chosen, params) for chosen in ((0, 1), (1, 2), (0, 1, 2))]
    for other in secrets[1:]:
        np.testing.assert_array_equal(secrets[0], other)
    small = [centred(row, p) for row, p in zip(secrets[0], params.data_primes, strict=True)]
    secret = small[0]
    assert all((row == secret).all() for row in small)
    assert set(secret) == set(range(-parties, parties + 1))  # sums of three ternaries
    assert 1.8 < np.mean(secret.astype(float) ** 2) < 2.2  # 3 x 2/3

    rng = np.random.default_rng(4)
    inputs = [integers(rng, 127, SIZE) for _ in range(2)]
    total = qn.aggregate([party_group.encrypt(q) for q in inputs], weights=[9, 7])
    residues = oracle.plaintext_residues(oracle.ciphertext(total), secret, params)
    figures = params.explain().as_dict()
    kept = len(params.data_primes) - figures["smudging_primes"]
    divisor, modulus = math.prod(params.data_primes[kept:]), math.prod(params.data_primes)
    x = centred(oracle.recombine(residues, params.data_primes), modulus)
    scale = divisor << figures["guard_bits"]
    fields = (x + scale // 2) // scale
    assert 100 < max(abs(x - fields * scale)) <= 16 * figures["noise_bound"]
    expected = 9 * inputs[0] + 7 * inputs[1]
    np.testing.assert_array_equal(fields[:SIZE] - 16 * 127, expected)
    parts = party_group.parts(total, [0, 2])
    np.testing.assert_array_equal(party_group.ceremony.decrypt_integers(total, parts), expected)

    # What the parties' parts add up to is the same plaintext under more noise, within its bound.
    added = oracle.ciphertext(total).c0
    for part in parts.values():
        added = added + oracle.unpack_polynomial(params, oracle.unframe(part)[1])
    rows = [
        oracle.interpolate(row % p, p) for row, p in zip(added, params.data_primes, strict=True)
    ]
    y = oracle.recombine(np.array(rows), params.data_primes)
    smudging = centred(y - x, modulus)
    assert max(abs(smudging)) <= 2 << figures["smudging_bits"]
    assert max(abs(smudging)) > 1 << figures["smudging_bits"]


def test_the_joint_key_is_the_sum_of_shares() -> None:
    """b_i = -(a s_i + e_i) with the same a: their sum is what the joint key serializes."""
    party_group = group(2, 3)
    params = party_group.params
    header, body = oracle.unframe(party_group.public.to_bytes())
    total = 0
    for party in party_group.parties:
        _, share = oracle.unframe(party.public_share())
        total = total + oracle.unpack_polynomial(params, share)
    primes = np.array(params.data_primes, dtype=object)[:, None]
    np.testing.assert_array_equal(total % primes, oracle.unpack_polynomial(params, body))
    assert header["params"] == params.fingerprint


def test_what_is_sent_twice_is_the_same() -> None:
    """Fresh errors in a second public share would tell about the secret."""
    party = Party(ceremony_of(parameters(3), 2), 1)
    assert party.public_share() == party.public_share()
    assert party.deal() == party.deal()
    assert sorted(party.deal()) == [0, 1, 2]


def test_a_ceremony_is_the_same_everywhere() -> None:
    params, seed = parameters(3), bytes(range(32))
    one = Ceremony(params, parties=3, threshold=2, common_seed=seed)
    other = Ceremony(
        qn.Parameters.from_bytes(params.to_bytes()), parties=3, threshold=2, common_seed=seed
    )
    assert one == other
    assert len({one, other}) == 1
    assert one != Ceremony(params, parties=3, threshold=3, common_seed=seed)
    assert one != Ceremony(params, parties=3, threshold=2, common_seed=bytes(32))
    assert (one.parties, one.threshold, one.params) == (3, 2, params)
