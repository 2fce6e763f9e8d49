"""Clients that write their own ciphertexts: integers beyond what the protocol's encoding holds.

There is no proof of range under the encryption. What holds such a client is the sum alone: whatever
anybody adds, the mean lies within the clip bound, or nobody can read it.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.native import oracle
from tests.native.conftest import Party, packed
from tests.native.wire_objects import update_object

import quancrypt_native as qn
from attacks.conftest import forged
from quancrypt_fl.errors import MethodError
from quancrypt_fl.protect import Summer
from quancrypt_native import _core
from quancrypt_native.update import update_prefix

CLIENTS = 4


@functools.cache
def federation() -> Party:
    """Several fields in a coefficient, so that there are neighbours to wrap into."""
    return packed(bits=8, max_weight=CLIENTS, max_poly_degree=2048)


def layout() -> tuple[int, int, int]:
    """Fields in a coefficient, bits of a field, guard bits."""
    figures = federation().params.explain().as_dict()
    return figures["fields"], figures["field_bits"], figures["guard_bits"]


def honest(value: int = 0) -> bytes:
    """An upload of a full ciphertext of one integer."""
    party = federation()
    return party.seeded.encrypt_integers(np.full(values(), value)).to_bytes()


def values() -> int:
    return federation().params.values_per_ciphertext


def malformed(added: int, *, coefficient: int = 0) -> bytes:
    """A fresh, seeded upload of zeros with ``added`` on top of one coefficient of its plaintext.

    Without the library: a polynomial is added to ``c0``, which needs no key.
    """
    params = federation().params
    item = update_object(qn.EncryptedUpdate.from_bytes(honest(), params))
    _, body = oracle.unframe(item.data)
    c0 = oracle.unpack_polynomial(params, body)
    polynomial = np.zeros(params.poly_degree, dtype=object)
    polynomial[coefficient] = added
    changed = [
        (row + oracle.evaluate(polynomial % p, p)) % p
        for row, p in zip(c0, params.data_primes, strict=True)
    ]
    return forged(item, body=oracle.pack_polynomial(params, np.array(changed, dtype=object)))


def in_field(field: int, integer: int) -> int:
    """What an integer in a field adds to its coefficient."""
    _, width, guard = layout()
    return integer << (guard + width * field)


def opened(*uploads: bytes) -> NDArray[np.int64]:
    """The sum as clients read it, after the summing side's checks; a row for each field."""
    server = Summer(federation().params)
    for data in uploads:
        server.add(data, 1)
    total = qn.EncryptedUpdate.from_bytes(server.result(), federation().params)
    sums = federation().decryptor.decrypt_integers(total)
    assert isinstance(sums, np.ndarray)
    return sums.reshape(layout()[0], -1)


OTHERS = CLIENTS - 1


def test_the_library_refuses_integers_out_of_range() -> None:
    """Idea: ask the library to encrypt an integer above q_max, or far values as floats.
    Refused by: `Encryptor.encrypt_integers`, by name and place; floats are clipped to the bound."""
    party = federation()
    q_max = party.params.q_max
    for value in (q_max + 1, -q_max - 1, 2**31):
        with pytest.raises(qn.ParameterError, match=str(value)):
            party.seeded.encrypt_integers(np.array([0, value]))
    update = party.seeded.encrypt(np.array([1e30, -1e30]), clip=0.5)
    np.testing.assert_array_equal(party.decryptor.decrypt_integers(update), [q_max, -q_max])


def test_fields_of_the_compiled_module_are_not_checked() -> None:
    """Idea: hand the compiled module fields above 2 q_max, past every check in Python.
    Refused by: decryption alone, where a field's sum passes 2 q_max W; below that, the mean moves
    within the clip bound by more than the client's share."""
    party = federation()
    q_max = party.params.q_max

    def upload(field: int) -> bytes:
        fields = np.full(values(), q_max, dtype=np.uint16)
        fields[0] = field
        fresh = party.seeded.encrypt_integers(np.zeros(values(), np.int64))
        about = (party.params, party.keys.secret.key_id, fresh.layout, 1, bytes(32))
        frame = _core.encrypt_packed(
            party.params._core, party.keys.secret._core, None, about[-1], [(fields, 1.0)], None,
            update_prefix(*about),
        )  # fmt: skip
        assert not isinstance(frame, int)
        return qn.EncryptedUpdate(*about, frame).to_bytes()

    others = [honest() for _ in range(OTHERS)]
    largest = q_max + CLIENTS * q_max  # with zeros of the others: a sum of q_max W
    sums = opened(upload(largest), *others)
    assert sums[0, 0] == CLIENTS * q_max  # the mean is at the bound: all four clients' share
    assert np.count_nonzero(sums) == 1
    with pytest.raises(qn.DecryptionError):
        opened(upload(largest + 1), *others)


