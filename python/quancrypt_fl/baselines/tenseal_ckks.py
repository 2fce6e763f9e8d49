"""TenSEAL as in the published code: one CKKS slot per value, one vector per tensor, public key.

Sums are approximate: CKKS adds noise of about ``2^-25`` to a value. Nothing is clipped or rounded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.baselines.envelope import (
    TensorHeader,
    join,
    required,
    split,
    tensor_headers,
)
from quancrypt_fl.errors import MethodError
from quancrypt_fl.method.roles import NOTHING_TO_SUM, Sealed, Tensors

__all__ = [
    "PARAMETERS",
    "SECRET_TYPES",
    "SlotParameters",
    "TensealCkks",
    "TensealProtector",
    "TensealSummer",
]

_MAGIC = b"QTS1"
_FIELDS: dict[str, type] = {"tensors": list, "weight": int, "lengths": list}
_MAX_WEIGHT = 1 << 16  # mean magnitudes below 2^2 then stay far below the modulus at scale 2^40


@dataclass(frozen=True)
class SlotParameters:
    """CKKS parameters.

    Attributes
    ----------
    poly_degree
        ``N``; a ciphertext has ``N / 2`` slots.
    coeff_modulus_bits
        Bits of the primes, the special prime last.
    scale_bits
        Of the encoding.
    security
        Level in bits that the homomorphic encryption standard grants the total modulus.
    """

    poly_degree: int
    coeff_modulus_bits: tuple[int, ...]
    scale_bits: int = 40
    security: int = 128

    @property
    def slots(self) -> int:
        """Values in a ciphertext."""
        return self.poly_degree // 2


PARAMETERS: Mapping[str, SlotParameters] = {
    "paper": SlotParameters(16384, (60, 40, 40, 40, 60), security=192),
    "code": SlotParameters(8192, (60, 40, 40, 60)),
}
"""What the paper prints, and what the published code uses."""


class _SecretContext:
    """A context with its secret key, in a class of its own so that an audit can tell it."""

    def __init__(self, parameters: SlotParameters, threads: int) -> None:
        ts = _tenseal()
        self.context = ts.context(
            ts.SCHEME_TYPE.CKKS,
            parameters.poly_degree,
            coeff_mod_bit_sizes=list(parameters.coeff_modulus_bits),
            n_threads=threads,
        )
        self.context.global_scale = 2**parameters.scale_bits

    def public(self) -> bytes:
        """The context with the public key alone, serialized."""
        data: bytes = self.context.serialize(
            save_public_key=True,
            save_secret_key=False,
            save_galois_keys=False,
            save_relin_keys=False,
        )
        return data

    def __reduce__(self) -> NoReturn:
        raise TypeError("a context with its secret key is never serialized")


class TensealProtector:
    """A client's side."""

    def __init__(self, parameters: SlotParameters, secret: _SecretContext) -> None:
        self._parameters = parameters
        self._secret = secret

    def protect(self, tensors: Tensors, clips: Mapping[str, float], t: int) -> Sealed:
        """Encrypt under the public key and serialize; ``clips`` and ``t`` play no part."""
        del clips, t
        ts, slots = _tenseal(), self._parameters.slots
        headers, parts = [], []
        for name, tensor in tensors.items():
            if not np.isfinite(tensor).all():
                raise MethodError(
                    f"update of {name!r} holds NaN or infinity: local training diverged"
                )
            headers.append(TensorHeader(name, tensor.shape))
            flat = tensor.reshape(-1)
            # By ciphertexts, as TenSEAL divides a long vector; it would print a warning each time.
            parts += [
                ts.ckks_vector(self._secret.context, flat[at : at + slots].tolist()).serialize()
                for at in range(0, flat.size, slots)
            ]
        return Sealed(_to_bytes(headers, parts, weight=1), len(parts))

    def quantized(self, tensors: Tensors, clips: Mapping[str, float], t: int) -> Tensors:
        """The tensors: nothing is rounded."""
        del clips, t
        return tensors

    def unprotect(self, data: bytes) -> tuple[dict[str, NDArray[np.float32]], int]:
        """Parse and decrypt a sum: means as float32, and the number of clients in it."""
        headers, parts, weight = _from_bytes(data, self._parameters.slots)
        means, pending = {}, iter(parts)
        for header in headers:
            flat = np.empty(header.size, dtype=np.float64)
            for size, at in _pieces(header, self._parameters.slots):
                vector = _load(self._secret.context, next(pending), size)
                flat[at : at + size] = vector.decrypt()
            means[header.name] = (flat / weight).astype(np.float32).reshape(header.shape)
        return means, weight


