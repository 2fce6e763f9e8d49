"""Damaged bytes: always one of our errors, never a crash and never a wrong value.

First with the checksum as it is (accidents): every change is found. Then with the checksum put
right (attackers): an error, or an object that is well-formed in every respect.
"""

import struct
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.native import oracle, standard
from tests.native.conftest import Party, packed
from tests.native.wire_objects import OBJECTS, WireObject, update_object, wire_objects

import quancrypt_native as qn
from quancrypt_native import _core

MASKS = (0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xFF, 0x55, 0x2A)


@pytest.fixture(scope="module")
def objects(small: Party, small_slots: Party) -> dict[str, WireObject]:
    return wire_objects(small, small_slots)


@pytest.fixture(scope="module")
def large() -> WireObject:
    """A sum of a million values, 6.8 MB."""
    party = packed(bits=8, max_weight=16)
    rng = np.random.default_rng(1)
    update = party.encryptor.encrypt_integers(rng.integers(-127, 128, 1_000_000))
    return update_object(qn.aggregate([update], weights=[3]))


def flipped(data: bytes, at: int, mask: int) -> bytearray:
    changed = bytearray(data)
    changed[at] ^= mask
    return changed


def with_checksum(data: bytes | bytearray) -> bytes:
    """``data`` with the checksum of its other bytes at the end."""
    head = bytes(data[:-4])
    return head + struct.pack("<I", _core.crc32c(head))


def test_the_checksum_is_crc32c(objects: dict[str, WireObject]) -> None:
    """RFC 3720, appendix B.4, and the oracle's bitwise definition."""
    for data, crc in (
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ):
        assert _core.crc32c(data) == oracle.crc32c(data) == crc
    for item in objects.values():
        assert struct.pack("<I", oracle.crc32c(item.data[:-4])) == item.data[-4:]
        assert with_checksum(item.data) == item.data


@pytest.mark.parametrize("name", OBJECTS)
def test_every_byte_flipped(objects: dict[str, WireObject], name: str) -> None:
    item = objects[name]
    item.read(item.data)
    for at in range(len(item.data)):
        for mask in MASKS:
            with pytest.raises(qn.WireFormatError):
                item.read(flipped(item.data, at, mask))


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTS)
def test_every_byte_replaced_by_every_other(objects: dict[str, WireObject], name: str) -> None:
    item = objects[name]
    for at in range(len(item.data)):
        for mask in range(1, 256):
            with pytest.raises(qn.WireFormatError):
                item.read(flipped(item.data, at, mask))


@pytest.mark.parametrize("name", OBJECTS)
def test_every_length_truncated(objects: dict[str, WireObject], name: str) -> None:
    item = objects[name]
    for length in range(len(item.data)):
        with pytest.raises(qn.WireFormatError):
            item.read(item.data[:length])
        if length > 24:  # also if what is left carries a right checksum
            with pytest.raises(qn.QuanCryptError):
                item.read(with_checksum(item.data[:length]))


@pytest.mark.parametrize("name", OBJECTS)
def test_anything_appended_or_inserted(objects: dict[str, WireObject], name: str) -> None:
    item = objects[name]
    rng = np.random.default_rng(1)
    for size in (1, 2, 3, 4, 7, 8, 100, len(item.data)):
        for extra in (bytes(size), rng.bytes(size), item.data[-size:]):
            for changed in (item.data + extra, extra + item.data):
                with pytest.raises(qn.WireFormatError):
                    item.read(changed)
                with pytest.raises(qn.WireFormatError):
                    item.read(with_checksum(changed))
    for at in range(0, len(item.data), 7):
        with pytest.raises(qn.WireFormatError):
            item.read(item.data[:at] + b"\0" + item.data[at:])
        with pytest.raises(qn.WireFormatError):
            item.read(item.data[:at] + item.data[at + 1 :])