@pytest.mark.parametrize("sign", [1, -1])
def test_one_client_moves_a_mean_to_its_bound(sign: int) -> None:
    """Idea: one client of W adds W q_max to a coordinate, W times what its integers may hold.
    Refused by: decryption, from one unit beyond; up to the bound nothing tells it from a sum of
    honest updates, and SECURITY.md says so."""
    reach = CLIENTS * federation().params.q_max
    for field in range(layout()[0]):
        sums = opened(malformed(in_field(field, sign * reach)), *[honest()] * OTHERS)
        assert sums[field, 0] == sign * reach
        assert np.count_nonzero(sums) == 1
        with pytest.raises(qn.DecryptionError):
            opened(malformed(in_field(field, sign * (reach + 1))), *[honest()] * OTHERS)


def test_what_others_sent_leaves_less_room() -> None:
    """Idea: push a mean out of its bound where the other clients are near it already.
    Refused by: decryption: the range is the sum's, and the others' integers count towards it."""
    q_max = federation().params.q_max
    near = [honest(q_max - 1) for _ in range(OTHERS)]
    room = CLIENTS * q_max - OTHERS * (q_max - 1)
    assert opened(malformed(in_field(0, room)), *near)[0, 0] == CLIENTS * q_max
    with pytest.raises(qn.DecryptionError):
        opened(malformed(in_field(0, room + 1)), *near)


def test_a_carry_into_the_neighbour_is_a_shift_of_the_neighbour() -> None:
    """Idea: an integer of 2^F, which wraps from its field into the next, or from the last modulo Q.
    Refused by: decryption, unless every field's sum is in range again: then values have moved as
    the client could have moved each in its own right, and no further."""
    fields, width, _ = layout()
    sums = opened(malformed(in_field(0, 2**width)), *[honest()] * OTHERS)
    assert sums[0, 0] == 0
    assert sums[1, 0] == 1
    assert np.count_nonzero(sums) == 1
    q_max = federation().params.q_max
    far = opened(malformed(in_field(0, 8 * CLIENTS * q_max)), *[honest()] * OTHERS)
    assert far[0, 0] == 8 * CLIENTS * q_max - 4 * 2**width  # wrapped four times: in range
    assert far[1, 0] == 4
    assert np.abs(far).max() <= CLIENTS * q_max
    # Above the last field lies the modulus: 2^48 is 2^14 - 1 modulo Q, 64 units of field 0.
    (prime,) = federation().params.data_primes
    _, _, guard = layout()
    above = opened(malformed(in_field(fields - 1, 2**width)), *[honest()] * OTHERS)
    assert above[0, 0] == round((in_field(fields - 1, 2**width) - prime) / 2**guard) == 64
    assert np.count_nonzero(above) == 1
    with pytest.raises(qn.DecryptionError):
        opened(malformed(in_field(fields - 1, 2**width // 2)), *[honest()] * OTHERS)


def test_noise_of_ones_own_size() -> None:
    """Idea: more noise than an encryption has, so that rounding gives a neighbouring sum.
    Refused by: decryption, which bounds the noise of a sum by w B; noise within it rounds off."""
    for added in (1, -1, 20, -20):
        assert not opened(malformed(added), *[honest()] * OTHERS).any()
    _, _, guard = layout()
    for added in (2 ** (guard - 1), -(2 ** (guard - 1))):  # half a unit: far beyond 4 B = 84
        with pytest.raises(qn.DecryptionError):
            opened(malformed(added), *[honest()] * OTHERS)


def test_a_spoiled_sum_is_spoiled_for_all() -> None:
    """Idea: one malformed upload, so that nobody learns the round's mean.
    Refused by: nothing: no sum is opened and the model stays as it was. With median-of-groups only
    the client's own group is lost (`tests/fl/test_groups.py`)."""
    far = in_field(0, CLIENTS * federation().params.q_max + 1)
    with pytest.raises(qn.DecryptionError):
        opened(malformed(far), *[honest()] * OTHERS)
    assert not opened(*[honest()] * CLIENTS).any()


def test_a_weight_of_ones_own_choice() -> None:
    """Idea: an upload that is no fresh one and claims a weight, to count for several clients.
    Refused by: `Summer.add`: uploads weigh 1 and are seeded; the server says how each counts."""
    party = federation()
    total = qn.aggregate([qn.EncryptedUpdate.from_bytes(honest(), party.params)] * 2)
    with pytest.raises(MethodError, match="claims the weight 2"):
        Summer(party.params).add(total.to_bytes(), 1)
    one = dataclasses.replace(update_object(qn.aggregate([total])), kind=1)
    with pytest.raises(MethodError, match="not seeded"):
        Summer(party.params).add(forged(one, weight=1), 1)