class TensealSummer:
    """The server's side: its context has no secret key."""

    def __init__(self, parameters: SlotParameters, public: bytes, threads: int) -> None:
        self._parameters = parameters
        self._context = _tenseal().context_from(public, threads)
        if self._context.is_private():
            raise MethodError("the context of a summing side must have no secret key")
        self._headers: Sequence[TensorHeader] = ()
        self._sums: list[Any] = []
        self._weight = 0

    def add(self, data: bytes, weight: int) -> None:
        """Parse one upload and add it.

        Raises
        ------
        MethodError
            If ``weight`` is not 1 (scale updates instead), if the upload is itself a sum, or has
            other tensors than the ones before. The sum is then what it was.
        """
        if weight != 1:
            raise MethodError(f"weight is {weight}; TenSEAL's baseline allows 1: scale updates")
        headers, parts, claimed = _from_bytes(data, self._parameters.slots)
        if claimed != 1:
            raise MethodError(f"an upload claims the weight {claimed}; a fresh one has 1")
        if self._weight == _MAX_WEIGHT:
            raise MethodError(f"more than {_MAX_WEIGHT} uploads in a sum")
        if self._weight and headers != self._headers:
            raise MethodError(
                f"an upload has the tensors {[h.name for h in headers]} of {len(parts)} "
                f"ciphertexts; earlier ones {[h.name for h in self._headers]}, other shapes or both"
            )
        sizes = [size for header in headers for size, _ in _pieces(header, self._parameters.slots)]
        vectors = [_load(self._context, part, n) for part, n in zip(parts, sizes, strict=True)]
        if self._weight:
            try:
                vectors = [total + part for total, part in zip(self._sums, vectors, strict=True)]
            except (ValueError, RuntimeError) as error:
                raise MethodError(f"a ciphertext of an update cannot be added: {error}") from None
        self._headers, self._sums = headers, vectors
        self._weight += 1

    def result(self) -> bytes:
        """The encrypted sum since the last call, serialized."""
        if self._weight == 0:
            raise MethodError(NOTHING_TO_SUM)
        data = _to_bytes(self._headers, [v.serialize() for v in self._sums], self._weight)
        self._headers, self._sums, self._weight = (), [], 0
        return data


class TensealCkks:
    """Parameters and fresh keys for one run.

    Parameters
    ----------
    parameters
        ``"paper"`` or ``"code"``: see :data:`PARAMETERS`.
    threads
        TenSEAL's own.
    """

    def __init__(self, parameters: str = "paper", threads: int = 1) -> None:
        if parameters not in PARAMETERS:
            raise MethodError(
                f"TenSEAL parameters {parameters!r}; allowed: {', '.join(sorted(PARAMETERS))}"
            )
        self._parameters = PARAMETERS[parameters]
        self._threads = threads
        self._secret = _SecretContext(self._parameters, threads)
        self._public = self._secret.public()

    def client(self) -> TensealProtector:
        """What one client holds."""
        return TensealProtector(self._parameters, self._secret)

    def server(self) -> TensealSummer:
        """What the server holds."""
        return TensealSummer(self._parameters, self._public, self._threads)

    @property
    def slots(self) -> int:
        """Values in a ciphertext."""
        return self._parameters.slots

    @property
    def key_id(self) -> str:
        """Fingerprint of the public context."""
        return hashlib.sha256(self._public).hexdigest()[:32]

    def facts(self) -> dict[str, Any]:
        """Public facts for a receipt."""
        parameters = self._parameters
        return {
            "scheme": "CKKS, one slot per value, approximate sums",
            "library": f"TenSEAL {_tenseal().__version__}",
            "security_bits": parameters.security,
            "parameters": {
                "poly_degree": parameters.poly_degree,
                "coeff_modulus_bits": list(parameters.coeff_modulus_bits),
                "scale_bits": parameters.scale_bits,
                "values_per_ciphertext": parameters.slots,
            },
        }