def test_samples_of_a_large_one(large: WireObject) -> None:
    rng = np.random.default_rng(2)
    size = len(large.data)
    assert size > 3_000_000
    for at in (0, 8, 10, 12, 20, 100, size - 5, size - 4, size - 1, *rng.integers(0, size, 300)):
        with pytest.raises(qn.WireFormatError):
            large.read(flipped(large.data, int(at), int(rng.choice(MASKS))))
    for length in (0, 23, 24, size // 2, size - 4, size - 1, *rng.integers(0, size, 100)):
        with pytest.raises(qn.WireFormatError):
            large.read(large.data[: int(length)])
    with pytest.raises(qn.WireFormatError):
        large.read(large.data + b"\0")
    for block in (16, 4096, 1_000_000):  # zeroed, repeated and swapped blocks
        at, other = 1_000_000, 2_000_000
        for new in (bytes(block), large.data[other : other + block]):
            with pytest.raises(qn.WireFormatError):
                large.read(large.data[:at] + new + large.data[at + block :])


# --- with the checksum put right ---


def survives(item: WireObject, changed: bytes, party: Party) -> object | None:
    """The object that was read, used in every way; None if an error of ours came first."""
    try:
        found = item.read(changed)
    except qn.QuanCryptError:
        return None
    repr(found)
    if isinstance(found, qn.Parameters):
        standard.check(found)
        assert qn.Parameters.from_bytes(found.to_bytes()) == found
        str(found.explain())
        return found
    if isinstance(found, qn.PublicKey):
        assert qn.PublicKey.from_bytes(found.to_bytes(), party.params) == found
        return found
    assert isinstance(found, qn.EncryptedUpdate)
    again = qn.EncryptedUpdate.from_bytes(found.to_bytes(), party.params)
    assert again.layout == found.layout
    assert 1 <= found.weight <= party.params.max_weight
    total = qn.Aggregator(party.params)
    total.add(found)
    assert total.result().shapes == found.shapes
    for operation in ("decrypt_integers", "decrypt_mean", "decrypt_sum"):
        try:
            result = getattr(party.decryptor, operation)(found)
        except qn.QuanCryptError:
            continue
        if isinstance(result, dict):
            assert {name: array.shape for name, array in result.items()} == dict(found.shapes)
        else:
            assert {"": result.shape} == dict(found.shapes)
    return found


def positions(item: WireObject) -> tuple[range, range]:
    """Of the prefix and header, and of the body."""
    header_length = struct.unpack_from("<Q", item.data, 12)[0]
    return range(20 + header_length), range(20 + header_length, len(item.data) - 4)


@pytest.mark.parametrize("name", [n for n in OBJECTS if n != "secret key"])
def test_headers_changed_by_an_attacker(
    objects: dict[str, WireObject], small: Party, small_slots: Party, name: str
) -> None:
    """Every bit of prefix and header."""
    item = objects[name]
    party = small_slots if name == "slots" else small
    head, _ = positions(item)
    read = [
        survives(item, with_checksum(flipped(item.data, at, mask)), party)
        for at in head
        for mask in MASKS
    ]
    accepted = [found for found in read if found is not None]
    assert len(accepted) < 0.3 * len(read)
    if "parameters" in name:
        # A number changed into another admissible one; never the same set.
        original = item.read(item.data)
        assert all(found != original for found in accepted)


def decrypts_to(update: qn.EncryptedUpdate, party: Party) -> object:
    return party.decryptor.decrypt_integers(update)


@pytest.mark.parametrize("name", ["seeded update", "sum", "integers"])
def test_bodies_changed_by_an_attacker_do_not_decrypt(
    objects: dict[str, WireObject], small: Party, name: str
) -> None:
    """Every bit of a packed body: a residue out of range, or noise that decryption notices."""
    item = objects[name]
    _, body = positions(item)
    errors = {qn.WireFormatError: 0, qn.DecryptionError: 0}
    for at in body:
        for mask in MASKS[:8]:
            with pytest.raises(tuple(errors)) as caught:
                decrypts_to(item.read(with_checksum(flipped(item.data, at, mask))), small)
            errors[caught.type] += 1
    assert errors[qn.DecryptionError] > 0


def test_a_changed_seed_does_not_decrypt(objects: dict[str, WireObject], small: Party) -> None:
    item = objects["seeded update"]
    at = item.data.index(b'"seed":"') + len(b'"seed":"')
    for digit in range(64):
        changed = bytearray(item.data)
        changed[at + digit] = ord("0") if changed[at + digit] != ord("0") else ord("1")
        with pytest.raises(qn.DecryptionError):
            decrypts_to(item.read(with_checksum(changed)), small)


def test_slot_bodies_changed_by_an_attacker(
    objects: dict[str, WireObject], small_slots: Party
) -> None:
    """Slots carry no redundancy: an error or an object of the same shape."""
    item = objects["slots"]
    _, body = positions(item)
    read = [
        survives(item, with_checksum(flipped(item.data, at, 1 << at % 8)), small_slots)
        for at in body
    ]
    assert any(read)


def test_public_keys_changed_by_an_attacker(objects: dict[str, WireObject], small: Party) -> None:
    """Every bit of the body, and of the seed: refused, or another key with another identity."""
    item = objects["public key"]
    _, body = positions(item)
    seed = item.data.index(b'"seed":"') + len(b'"seed":"')
    found = 0
    for at in [*range(seed, seed + 64), *body]:
        key = survives(item, with_checksum(flipped(item.data, at, 1 << at % 8)), small)
        if key is not None:
            assert isinstance(key, qn.PublicKey)
            assert key.key_id != small.keys.key_id
            found += 1
    assert found > 1000


def test_key_files_changed_by_an_attacker(objects: dict[str, WireObject]) -> None:
    """Header and body are authenticated: not one bit can be changed."""
    item = objects["secret key"]
    seen = set()
    for at in range(len(item.data) - 4):
        for mask in MASKS:
            changed = flipped(item.data, at, mask)
            with pytest.raises(qn.QuanCryptError) as caught:
                item.read(with_checksum(changed))
            seen.add(caught.type)
    assert seen == {qn.WireFormatError, qn.PassphraseError}


def test_public_encryption_with_a_changed_key_gives_no_value(public: Party) -> None:
    """What was encrypted with a changed key belongs to another key, or does not decrypt."""
    data = public.keys.public.to_bytes()
    changed = qn.PublicKey.from_bytes(
        with_checksum(flipped(data, len(data) - 100, 1)), public.params
    )
    update = qn.Encryptor(public.params, changed).encrypt_integers(np.zeros(10, np.int8))
    with pytest.raises(qn.KeyMismatchError):
        public.decryptor.decrypt_integers(update)
    header, body = oracle.unframe(update.to_bytes())
    header["key"] = public.keys.key_id
    del header["body_bytes"]
    pretended = qn.EncryptedUpdate.from_bytes(oracle.frame(1, header, body), public.params)
    with pytest.raises(qn.DecryptionError):
        public.decryptor.decrypt_integers(pretended)


# --- arbitrary bytes ---


def readers(objects: dict[str, WireObject]) -> Iterator[WireObject]:
    for name in ("seeded update", "slots", "parameters", "public key", "secret key"):
        yield objects[name]


@given(data=st.binary(max_size=300))
@example(b"")
@example(b"QUANCRPT")
@settings(max_examples=300, deadline=None)
def test_arbitrary_bytes(objects: dict[str, WireObject], data: bytes) -> None:
    for item in readers(objects):
        for start in (b"", item.data[:8], item.data[:12], item.data[:20]):
            with pytest.raises(qn.WireFormatError):
                item.read(start + data)
            if len(start + data) >= 24:
                with pytest.raises(qn.QuanCryptError):
                    item.read(with_checksum(start + data))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(data=st.data())
@settings(max_examples=400, deadline=None)
def test_arbitrary_header_values(
    objects: dict[str, WireObject], small: Party, small_slots: Party, data: st.DataObject
) -> None:
    """One field of a right header replaced by any JSON value."""
    name = data.draw(st.sampled_from([n for n in OBJECTS if n != "secret key"]))
    item = objects[name]
    header, body = oracle.unframe(item.data)
    field = data.draw(st.sampled_from(sorted(header)))
    header[field] = data.draw(JSON)
    stated = header.pop("body_bytes")
    changed = oracle.frame(item.kind, header, body, body_bytes=stated)
    survives(item, changed, small_slots if name == "slots" else small)


@given(
    tensors=st.lists(
        st.tuples(
            st.text(max_size=3) | st.integers(),
            st.lists(st.integers(-1, 2**50), max_size=4) | st.none(),
            st.floats() | st.integers() | st.none(),
        ),
        max_size=4,
    ),
    single=st.booleans(),
    whole=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_arbitrary_layouts(
    objects: dict[str, WireObject], small: Party, tensors: list[tuple], single: bool, whole: bool
) -> None:
    item = objects["sum"]
    header, body = oracle.unframe(item.data)
    header |= {"tensors": [list(t) for t in tensors], "single": single, "integers": whole}
    del header["body_bytes"]
    survives(item, oracle.frame(1, header, body), small)
