"""Frames whose body is sealed with a passphrase: Scrypt (RFC 7914), then AES-256-GCM.

The header with the key-derivation parameters is authenticated together with the body. Needs the
package ``cryptography``, which is imported only here; so channels.py finds X25519 here too.
"""

import hashlib
import secrets
from typing import Any

from quancrypt_native import _core, wire
from quancrypt_native.errors import ParameterError, PassphraseError, QuanCryptError, WireFormatError
from quancrypt_native.memory import Secret

_SCRYPT_N = 2**16  # with r = 8, p = 2: 64 MiB, OWASP's recommendation
_SCRYPT_R = 8
_SCRYPT_P = 2
_MAX_SCRYPT_N = 2**20  # 1 GiB: a stranger's file may not ask for more
_MAX_SCRYPT_P = 16
_RANDOM_PASSPHRASE_BYTES = 32  # with so many random bytes there is nothing to stretch
_TAG_BYTES = 16
_BLOCK_BYTES = 16
_NONCE_BYTES = 12
_MAX_SECRET_BYTES = 2**20


def _aes_gcm(key: Secret) -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        raise QuanCryptError(
            "key files need the package 'cryptography': pip install 'quancrypt-native[keys]'"
        ) from None
    return AESGCM(memoryview(key))


def seal_once(key: Secret, message: bytes, authenticated: bytes) -> bytes:
    """AES-256-GCM under a key that seals nothing else: the nonce is zero."""
    sealed: bytes = _aes_gcm(key).encrypt(bytes(_NONCE_BYTES), message, authenticated)
    return sealed


def _decrypt(
    key: bytes, nonce: bytes, sealed: bytes, authenticated: bytes
) -> _core.SecretBytes | None:
    """Undo AES-256-GCM into secret memory; None if the tag does not fit."""
    _aes_gcm(key)  # says what to install if the package is missing
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    text, tag = sealed[:-_TAG_BYTES], sealed[-_TAG_BYTES:]
    work = _core.SecretBytes(len(text) + _BLOCK_BYTES)  # update_into asks for a block more
    opener = Cipher(algorithms.AES(key), modes.GCM(nonce, tag)).decryptor()
    opener.authenticate_additional_data(authenticated)
    try:
        opener.update_into(text, memoryview(work))
        opener.finalize()
        return _core.SecretBytes.copy_of(memoryview(work)[: len(text)])
    except InvalidTag:
        return None
    finally:
        work.wipe()


def open_once(key: Secret, sealed: bytes, authenticated: bytes) -> bytes | None:
    """Undo :func:`seal_once`; None if the key, the message or ``authenticated`` is another."""
    cipher = _aes_gcm(key)
    from cryptography.exceptions import InvalidTag

    try:
        message: bytes = cipher.decrypt(bytes(_NONCE_BYTES), sealed, authenticated)
    except InvalidTag:
        return None
    return message


def x25519_public(secret: Secret) -> bytes:
    """The public key of RFC 7748 that belongs to 32 secret bytes."""
    public: bytes = _x25519(secret).public_key().public_bytes_raw()
    return public


def x25519_exchange(secret: Secret, public: bytes) -> bytes | None:
    """The shared secret of RFC 7748; None if ``public`` is a point of low order."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

    try:
        shared: bytes = _x25519(secret).exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        return None
    return shared


def _x25519(secret: Secret) -> Any:
    _aes_gcm(bytes(32))  # says what to install if the package is missing
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return X25519PrivateKey.from_private_bytes(memoryview(secret))


def _derive(passphrase: bytes, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(
        passphrase, salt=salt, n=n, r=r, p=p, maxmem=128 * r * (n + p + 2) + 2**20, dklen=32
    )


def _check_passphrase(passphrase: object) -> bytes:
    if not isinstance(passphrase, bytes | bytearray):
        raise ParameterError(f"passphrase is a {type(passphrase).__name__}; allowed: bytes")
    if not passphrase:
        raise ParameterError("passphrase is empty; allowed: at least one byte")
    return bytes(passphrase)


def _authenticated(kind: wire.Kind, header: dict[str, Any], body_bytes: int) -> bytes:
    # The frame's prefix as it stands in the file, body length included.
    return wire.prefix(kind, header, body_bytes)


def seal(
    kind: wire.Kind,
    header: dict[str, Any],
    secret: Secret,
    passphrase: bytes,
    *,
    random_passphrase: bool = False,
) -> bytes:
    """A frame with ``header`` in the clear and ``secret`` sealed.

    ``random_passphrase``: it is 32 random bytes or more, and is not stretched.
    """
    passphrase = _check_passphrase(passphrase)
    if random_passphrase and len(passphrase) < _RANDOM_PASSPHRASE_BYTES:
        raise ParameterError(
            f"a random passphrase of {len(passphrase)} bytes; allowed: "
            f"{_RANDOM_PASSPHRASE_BYTES} or more"
        )
    n, p = (2, 1) if random_passphrase else (_SCRYPT_N, _SCRYPT_P)
    salt = secrets.token_bytes(16)
    nonce = secrets.token_bytes(12)
    header = {
        **header,
        "kdf": "scrypt",
        "scrypt_n": n,
        "scrypt_r": _SCRYPT_R,
        "scrypt_p": p,
        "salt": salt.hex(),
        "cipher": "aes-256-gcm",
        "nonce": nonce.hex(),
    }
    authenticated = _authenticated(kind, header, len(secret) + _TAG_BYTES)
    key = _derive(passphrase, salt, n, _SCRYPT_R, p)
    try:
        body = _aes_gcm(key).encrypt(nonce, secret, authenticated)  # no copy that nobody wipes
    finally:
        _core.wipe_bytes(key)
    return wire.frame(kind, header, body)


def open_sealed(
    kind: wire.Kind,
    data: wire.BytesLike,
    passphrase: bytes,
    *,
    longest: int = _MAX_SECRET_BYTES,
) -> tuple[dict[str, Any], _core.SecretBytes]:
    """Header (without the sealing's own fields) and secret, of at most ``longest`` bytes.

    Raises
    ------
    PassphraseError
        If the passphrase is wrong or the sealed part was changed.
    """
    passphrase = _check_passphrase(passphrase)
    header, body = wire.parse(data, kind)
    authenticated = _authenticated(kind, header, len(body))
    fields = wire.HeaderReader(header)
    if fields.text("kdf") != "scrypt" or fields.text("cipher") != "aes-256-gcm":
        raise WireFormatError("the key file uses an unknown derivation or cipher")
    n = fields.number("scrypt_n", 2, _MAX_SCRYPT_N)
    if n & (n - 1):
        raise WireFormatError(f"header field 'scrypt_n' is {n}; allowed: a power of two")
    r = fields.number("scrypt_r", 8, 8)
    p = fields.number("scrypt_p", 1, _MAX_SCRYPT_P)
    salt = bytes.fromhex(fields.hexadecimal("salt", 32))
    nonce = bytes.fromhex(fields.hexadecimal("nonce", 24))
    if not _TAG_BYTES < len(body) <= longest:
        raise WireFormatError(f"the sealed part has {len(body)} bytes")
    key = _derive(passphrase, salt, n, r, p)
    try:
        secret = _decrypt(key, nonce, bytes(body), authenticated)
    finally:
        _core.wipe_bytes(key)
    if secret is None:
        raise PassphraseError(
            "the key file does not open: wrong passphrase, or its sealed part was changed"
        )
    own = {"kdf", "cipher", "scrypt_n", "scrypt_r", "scrypt_p", "salt", "nonce"}
    return {name: value for name, value in header.items() if name not in own}, secret