class _DecidedByKey(type):
    def __instancecheck__(cls, item: object) -> bool:
        """Whether a context, or a vector's context, has the secret key, or ``item`` is one."""
        ts = _tenseal()
        core = ts._ts_cpp  # what TenSEAL's classes wrap, each in one attribute
        if isinstance(item, (ts.CKKSVector, core.CKKSVector)):
            item = item.context()
        if isinstance(item, (ts.Context, core.TenSEALContext)):
            return bool(item.is_private())
        return isinstance(item, (ts.enc_context.SecretKey, core.SecretKey))


class PrivateContext(metaclass=_DecidedByKey):
    """For ``isinstance`` alone: what of TenSEAL's own objects can decrypt."""


SECRET_TYPES: tuple[type, ...] = (_SecretContext, TensealProtector, TensealCkks, PrivateContext)
"""Objects that hold the secret key or can use it. The server must not reach any."""


def _pieces(header: TensorHeader, slots: int) -> list[tuple[int, int]]:
    """Size and first value of each ciphertext of a tensor."""
    return [(min(slots, header.size - at), at) for at in range(0, header.size, slots)]


def _load(context: Any, data: memoryview, size: int) -> Any:
    try:
        vector = _tenseal().ckks_vector_from(context, bytes(data))
        found, ciphertexts = vector.size(), vector.ciphertext()
        form = [(c.size(), c.scale) for c in ciphertexts]
    except (ValueError, RuntimeError, IndexError) as error:
        raise MethodError(f"a ciphertext of an update is not TenSEAL's: {error}") from None
    if form != [(2, context.global_scale)]:
        raise MethodError(
            f"ciphertexts of (polynomials, scale) {form} in an update; "
            f"allowed: one, {(2, context.global_scale)}"
        )
    if found != size:
        raise MethodError(f"a ciphertext of {found} values; its tensor has {size} in this place")
    return vector


def _to_bytes(headers: Sequence[TensorHeader], parts: Sequence[bytes], weight: int) -> bytes:
    header = {
        "tensors": [tensor.as_list() for tensor in headers],
        "weight": weight,
        "lengths": [len(part) for part in parts],
    }
    return join(_MAGIC, header, b"".join(parts))


def _from_bytes(data: bytes, slots: int) -> tuple[tuple[TensorHeader, ...], list[memoryview], int]:
    header, body = split(_MAGIC, data, _FIELDS)
    tensors, lengths = tensor_headers(header["tensors"]), header["lengths"]
    if not 1 <= header["weight"] <= _MAX_WEIGHT:
        raise MethodError(f"an update of weight {header['weight']}; allowed: 1 to {_MAX_WEIGHT}")
    expected = sum(-(-tensor.size // slots) for tensor in tensors)
    if len(lengths) != expected:
        raise MethodError(f"{len(lengths)} ciphertexts in an update; its tensors take {expected}")
    if not all(type(length) is int and length > 0 for length in lengths):
        raise MethodError("a length in the header of an update is not a positive number")
    if sum(lengths) != len(body):
        raise MethodError(f"ciphertexts of {sum(lengths)} bytes in {len(body)} bytes of data")
    parts, start = [], 0
    for length in lengths:
        parts.append(body[start : start + length])
        start += length
    return tensors, parts, header["weight"]


def _tenseal() -> Any:
    (tenseal,) = required("tenseal")
    return tenseal
