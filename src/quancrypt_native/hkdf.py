"""HKDF with SHA-256 (RFC 5869): keys from a secret that is itself too long to be one."""

import hashlib
import hmac

from quancrypt_native import _core
from quancrypt_native.memory import Secret

HASH_BYTES = hashlib.sha256().digest_size
MAX_BYTES = 255 * HASH_BYTES
"""The longest output that the construction allows."""


def hkdf_sha256(secret: Secret, salt: bytes, info: bytes, length: int) -> bytes:
    """``length`` bytes of key material, at most :data:`MAX_BYTES`, as bytes, which nobody wipes.

    Parameters
    ----------
    secret
        Input keying material; no copy of it is made.
    salt
        Public; names the use at large.
    info
        Public; two values of it give independent outputs.
    """
    return bytes(hkdf_secret(secret, salt, info, length))


def hkdf_secret(secret: Secret, salt: bytes, info: bytes, length: int) -> _core.SecretBytes:
    """:func:`hkdf_sha256` into secret memory. What is made on the way is wiped."""
    out = _core.SecretBytes(length)
    key = hmac.digest(salt or bytes(HASH_BYTES), secret, "sha256")
    block = b""
    with memoryview(out) as view:
        for at in range(0, length, HASH_BYTES):
            message = block + info + bytes([at // HASH_BYTES + 1])
            _core.wipe_bytes(block)
            block = hmac.digest(key, message, "sha256")
            _core.wipe_bytes(message)
            view[at : at + HASH_BYTES] = memoryview(block)[: length - at]
    _core.wipe_bytes(block)
    _core.wipe_bytes(key)
    return out
