"""Training's only door to ``quancrypt_native``: what clients and the summing side hold of it.

:class:`Protection` is made once per run by whoever provides keys. It hands a :class:`Protector`
with the secret key to each client and a :class:`Summer` with public parameters alone to the server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

import quancrypt_native as qn
from quancrypt_fl.errors import MethodError
from quancrypt_fl.method.rounds import Sealed, Tensors
from quancrypt_native import QuanCryptError

__all__ = [
    "SECRET_TYPES",
    "Protection",
    "Protector",
    "QuanCryptError",
    "Summer",
    "native_environment",
]

SECRET_TYPES: tuple[type, ...] = (qn.SecretKey, qn.KeyPair, qn.Encryptor, qn.Decryptor)
"""Objects that hold a secret key or can use one. The summing side must not reach any."""


class Protector:
    """A client's side: encrypts its own updates and opens sums.

    Parameters
    ----------
    params
        Encryption parameters.
    secret
        The secret key that the clients share.
    rounding
        ``"nearest"`` or ``"stochastic"``.
    dither
        For stochastic rounding: the generator of round ``t``.
    """

    def __init__(
        self,
        params: qn.Parameters,
        secret: qn.SecretKey,
        rounding: str = "nearest",
        dither: Callable[[int], np.random.Generator] | None = None,
    ) -> None:
        self._params = params
        self._encryptor = qn.Encryptor(params, secret)
        self._decryptor = qn.Decryptor(params, secret)
        self._rounding = rounding
        self._dither = dither

    def protect(self, tensors: Tensors, clips: Mapping[str, float], t: int) -> Sealed:
        """Clip, quantize, pack, encrypt and serialize. Its randomness is the system's, always."""
        rng = self._dither(t) if self._rounding == "stochastic" and self._dither else None
        update = self._encryptor.encrypt(
            dict(tensors), clip=dict(clips), rounding=self._rounding, rng=rng
        )
        return Sealed(update.to_bytes(), update.ciphertexts)

    def unprotect(self, data: bytes) -> tuple[dict[str, NDArray[np.float32]], int]:
        """Parse and decrypt a sum: weighted means as float32, and the total weight."""
        total = qn.EncryptedUpdate.from_bytes(data, self._params)
        mean = self._decryptor.decrypt_mean(total)
        return cast("dict[str, NDArray[np.float32]]", mean), total.weight


class Summer:
    """The server's side: adds ciphertexts as they arrive, with public parameters alone."""

    def __init__(self, params: qn.Parameters) -> None:
        self._params = params
        self._sum: qn.Aggregator | None = None

    def add(self, data: bytes, weight: int) -> None:
        """Parse and check one upload and add it ``weight`` times.

        Raises
        ------
        MethodError
            If the upload is a sum or not seeded: how much a client counts is not the client's to
            say, and a ``c1`` of a stranger's choice asks the decryptors for their key
            (SECURITY.md, "Exact sums and published decryptions").
        """
        update = qn.EncryptedUpdate.parse(data, self._params)  # residues: checked by the sum
        if update.weight != 1:
            raise MethodError(f"an upload claims the weight {update.weight}; a fresh one has 1")
        if not update.seeded:
            raise MethodError("an upload is not seeded, as every fresh one under a secret key is")
        total = self._sum or qn.Aggregator(self._params)
        total.add(update, weight=weight)
        self._sum = total

    def result(self) -> bytes:
        """The encrypted sum since the last call, serialized."""
        if self._sum is None:
            raise MethodError("no client's update arrived: there is nothing to sum")
        total = self._sum.result()
        self._sum = None
        return total.to_bytes()


class Protection:
    """Parameters and a fresh key for one run.

    Parameters
    ----------
    bits
        Bits of a quantized value.
    max_weight
        Largest total weight of a round.
    security
        Security level in bits.
    values
        Values in an update, to choose ciphertexts of the right size.
    """

    def __init__(self, *, bits: int, max_weight: int, security: int, values: int) -> None:
        self._params = qn.Parameters.for_aggregation(
            bits=bits, max_weight=max_weight, security=security, key_mode="symmetric", values=values
        )
        self._secret = qn.keygen(self._params).secret

    def client(
        self,
        rounding: str = "nearest",
        dither: Callable[[int], np.random.Generator] | None = None,
    ) -> Protector:
        """What one client holds: see :class:`Protector`."""
        return Protector(self._params, self._secret, rounding, dither)

    def server(self) -> Summer:
        """What the server holds."""
        return Summer(self._params)

    @property
    def key_id(self) -> str:
        """Fingerprint of the key, a public value."""
        return self._secret.key_id

    def facts(self) -> dict[str, Any]:
        """Public facts for a receipt: scheme, library, parameters, security."""
        params = self._params
        return {
            "scheme": f"{params.scheme}, packed coefficient encoding, exact integer sums",
            "library": f"quancrypt-native {qn.__version__}, Microsoft SEAL {qn.seal.version()}",
            "security_bits": params.security,
            "parameters": params.explain().as_dict(),
        }


def native_environment() -> dict[str, Any]:
    """Version, kernels in use and CPU features of the native package."""
    return {
        "quancrypt_native": qn.__version__,
        "seal": qn.seal.version(),
        "backend": qn.backend(),
        "cpu_features": list(qn.cpu_features()),
        "native_threads": qn.num_threads(),
    }
