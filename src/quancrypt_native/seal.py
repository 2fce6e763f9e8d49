"""Exchange with programs that use Microsoft SEAL 4: uncompressed SEAL streams.

For trusted use only: SEAL before 4.4.0 must not parse bytes of a stranger. What crosses a network
between strangers is :meth:`EncryptedUpdate.to_bytes`, which this package parses itself.
"""

import struct
from collections.abc import Sequence

from quancrypt_native import _core, wire
from quancrypt_native._validate import integer
from quancrypt_native.errors import CapacityError, KeyMismatchError, ParameterError
from quancrypt_native.keys import PublicKey, SecretKey
from quancrypt_native.parameters import Parameters, require_parameters
from quancrypt_native.update import EncryptedUpdate, update_header

_HEADER = struct.Struct("<HBBBBHQ")  # magic, own size, major, minor, compression, 0, stream size
_MAGIC = 0xA15E
# Parameter identity, NTT flag, three sizes, scale and correction factor stand before the residues,
# which have a header of their own.
_INNER_HEADER = _HEADER.size + 32 + 1 + 3 * 8 + 8 + 8


def version() -> str:
    """Version of the SEAL that is linked in."""
    return _core.seal_version()


def export_parameters(params: Parameters) -> bytes:
    """A stream for ``seal::EncryptionParameters::load``."""
    return _core.seal_export_parameters(require_parameters(params)._core)


def export_secret_key(key: SecretKey) -> bytes:
    """A stream for ``seal::SecretKey::load``. It holds the secret in the clear."""
    _require("key", key, SecretKey)
    return _core.seal_export_secret_key(key.params._core, key._core)


def export_public_key(key: PublicKey) -> bytes:
    """A stream for ``seal::PublicKey::load``."""
    _require("key", key, PublicKey)
    return _core.seal_export_public_key(key.params._core, key._core)


def export_ciphertexts(update: EncryptedUpdate) -> list[bytes]:
    """One stream for each ciphertext, for ``seal::Ciphertext::load``, both polynomials expanded.

    They are at the first data level in NTT form; their scale is 1 (packed) or ``2**scale_bits``.
    """
    _require("update", update, EncryptedUpdate)
    return _core.seal_export_ciphertexts(
        update.params._core, update._body, update._seed, update.ciphertexts
    )


def import_ciphertexts(
    blobs: Sequence[bytes], params: Parameters, *, like: EncryptedUpdate, weight: int
) -> EncryptedUpdate:
    """Take back what a SEAL program made of exported ciphertexts.

    Parameters
    ----------
    blobs
        Uncompressed streams of SEAL 4, as many as ``like`` has ciphertexts, in its order.
    params
        The parameters of ``like``.
    like
        An update with the same layout and key.
    weight
        Total weight of what was added.

    Raises
    ------
    WireFormatError
        If a stream is no two-polynomial ciphertext of these parameters, level and scale.
    CapacityError, KeyMismatchError, ParameterError
        If the weight is above ``max_weight``, or the arguments do not belong together.
    """
    require_parameters(params)
    _require("like", like, EncryptedUpdate)
    if like.params != params:
        raise KeyMismatchError("params are not the parameters of 'like'")
    weight = integer("weight", weight, 1, 2**63 - 1)
    if weight > params.max_weight:
        raise CapacityError(f"weight {weight} is above max_weight = {params.max_weight}")
    _require("blobs", blobs, Sequence)
    if len(blobs) != like.ciphertexts:
        raise ParameterError(f"there are {len(blobs)} blobs; expected {like.ciphertexts}")
    for index, blob in enumerate(blobs):
        _require(f"blob {index}", blob, bytes)
    body = _core.seal_import_ciphertexts(params._core, [_as_linked(blob) for blob in blobs])
    about = (params, like.key_id, like.layout, weight, None)
    frame = wire.frame(wire.Kind.UPDATE, update_header(*about), body.data)
    return EncryptedUpdate(*about, frame)


def _require(name: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        raise ParameterError(f"{name} is a {type(value).__name__}; allowed: {kind.__name__}")


def _as_linked(blob: bytes) -> bytes:
    """``blob`` under the version of the SEAL that is linked in.

    SEAL refuses streams of a newer minor version than its own, though nothing but that number
    differs: uncompressed ciphertexts of 4.1 and of 4.4 are laid out alike.
    """
    major, minor = (int(part) for part in version().split(".")[:2])
    result = bytearray(blob)
    for at in (0, _INNER_HEADER):
        if len(blob) < at + _HEADER.size:
            break
        magic, size, its_major, its_minor, *rest = _HEADER.unpack_from(blob, at)
        if (magic, size, its_major) == (_MAGIC, _HEADER.size, major) and its_minor > minor:
            _HEADER.pack_into(result, at, magic, size, major, minor, *rest)
    return bytes(result)
