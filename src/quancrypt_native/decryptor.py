"""Decryption of sums."""

from typing import Any

import numpy as np
import numpy.typing as npt

from quancrypt_native import _core
from quancrypt_native.errors import KeyMismatchError, ParameterError
from quancrypt_native.keys import SecretKey, require_key
from quancrypt_native.parameters import Parameters
from quancrypt_native.update import EncryptedUpdate

FloatResult = npt.NDArray[np.float32] | dict[str, npt.NDArray[np.float32]]
IntegerResult = npt.NDArray[np.int64] | dict[str, npt.NDArray[np.int64]]


class Decryptor:
    """Decrypts updates and sums with the secret key.

    Results have the shapes that were encrypted: one array, or a dict by name. Every coefficient is
    checked to be a possible sum; if one is not, nothing is returned
    (:class:`~quancrypt_native.DecryptionError`).
    """

    def __init__(self, params: Parameters, key: SecretKey) -> None:
        require_key(params, key)
        if not isinstance(key, SecretKey):
            raise ParameterError("decryption needs the secret key, not a public key")
        self._params = params
        self._key = key

    def decrypt_mean(self, update: EncryptedUpdate) -> FloatResult:
        """Weighted mean, ``sum(w_i x_i) / sum(w_i)``, as float32.

        Within ``clip / q_max / 2`` of the mean of the clipped inputs with nearest rounding, up to
        float32 rounding. Integer updates give the mean of the integers.
        """
        self._check(update)
        return self._floats(update, 1.0 / update.weight)

    def decrypt_sum(self, update: EncryptedUpdate) -> FloatResult:
        """Weighted sum, ``sum(w_i x_i)``, as float32."""
        self._check(update)
        return self._floats(update, 1.0)

    def decrypt_integers(self, update: EncryptedUpdate) -> IntegerResult:
        """Exact weighted sum of the quantized values, as int64; packed encoding only."""
        self._check(update)
        self._params.require_packed("decrypt_integers")
        tensors = update.layout.tensors
        sums: IntegerResult = shaped(
            update, self._packed(update, [0.0] * len(tensors), integers=True)
        )
        return sums

    def _check(self, update: object) -> None:
        if not isinstance(update, EncryptedUpdate):
            raise ParameterError(f"update is a {type(update).__name__}; allowed: EncryptedUpdate")
        if update.params != self._params:
            raise KeyMismatchError(
                f"the update was made with parameters {update.params.fingerprint}, "
                f"not {self._params.fingerprint}"
            )
        if update.key_id != self._key.key_id:
            raise KeyMismatchError(
                f"the update was encrypted with key {update.key_id}, not {self._key.key_id}"
            )

    def _floats(self, update: EncryptedUpdate, share: float) -> FloatResult:
        tensors = update.layout.tensors
        if self._params.encoding == "packed":
            factors = float_factors(update, share)
            means: FloatResult = shaped(update, self._packed(update, factors, integers=False))
            return means
        flat = _core.decrypt_slots(
            self._params._core, self._key._core, update._body, update._seed, update.values, share
        )
        ends = np.cumsum([tensor.size for tensor in tensors])[:-1]
        values: FloatResult = shaped(update, np.split(flat, ends) if tensors else [])
        return values

    def _packed(
        self, update: EncryptedUpdate, factors: list[float], *, integers: bool
    ) -> list[Any]:
        return _core.decrypt_packed(
            self._params._core,
            self._key._core,
            update._body,
            update._seed,
            update.weight,
            [tensor.size for tensor in update.layout.tensors],
            factors,
            integers,
        )


def float_factors(update: EncryptedUpdate, share: float) -> list[float]:
    """What takes each tensor's integer sums to floats, times ``share``."""
    q_max = update.params.q_max
    return [
        share if tensor.clip is None else tensor.clip / q_max * share
        for tensor in update.layout.tensors
    ]


def shaped(update: EncryptedUpdate, parts: list[Any]) -> Any:
    """The tensors' flat values as they were encrypted: one array, or a dict by name."""
    arrays = {
        tensor.name: part.reshape(tensor.shape)
        for tensor, part in zip(update.layout.tensors, parts, strict=True)
    }
    return arrays[""] if update.layout.single else arrays
