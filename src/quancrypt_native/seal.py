"""Exchange with programs that use Microsoft SEAL 4: uncompressed SEAL streams.

For trusted use only: SEAL before 4.4.0 must not parse bytes of a stranger. What crosses a network
between strangers is :meth:`EncryptedUpdate.to_bytes`, which this package parses itself.
"""

from collections.abc import Sequence

from quancrypt_native import _core
from quancrypt_native._validate import integer
from quancrypt_native.errors import CapacityError, KeyMismatchError, ParameterError
from quancrypt_native.keys import PublicKey, SecretKey
from quancrypt_native.parameters import Parameters
from quancrypt_native.update import EncryptedUpdate


def version() -> str:
    """Version of the SEAL that is linked in."""
    return _core.seal_version()


def export_parameters(params: Parameters) -> bytes:
    """A stream for ``seal::EncryptionParameters::load``."""
    return _core.seal_export_parameters(params._core)


def export_secret_key(key: SecretKey) -> bytes:
    """A stream for ``seal::SecretKey::load``. It holds the secret in the clear."""
    return _core.seal_export_secret_key(key.params._core, key._core)


def export_public_key(key: PublicKey) -> bytes:
    """A stream for ``seal::PublicKey::load``."""
    return _core.seal_export_public_key(key.params._core, key._core)


def export_ciphertexts(update: EncryptedUpdate) -> list[bytes]:
    """One stream for each ciphertext, for ``seal::Ciphertext::load``, both polynomials expanded.

    They are at the first data level in NTT form; their scale is 1 (packed) or ``2**scale_bits``.
    """
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
        SEAL streams, as many as ``like`` has ciphertexts, in its order.
    params
        The parameters of ``like``.
    like
        An update with the same layout and key.
    weight
        Total weight of what was added.
    """
    if like.params != params:
        raise KeyMismatchError("params are not the parameters of 'like'")
    weight = integer("weight", weight, 1, 2**63 - 1)
    if weight > params.max_weight:
        raise CapacityError(f"weight {weight} is above max_weight = {params.max_weight}")
    if len(blobs) != like.ciphertexts:
        raise ParameterError(f"there are {len(blobs)} blobs; expected {like.ciphertexts}")
    for index, blob in enumerate(blobs):
        if not isinstance(blob, bytes):
            raise ParameterError(f"blob {index} is a {type(blob).__name__}; allowed: bytes")
    body = _core.seal_import_ciphertexts(params._core, list(blobs))
    return EncryptedUpdate(params, like.key_id, like.layout, weight, None, body)
