"""Objects of other keys and other parameters."""

from __future__ import annotations

import numpy as np
import pytest
from tests.native.conftest import Party, packed
from tests.native.wire_objects import PASSPHRASE, WireObject, cheap_scrypt

import quancrypt_native as qn
from attacks.conftest import forged


@pytest.fixture(scope="module")
def stranger(victim: Party) -> Party:
    """The same parameters, another key."""
    return Party(victim.params, qn.keygen(victim.params))


def test_other_parameters(victim: Party, objects: dict[str, WireObject]) -> None:
    """Idea: an update of weaker or merely other parameters in a sum.
    Refused by: the fingerprint of the parameters, in updates, public keys and key files."""
    other = packed(bits=4, max_weight=4, max_poly_degree=1024)
    update = other.encryptor.encrypt(np.ones(3), clip=1.0).to_bytes()
    with pytest.raises(qn.FingerprintError):
        qn.EncryptedUpdate.from_bytes(update, victim.params)
    with pytest.raises(qn.FingerprintError):
        qn.PublicKey.from_bytes(other.keys.public.to_bytes(), victim.params)
    with cheap_scrypt():
        sealed = other.keys.secret.to_bytes(passphrase=PASSPHRASE)
    with pytest.raises(qn.FingerprintError):
        qn.SecretKey.from_bytes(sealed, victim.params, passphrase=PASSPHRASE)


def test_another_key_in_a_sum(
    victim: Party, stranger: Party, objects: dict[str, WireObject]
) -> None:
    """Idea: an update under one's own key, which makes the sum unreadable for everybody.
    Refused by: the aggregator: the key's fingerprint is that of the first update."""
    item = objects["seeded update"]
    total = qn.Aggregator(victim.params)
    total.add(item.data)
    update = stranger.encryptor.encrypt(
        {"a": np.ones((2, 3)), "b": np.zeros(4)}, clip={"a": 1, "b": 2}
    )
    with pytest.raises(qn.KeyMismatchError):
        total.add(update.to_bytes())
    assert total.count == 1


def test_a_borrowed_fingerprint(
    victim: Party, stranger: Party, objects: dict[str, WireObject]
) -> None:
    """Idea: an update under one's own key that says it is of the victim's.
    Refused by: decryption, where it is noise. A server cannot tell; signatures name the sender."""
    update = stranger.encryptor.encrypt(
        {"a": np.ones((2, 3)), "b": np.zeros(4)}, clip={"a": 1, "b": 2}
    )
    item = WireObject(update.to_bytes(), 1, objects["sum"].read)
    borrowed = item.read(forged(item, key=victim.keys.key_id))
    total = qn.aggregate([objects["seeded update"].read(objects["seeded update"].data), borrowed])
    with pytest.raises(qn.DecryptionError):
        victim.decryptor.decrypt_sum(total)


@pytest.mark.parametrize("value", ["", "0" * 31, "0" * 33, "Z" * 32, "A" * 32, None, 7, ["0" * 32]])
def test_fingerprints_that_are_none(objects: dict[str, WireObject], value: object) -> None:
    """Idea: a fingerprint of another length, in capitals, of other letters, or no text at all.
    Refused by: `HeaderReader.hexadecimal`: exactly 32 lower-case digits."""
    for field in ("params", "key"):
        with pytest.raises(qn.WireFormatError, match=f"'{field}'"):
            objects["sum"].read(forged(objects["sum"], **{field: value}))


def test_parameters_that_make_sums_wrong(objects: dict[str, WireObject]) -> None:
    """Idea: parameters whose fields overflow, or that understate the noise, for others to use.
    Refused by: `Parameters.from_bytes`, which proves exactness and the security level anew."""
    item = objects["parameters"]
    for fields in (
        {"max_weight": 65536},
        {"fields": 2},
        {"guard_bits": 2},
        {"noise_bound": 1},
        {"field_bits": 1},
        {"security": 256},
        {"poly_degree": 2048},
        {"coeff_modulus": [4294967291]},
        {"coeff_modulus": [6]},
        {"coeff_modulus": []},
    ):
        with pytest.raises(qn.WireFormatError):
            item.read(forged(item, **fields))
