"""Subkeys: HKDF as the RFC has it, over the secret and nothing else, and nothing left behind."""

from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from tests.native import oracle
from tests.native.conftest import Party
from tests.native.wire_objects import PASSPHRASE, cheap_scrypt

import quancrypt_native as qn
from quancrypt_native import _core
from quancrypt_native.hkdf import MAX_BYTES, hkdf_sha256

# RFC 5869, appendix A: the test cases with SHA-256 (secret, salt, info, output).
RFC_5869 = [
    (
        "0b" * 22,
        "000102030405060708090a0b0c",
        "f0f1f2f3f4f5f6f7f8f9",
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
    ),
    (
        bytes(range(0x50)).hex(),
        bytes(range(0x60, 0xB0)).hex(),
        bytes(range(0xB0, 0x100)).hex(),
        "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c6"
        "5e590e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
    ),
    (
        "0b" * 22,
        "",
        "",
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
    ),
]


@pytest.mark.parametrize("case", RFC_5869)
def test_the_vectors_of_rfc_5869(case: tuple[str, str, str, str]) -> None:
    secret, salt, info, expected = (bytes.fromhex(part) for part in case)
    assert hkdf_sha256(secret, salt, info, len(expected)) == expected
    assert hkdf_sha256(bytearray(secret), salt, info, len(expected)) == expected


@pytest.mark.parametrize("length", [1, 31, 32, 33, 64, 65, MAX_BYTES])
def test_a_subkey_is_hkdf_of_the_secrets_bytes(small: Party, length: int) -> None:
    """By another implementation, from coefficients that decryption found."""
    codes = oracle.secret_coefficients(small.keys.secret).astype(int) + 1
    bits = np.stack([codes & 1, codes >> 1], axis=1)
    packed = np.packbits(bits.astype(np.uint8), bitorder="little").tobytes()
    expected = HKDF(SHA256(), length, b"quancrypt subkey v1", b"a use").derive(packed)
    assert small.keys.secret.derive(b"a use", length) == expected


def test_holders_of_a_secret_get_the_same_subkey(small: Party, public: Party) -> None:
    secret = small.keys.secret
    with cheap_scrypt():
        sealed = secret.to_bytes(passphrase=PASSPHRASE)
    other = qn.SecretKey.from_bytes(sealed, small.params, passphrase=PASSPHRASE)
    subkey = secret.derive(b"a use")
    assert len(subkey) == 32
    assert other.derive(b"a use") == subkey == secret.derive(b"a use", 32)
    assert secret.derive(b"a use", 64)[:32] == subkey
    different = [
        secret.derive(b"another use"),
        secret.derive(b"a use\0"),
        public.keys.secret.derive(b"a use"),
        qn.keygen(small.params).secret.derive(b"a use"),
    ]
    assert len({subkey, *different}) == 5


class _Core:
    """Stands for the core's key, and keeps hold of what it hands out."""

    def __init__(self) -> None:
        self.given = _core.SecretBytes.copy_of(b"\x99" * 256)

    def save(self) -> _core.SecretBytes:
        return self.given


@pytest.mark.parametrize("fails", [False, True])
def test_the_packed_secret_is_wiped(
    small: Party, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    core: Any = _Core()
    key = qn.SecretKey(small.params, core, small.keys.key_id)
    if fails:

        def broken(secret: _core.SecretBytes, *rest: object) -> bytes:
            assert any(bytes(secret))
            raise MemoryError

        monkeypatch.setattr("quancrypt_native.hkdf.hkdf_sha256", broken)
        with pytest.raises(MemoryError):
            key.derive(b"a use")
    else:
        assert key.derive(b"a use") == hkdf_sha256(
            b"\x99" * 256, b"quancrypt subkey v1", b"a use", 32
        )
    assert bytes(core.given) == bytes(256)


@pytest.mark.parametrize(
    ("label", "length", "message"),
    [
        ("text", 32, "label is a str; allowed: bytes"),
        (b"", 32, "label is empty; allowed: at least one byte"),
        (b"a use", 32.0, "length is 32.0; allowed: an integer from 1 to 8160"),
        (b"a use", True, "length is True; allowed: an integer from 1 to 8160"),
        (b"a use", 0, "length is 0; allowed: 1 to 8160"),
        (b"a use", 8161, "length is 8161; allowed: 1 to 8160"),
    ],
)
def test_wrong_arguments(small: Party, label: Any, length: Any, message: str) -> None:
    with pytest.raises(qn.ParameterError, match=f"^{message}$"):
        small.keys.secret.derive(label, length)
