"""Channels between parties: only the recipient reads, only the sender could have written."""

import pickle
import secrets
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from tests.native.threshold_parties import Group, ceremony_of, parameters

import quancrypt_native as qn
from quancrypt_native.channels import ChannelKey
from quancrypt_native.threshold import Party

CONTEXT = b"deal of party 0 for party 1"


@pytest.mark.parametrize("size", [0, 1, 100_000])
def test_what_is_sealed_opens(size: int) -> None:
    one, two = ChannelKey(), ChannelKey()
    message = secrets.token_bytes(size)
    sealed = one.seal(two.public, message, context=CONTEXT)
    assert two.open(one.public, sealed, context=CONTEXT) == message
    assert two.open(one.public, bytearray(sealed), context=CONTEXT) == message
    assert len(sealed) == 32 + size + 16
    assert size < 32 or message not in sealed
    assert sealed != one.seal(two.public, message, context=CONTEXT)


def test_against_the_construction_as_described() -> None:
    """Both exchanges, HKDF over them, AES-256-GCM with nonce 0; by ``cryptography`` alone."""
    one = ChannelKey()
    own = X25519PrivateKey.generate()
    public = own.public_key().public_bytes_raw()
    sealed = one.seal(public, b"message", context=CONTEXT)
    once, body = sealed[:32], sealed[32:]
    shared = b"".join(
        own.exchange(X25519PublicKey.from_public_bytes(key)) for key in (once, one.public)
    )
    info = once + one.public + public + CONTEXT
    key = HKDF(SHA256(), 32, b"quancrypt channel v1", info).derive(shared)
    assert AESGCM(key).decrypt(bytes(12), body, info) == b"message"


def test_only_the_recipient_sender_and_context_fit() -> None:
    one, two, three = ChannelKey(), ChannelKey(), ChannelKey()
    sealed = one.seal(two.public, b"message", context=CONTEXT)
    for reader, sender, context in (
        (three, one, CONTEXT), (one, one, CONTEXT), (two, three, CONTEXT), (two, one, b"other"),
    ):  # fmt: skip
        with pytest.raises(qn.KeyMismatchError, match="does not open"):
            reader.open(sender.public, sealed, context=context)


def test_every_changed_bit_is_found() -> None:
    one, two = ChannelKey(), ChannelKey()
    sealed = one.seal(two.public, b"message", context=CONTEXT)
    for bit in range(0, 8 * len(sealed), 5):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        # X25519 ignores the top bit of a public key, which is authenticated all the same.
        with pytest.raises(qn.KeyMismatchError):
            two.open(one.public, changed, context=CONTEXT)
    for length in (0, 31, 32, 40, len(sealed) - 1):
        with pytest.raises(qn.KeyMismatchError):
            two.open(one.public, sealed[:length], context=CONTEXT)


def test_points_of_low_order_are_refused() -> None:
    one, two = ChannelKey(), ChannelKey()
    with pytest.raises(qn.ParameterError, match="no usable X25519 key"):
        one.seal(bytes(32), b"message", context=CONTEXT)
    sealed = one.seal(two.public, b"message", context=CONTEXT)
    with pytest.raises(qn.KeyMismatchError):
        two.open(bytes(32), sealed, context=CONTEXT)
    with pytest.raises(qn.KeyMismatchError):
        two.open(one.public, bytes(32) + sealed[32:], context=CONTEXT)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"recipient": b"x"}, "recipient is 1 bytes; allowed: 32 bytes"),
        ({"recipient": "x"}, "recipient is a str"),
        ({"message": "x"}, "message is a str; allowed: bytes"),
        ({"context": "x"}, "context is a str; allowed: bytes"),
        ({"context": bytes(65537)}, "context is 65537 bytes; allowed: up to 65536"),
    ],
)
def test_arguments(arguments: dict[str, Any], message: str) -> None:
    good = {"recipient": ChannelKey().public, "message": b"", "context": b""}
    with pytest.raises(qn.ParameterError, match=message):
        ChannelKey().seal(**{**good, **arguments})


def test_a_key_file() -> None:
    key, passphrase = ChannelKey(), secrets.token_bytes(32)
    data = key.to_bytes(passphrase=passphrase, random_passphrase=True)
    again = ChannelKey.from_bytes(data, passphrase=passphrase)
    assert again.public == key.public
    assert bytes(key._secret) not in data
    other = ChannelKey()
    sealed = other.seal(key.public, b"message", context=b"")
    assert again.open(other.public, sealed, context=b"") == b"message"
    with pytest.raises(qn.PassphraseError):
        ChannelKey.from_bytes(data, passphrase=b"wrong")
    assert "secret withheld" in repr(key)
    with pytest.raises(qn.SecretKeyPickleError):
        pickle.dumps(key)


def test_a_ceremony_over_channels() -> None:
    """Deals as they travel through a server that reads everything."""
    ceremony = ceremony_of(parameters(3), 2)
    parties = [Party(ceremony, i) for i in range(3)]
    keys = [ChannelKey() for _ in parties]

    def context(sender: int, recipient: int) -> bytes:
        return f"deal {ceremony.fingerprint} {sender} {recipient}".encode()

    for sender in parties:
        for to, deal in sender.deal().items():
            if to == sender.index:
                continue
            about = context(sender.index, to)
            sealed = keys[sender.index].seal(keys[to].public, deal, context=about)
            opened = keys[to].open(keys[sender.index].public, sealed, context=about)
            parties[to].receive(sender.index, opened)
    public = ceremony.public_key({party.index: party.public_share() for party in parties})
    group = Group(ceremony, parties, public)
    q = np.arange(-60, 60)
    total = group.total(q)
    np.testing.assert_array_equal(ceremony.decrypt_integers(total, group.parts(total, [1, 2])), q)


def test_subkeys_are_hkdf_of_the_secret() -> None:
    """The same for the same key and label, also after it was stored; others for others."""
    one, two = ChannelKey(), ChannelKey()
    expected = HKDF(SHA256(), 32, b"quancrypt channel subkey v1", b"label").derive(
        bytes(one._secret)
    )
    assert one.derive(b"label") == expected
    phrase = secrets.token_bytes(32)
    stored = one.to_bytes(passphrase=phrase, random_passphrase=True)
    assert ChannelKey.from_bytes(stored, passphrase=phrase).derive(b"label") == expected
    assert len({expected, one.derive(b"other"), two.derive(b"label"), bytes(one._secret)}) == 4


@pytest.mark.parametrize(
    ("label", "says"),
    [("text", "label is a str; allowed: bytes"), (b"", "label is empty; allowed: at least one")],
)
def test_labels_that_are_none(label: Any, says: str) -> None:
    with pytest.raises(qn.ParameterError, match=says):
        ChannelKey().derive(label)
