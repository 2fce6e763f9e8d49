"""HKDF with SHA-256 (RFC 5869): keys from a secret that is itself too long to be one."""

import hashlib
import hmac

HASH_BYTES = hashlib.sha256().digest_size
MAX_BYTES = 255 * HASH_BYTES
"""The longest output that the construction allows."""


def hkdf_sha256(secret: bytes | bytearray, salt: bytes, info: bytes, length: int) -> bytes:
    """``length`` bytes of key material, at most :data:`MAX_BYTES`.

    Parameters
    ----------
    secret
        Input keying material; no copy of it is made.
    salt
        Public; names the use at large.
    info
        Public; two values of it give independent outputs.
    """
    key = hmac.digest(salt or bytes(HASH_BYTES), secret, "sha256")
    out = bytearray()
    block = b""
    for counter in range(1, -(-length // HASH_BYTES) + 1):
        block = hmac.digest(key, block + info + bytes([counter]), "sha256")
        out += block
    return bytes(out[:length])
