"""Residues out of range, and bodies that are not what the header says."""

from __future__ import annotations

import numpy as np
import pytest
from tests.native import oracle
from tests.native.conftest import Party
from tests.native.wire_objects import WireObject

import quancrypt_native as qn
from attacks.conftest import forged


def with_residue(victim: Party, item: WireObject, place: int, value: int) -> bytes:
    """The body of a sum with one residue replaced; ``place`` counts over both polynomials."""
    _, body = oracle.unframe(item.data)
    half = len(body) // 2
    parts = [
        oracle.unpack_polynomial(victim.params, body[i * half : (i + 1) * half]) for i in (0, 1)
    ]
    part, at = divmod(place, victim.params.poly_degree)
    parts[part].reshape(-1)[at] = value
    return b"".join(oracle.pack_polynomial(victim.params, residues) for residues in parts)


@pytest.mark.parametrize("place", [0, 511, 512, 1023, 1024, 2047])
def test_residues_out_of_range(victim: Party, objects: dict[str, WireObject], place: int) -> None:
    """Idea: a residue at or above its prime, which modular addition without a check carries on.
    Refused by: `unpack_polynomial`, at any place; the sum stays as it was."""
    (prime,) = victim.params.data_primes
    item = objects["sum"]
    for value in (prime, prime + 1, 2 ** prime.bit_length() - 1):
        data = forged(item, body=with_residue(victim, item, place, value))
        with pytest.raises(qn.WireFormatError, match="is not below the prime"):
            item.read(data)
        total = qn.Aggregator(victim.params)
        total.add(item.data)
        before = total.result().to_bytes()
        with pytest.raises(qn.WireFormatError, match="is not below the prime"):
            total.add(data)
        assert total.result().to_bytes() == before
    item.read(forged(item, body=with_residue(victim, item, place, prime - 1)))


@pytest.mark.parametrize("size", [0, 1, 2815, 2817, 5631, 5633, 11264])
def test_bodies_of_another_length(objects: dict[str, WireObject], size: int) -> None:
    """Idea: a body a byte short, a byte long, or of half the polynomials.
    Refused by: the exact size that values, parameters and seed imply."""
    item = objects["sum"]
    with pytest.raises(qn.WireFormatError, match="the body has"):
        item.read(forged(item, body=bytes(size)))


def test_a_lie_about_the_length(objects: dict[str, WireObject]) -> None:
    """Idea: `body_bytes` of a terabyte over a short body, or less than there is.
    Refused by: `wire.parse`: exactly what is there."""
    for item in objects.values():
        for stated in (2**40, 2**48, len(item.data)):
            with pytest.raises(qn.WireFormatError, match="truncated: body"):
                item.read(forged(item, body_bytes=stated))
    with pytest.raises(qn.WireFormatError, match="trailing bytes"):
        objects["sum"].read(forged(objects["sum"], body_bytes=0))


def test_noise_that_nobody_notices(victim: Party, objects: dict[str, WireObject]) -> None:
    """Idea: well-formed residues that are no encryption, to falsify a sum of others unseen.
    Refused by: decryption, which checks fields, noise and high bits of every coefficient."""
    rng = np.random.default_rng(1)
    (prime,) = victim.params.data_primes
    item = objects["sum"]
    rows = [rng.integers(0, prime, (1, 1024)).astype(object) for _ in range(2)]
    body = b"".join(oracle.pack_polynomial(victim.params, row) for row in rows)
    total = qn.aggregate([item.read(item.data), item.read(forged(item, body=body))])
    with pytest.raises(qn.DecryptionError):
        victim.decryptor.decrypt_sum(total)


def test_the_checksum_is_no_signature(objects: dict[str, WireObject]) -> None:
    """Idea: change a byte and compute the checksum anew.
    Refused by: nothing at this layer, on purpose: what is read is well-formed, but another update.
    Signed replies (SECURITY.md) and TLS tell who made it."""
    item = objects["seeded update"]
    seed = oracle.unframe(item.data)[0]["seed"]
    other = item.read(forged(item, seed=("0" if seed[0] != "0" else "1") + seed[1:]))
    assert other.to_bytes() != item.data
    with pytest.raises(qn.WireFormatError, match="wrong checksum"):
        item.read(item.data[:-5] + bytes([item.data[-5] ^ 1]) + item.data[-4:])
