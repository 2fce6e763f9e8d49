"""Encryption of updates."""

import secrets
from typing import Any

import numpy as np

from quancrypt_native import _core, arrays
from quancrypt_native.errors import ParameterError
from quancrypt_native.keys import PublicKey, SecretKey, require_key
from quancrypt_native.layout import Layout
from quancrypt_native.parameters import Parameters
from quancrypt_native.quantization import dither_seed, not_finite
from quancrypt_native.update import EncryptedUpdate, update_prefix


class Encryptor:
    """Encrypts updates with a secret key (seeded, half the size) or a public key.

    Parameters
    ----------
    params
        The parameters that the key was generated for.
    key
        ``keys.secret``, or ``keys.public`` where ``params.key_mode`` is ``"public"``; the joint
        public key where it is ``"threshold"``.

    Raises
    ------
    ParameterError
        If the parameters do not hold the noise of public-key encryption.
    KeyMismatchError
        If the key belongs to other parameters.
    """

    def __init__(self, params: Parameters, key: SecretKey | PublicKey) -> None:
        self._params = params
        self._key = require_key(params, key)
        if isinstance(key, PublicKey) and params.key_mode == "symmetric":
            raise ParameterError(
                f"these parameters have key_mode '{params.key_mode}', whose guard bits do not hold "
                "the noise of a public key; use keys.secret, or for_aggregation(key_mode='public')"
            )

    @property
    def params(self) -> Parameters:
        """The parameters in use."""
        return self._params

    def encrypt(
        self,
        x: arrays.ArrayLike,
        clip: Any = None,
        *,
        rounding: str = "nearest",
        rng: np.random.Generator | None = None,
    ) -> EncryptedUpdate:
        """Clip, quantize, pack and encrypt.

        Parameters
        ----------
        x
            A float32 or float64 NumPy array or torch tensor of any shape, or a mapping of names to
            them. Contiguous memory is not copied.
        clip
            Values are clipped to ``[-clip, clip]``: one positive number, or a mapping with one for
            each tensor. Optional for slots.
        rounding
            ``"nearest"`` (ties to even) or ``"stochastic"`` (unbiased).
        rng
            Source of stochastic rounding; the operating system's randomness if None. It never
            feeds the encryption itself.

        Returns
        -------
        EncryptedUpdate
            Of weight 1.

        Raises
        ------
        ParameterError
            If an argument is out of range, or a value is NaN or infinite (named with its index).
        """
        packed = self._params.encoding == "packed"
        values, bounds, layout = arrays.float_update(x, clip, clip_required=packed)
        dither = dither_seed(rounding, rng)
        if packed:
            segments = arrays.segments(values, bounds)
            return self._encrypt_packed(segments, layout, dither)
        if dither is not None:
            raise ParameterError("rounding is 'stochastic'; slots are not quantized")
        return self._encrypt_slots(values, bounds, layout)

    def encrypt_integers(self, q: arrays.ArrayLike) -> EncryptedUpdate:
        """Encrypt integers as they are; packed encoding only.

        Parameters
        ----------
        q
            An integer array or tensor of any shape, or a mapping of names to them, every value in
            ``[-q_max, q_max]`` with ``q_max = 2**(bits-1) - 1``.

        Raises
        ------
        ParameterError
            If a value is out of range (named with its index) or no integer.
        """
        self._params.require_packed("encrypt_integers")
        tensors, single = arrays.named(q)
        values = {
            name: arrays.integers(value, name, self._params.q_max)
            for name, value in tensors.items()
        }
        layout = arrays.layout_of(values, [None] * len(values), single=single, integer=True)
        segments = arrays.segments(list(values.values()), [None] * len(values))
        return self._encrypt_packed(segments, layout, None)

    def _about(self, layout: Layout) -> tuple[Parameters, str, Layout, int, bytes | None]:
        """What an update says of itself; with a secret key a fresh public seed of its own."""
        seed = secrets.token_bytes(32) if isinstance(self._key, SecretKey) else None
        return self._params, self._key.key_id, layout, 1, seed

    def _core_keys(self) -> tuple[_core.SecretKey | None, _core.PublicKey | None]:
        if isinstance(self._key, SecretKey):
            return self._key._core, None
        return None, self._key._core

    def _encrypt_packed(
        self, segments: list[tuple[Any, float]], layout: Layout, dither: bytes | None
    ) -> EncryptedUpdate:
        about = self._about(layout)
        frame = _core.encrypt_packed(
            self._params._core,
            *self._core_keys(),
            about[-1],
            segments,
            dither,
            update_prefix(*about),
        )
        if isinstance(frame, int):
            raise not_finite(layout, frame)
        return EncryptedUpdate(*about, frame)

    def _encrypt_slots(
        self, values: list[Any], bounds: list[float | None], layout: Layout
    ) -> EncryptedUpdate:
        flat = np.concatenate(
            [np.empty(0), *(arrays.flat(value).astype(np.float64) for value in values)]
        )
        finite = np.isfinite(flat)
        if not finite.all():
            raise not_finite(layout, int(np.argmin(finite)))
        start = 0
        for tensor, bound in zip(layout.tensors, bounds, strict=True):
            if bound is not None:
                part = flat[start : start + tensor.size]
                np.clip(part, -bound, bound, out=part)
            start += tensor.size
        limit = self._params.slot_limit()
        too_large = np.abs(flat) > limit
        if too_large.any():
            position = int(np.argmax(too_large))
            raise ParameterError(
                f"{layout.locate(position)} is {flat[position]:g}; these slots hold values up to "
                f"{limit:g} in sums of weight {self._params.max_weight}"
            )
        about = self._about(layout)
        frame = _core.encrypt_slots(
            self._params._core, *self._core_keys(), about[-1], flat, update_prefix(*about)
        )
        return EncryptedUpdate(*about, frame)
