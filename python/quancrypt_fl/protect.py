"""Training's only door to ``quancrypt_native``: what clients and the summing side hold of it.

A :class:`Channel` is made by whoever provides keys. It hands a :class:`Protector` with the secret
key to each client and a :class:`Summer` with public parameters alone to the server.
:class:`PlainIntegers` is its twin without encryption: the same integers, summed in the clear.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

import quancrypt_native as qn
from quancrypt_fl.errors import MethodError
from quancrypt_fl.method.quancrypt import Layout
from quancrypt_fl.method.roles import NOTHING_TO_SUM, Sealed, Tensors
from quancrypt_fl.method.uploads import check_alike, parsed
from quancrypt_native import QuanCryptError, threshold

Dither = Callable[[int], np.random.Generator]
"""From a round to the generator of its stochastic rounding."""

__all__ = [
    "SECRET_TYPES",
    "UNREADABLE",
    "Channel",
    "Dither",
    "Encrypting",
    "PlainIntegerSummer",
    "PlainIntegers",
    "Protector",
    "QuanCryptError",
    "Rounding",
    "Summer",
    "has_layout",
    "native_environment",
    "native_threads",
    "parameter_facts",
]

SECRET_TYPES: tuple[type, ...] = (
    qn.SecretKey,
    qn.KeyPair,
    qn.Encryptor,
    qn.Decryptor,
    threshold.Party,
)
"""Objects that hold a secret key or a share of one, or can use one. The summing side must not reach
any."""


UNREADABLE: tuple[type[Exception], ...] = (qn.DecryptionError,)
"""What opening a sum raises if an upload in it was malformed."""


@dataclass(frozen=True)
class Rounding:
    """How a client rounds, with the generator of a round's dither for stochastic rounding."""

    name: str
    dither: Dither | None

    def rng(self, t: int) -> np.random.Generator | None:
        """The generator of round ``t``, None for nearest rounding."""
        return self.dither(t) if self.name == "stochastic" and self.dither else None

    def quantize(
        self, tensors: Tensors, clips: Mapping[str, float], params: qn.Parameters, t: int
    ) -> dict[str, NDArray[np.int16]]:
        """The integers that are encrypted."""
        quantized = qn.quantize_update(
            dict(tensors), dict(clips), params, rounding=self.name, rng=self.rng(t)
        )
        return cast("dict[str, NDArray[np.int16]]", quantized)

    def values(
        self, tensors: Tensors, clips: Mapping[str, float], params: qn.Parameters, t: int
    ) -> dict[str, NDArray[np.float32]]:
        """What the integers stand for."""
        integers = self.quantize(tensors, clips, params, t)
        return {name: qn.dequantize(q, clips[name], params.bits) for name, q in integers.items()}


class Encrypting:
    """What a client does to its own updates, whichever key encrypts them.

    Parameters
    ----------
    params
        Encryption parameters.
    key
        What encrypts: a secret key, or a public one.
    rounding
        ``"nearest"`` or ``"stochastic"``.
    dither
        For stochastic rounding: the generator of round ``t``.
    """

    def __init__(
        self,
        params: qn.Parameters,
        key: qn.SecretKey | qn.PublicKey,
        rounding: str = "nearest",
        dither: Dither | None = None,
    ) -> None:
        self._params = params
        self._encryptor = qn.Encryptor(params, key)
        self._rounding = Rounding(rounding, dither)

    def protect(self, tensors: Tensors, clips: Mapping[str, float], t: int) -> Sealed:
        """Clip, quantize, pack, encrypt and serialize. Its randomness is the system's, always."""
        update = self._encryptor.encrypt(
            dict(tensors), dict(clips), rounding=self._rounding.name, rng=self._rounding.rng(t)
        )
        return Sealed(update.to_bytes(), update.ciphertexts)

    def quantized(
        self, tensors: Tensors, clips: Mapping[str, float], t: int
    ) -> dict[str, NDArray[np.float32]]:
        """What :meth:`protect` of the same arguments adds to the sum, rounding included."""
        return self._rounding.values(tensors, clips, self._params, t)


class Protector(Encrypting):
    """A client's side: encrypts its own updates and opens sums, with the clients' secret key.

    Parameters
    ----------
    params, rounding, dither
        As of :class:`Encrypting`.
    secret
        The secret key that the clients share.
    """

    def __init__(
        self,
        params: qn.Parameters,
        secret: qn.SecretKey,
        rounding: str = "nearest",
        dither: Dither | None = None,
    ) -> None:
        super().__init__(params, secret, rounding, dither)
        self._decryptor = qn.Decryptor(params, secret)

    def total_of(self, data: bytes) -> bytes:
        """The serialized sum in what :meth:`unprotect` reads: all of it."""
        return data

    def unprotect(self, data: bytes) -> tuple[dict[str, NDArray[np.float32]], int]:
        """Parse and decrypt a sum: weighted means as float32, and the total weight."""
        total = qn.EncryptedUpdate.from_bytes(data, self._params)
        mean = self._decryptor.decrypt_mean(total)
        return cast("dict[str, NDArray[np.float32]]", mean), total.weight


class Summer:
    """The server's side: adds ciphertexts as they arrive, with public parameters alone.

    Parameters
    ----------
    params
        Encryption parameters.
    key_id, layout
        Key and tensors that every upload must have. Without them the first upload decides, which
        may be a stranger's.
    """

    def __init__(
        self, params: qn.Parameters, key_id: str | None = None, layout: Layout | None = None
    ) -> None:
        self._params = params
        self._key_id = key_id
        self._layout = layout
        self._sum: qn.Aggregator | None = None

    def add(self, data: bytes, weight: int) -> None:
        """Parse and check one upload and add it ``weight`` times.

        Raises
        ------
        MethodError
            If the upload is a sum: how much a client counts is not the client's to say. Or if it
            is not seeded, where a secret key encrypts: a ``c1`` of a stranger's choice asks the
            decryptors for their key (SECURITY.md, "Exact sums and published decryptions"). A joint
            key is public, and what it encrypts is never seeded: there a seeded one is refused.
        """
        update = qn.EncryptedUpdate.parse(data, self._params)  # residues: checked by the sum
        if update.weight != 1:
            raise MethodError(f"an upload claims the weight {update.weight}; a fresh one has 1")
        joint = self._params.key_mode == "threshold"
        if update.seeded and joint:
            raise MethodError("an upload is seeded; none under a joint key is: it is public")
        if not update.seeded and not joint:
            raise MethodError("an upload is not seeded, as every fresh one under a secret key is")
        self._add(update, weight)

    def add_sum(self, data: bytes, weight: int) -> None:
        """Parse and check a sum of another summing side, which is trusted, and add it once.

        Parameters
        ----------
        weight
            The weight that it must have.

        Raises
        ------
        MethodError
            If it has another one, or is under another key or of other tensors.
        """
        update = qn.EncryptedUpdate.parse(data, self._params)
        if update.weight != weight:
            raise MethodError(f"a sum has the weight {update.weight}; its ledger says {weight}")
        self._add(update, 1)

    def _add(self, update: qn.EncryptedUpdate, weight: int) -> None:
        if self._key_id not in (None, update.key_id):
            raise MethodError(
                f"an upload is under the key {update.key_id}; expected: {self._key_id}"
            )
        if self._layout is not None:
            _check_layout(update, self._layout)
        total = self._sum or qn.Aggregator(self._params)
        total.add(update, weight=weight)
        self._sum = total

    def result(self) -> bytes:
        """The encrypted sum since the last call, serialized."""
        if self._sum is None:
            raise MethodError(NOTHING_TO_SUM)
        total = self._sum.result()
        self._sum = None
        return total.to_bytes()


def has_layout(update: qn.EncryptedUpdate, expected: Layout) -> bool:
    """Whether an upload or a sum consists of these tensors, in this order."""
    found = [(tensor.name, (tensor.shape, tensor.clip)) for tensor in update.layout.tensors]
    return found == list(expected.items()) and not update.layout.single


def _check_layout(update: qn.EncryptedUpdate, expected: Layout) -> None:
    if has_layout(update, expected):
        return
    found = {tensor.name: (tensor.shape, tensor.clip) for tensor in update.layout.tensors}
    for name, (shape, clip) in expected.items():
        if found.get(name) != (shape, clip):
            given = found.get(name, "no such tensor")
            raise MethodError(
                f"tensor {name!r} of an upload: {given}; expected shape {shape} and bound {clip}"
            )
    raise MethodError(f"an upload has {len(found)} tensors; expected, in order: {list(expected)}")


class PlainIntegers:
    """A client's side without encryption: the integers that a :class:`Protector` encrypts.

    Uploads are safetensors of int16; means are computed as the native package computes them, so
    that a run gives the same weights bit by bit.
    """

    def __init__(
        self, params: qn.Parameters, rounding: str = "nearest", dither: Dither | None = None
    ) -> None:
        self._params = params
        self._rounding = Rounding(rounding, dither)

    def protect(self, tensors: Tensors, clips: Mapping[str, float], t: int) -> Sealed:
        """Clip, quantize and serialize."""
        integers = self._rounding.quantize(tensors, clips, self._params, t)
        return Sealed(_save_integers(integers, clips, weight=1), ciphertexts=0)

    def quantized(
        self, tensors: Tensors, clips: Mapping[str, float], t: int
    ) -> dict[str, NDArray[np.float32]]:
        """See :meth:`Protector.quantized`."""
        return self._rounding.values(tensors, clips, self._params, t)

    def unprotect(self, data: bytes) -> tuple[dict[str, NDArray[np.float32]], int]:
        """Weighted means as float32, and the total weight."""
        sums = load(data)
        clips, weight = _about(data, sums)
        means = {}
        for name, q in sums.items():
            factor = clips[name] / self._params.q_max * (1.0 / weight)
            means[name] = np.asarray(q.astype(np.float64) * factor, dtype=np.float32)
        return means, weight


class PlainIntegerSummer:
    """The server's side of :class:`PlainIntegers`: sums in int64."""

    def __init__(self) -> None:
        self._sums: dict[str, NDArray[np.int64]] = {}
        self._clips: dict[str, float] = {}
        self._weight = 0

    def add(self, data: bytes, weight: int) -> None:
        """Check one upload and add it ``weight`` times.

        Raises
        ------
        MethodError
            If the bytes are not int16 tensors with their clip bounds, claim a weight, or have
            other names, shapes or bounds than the ones before. The sum is then what it was.
        """
        integers = parsed(data, np.int16)
        clips, claimed = _about(data, integers)
        if claimed != 1:
            raise MethodError(f"an upload claims the weight {claimed}; a fresh one has 1")
        if self._weight:
            check_alike(integers, self._sums)
            if clips != self._clips:
                raise MethodError("an upload has other clip bounds than the sum so far")
        for name, q in integers.items():
            scaled = np.asarray(q.astype(np.int64) * weight)
            before = self._sums.get(name)
            self._sums[name] = scaled if before is None else np.asarray(before + scaled)
        self._clips, self._weight = clips, self._weight + weight

    def result(self) -> bytes:
        """The sum since the last call, serialized."""
        if self._weight == 0:
            raise MethodError(NOTHING_TO_SUM)
        data = _save_integers(self._sums, self._clips, self._weight)
        self._sums, self._clips, self._weight = {}, {}, 0
        return data


def _save_integers(
    integers: Mapping[str, NDArray[Any]], clips: Mapping[str, float], weight: int
) -> bytes:
    about = {"weight": weight, "clips": [[name, clips[name]] for name in integers]}
    return save(dict(integers), metadata={"quancrypt": json.dumps(about)})


def _about(data: bytes, integers: Mapping[str, NDArray[Any]]) -> tuple[dict[str, float], int]:
    """Clip bound of each tensor, and the weight, from the metadata of parsed ``data``."""
    length = int.from_bytes(data[:8], "little")
    try:
        about = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["quancrypt"])
        clips = {str(name): float(clip) for name, clip in about["clips"]}
        weight = about["weight"]
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise MethodError(f"the metadata of an upload is damaged: {error!r:.80}") from None
    if clips.keys() != integers.keys():
        raise MethodError(f"clip bounds of {sorted(clips)}; the tensors are {sorted(integers)}")
    if not all(math.isfinite(clip) and clip > 0 for clip in clips.values()):
        raise MethodError("a clip bound of an upload is not a finite positive number")
    if type(weight) is not int or weight < 1:
        raise MethodError(f"an upload claims the weight {weight!r:.80}, not a positive number")
    return clips, weight


class Channel:
    """Parameters and a fresh key for one kind of upload.

    Parameters
    ----------
    bits
        Bits of a quantized value.
    max_weight
        Largest total weight of a sum.
    security
        Security level in bits.
    values
        Values in an upload, to choose ciphertexts of the right size.
    """

    def __init__(self, *, bits: int, max_weight: int, security: int, values: int) -> None:
        self._params = qn.Parameters.for_aggregation(
            bits=bits, max_weight=max_weight, security=security, key_mode="symmetric", values=values
        )
        self._secret = qn.keygen(self._params).secret

    def client(self, rounding: str = "nearest", dither: Dither | None = None) -> Protector:
        """What one client holds: see :class:`Protector`."""
        return Protector(self._params, self._secret, rounding, dither)

    def server(self) -> Summer:
        """What the server holds."""
        return Summer(self._params)

    def plain_client(
        self, rounding: str = "nearest", dither: Dither | None = None
    ) -> PlainIntegers:
        """The twin of :meth:`client` without encryption."""
        return PlainIntegers(self._params, rounding, dither)

    @property
    def key_id(self) -> str:
        """Fingerprint of the key, a public value."""
        return self._secret.key_id

    def parameters(self) -> dict[str, Any]:
        """Public facts about the parameters, for a receipt."""
        return self._params.explain().as_dict()

    def facts(self) -> dict[str, Any]:
        """Public facts for a receipt: scheme, library, parameters, security."""
        return parameter_facts(self._params)


def parameter_facts(params: qn.Parameters) -> dict[str, Any]:
    """Public facts for a receipt: scheme, library, parameters, security."""
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


@contextmanager
def native_threads(count: int) -> Iterator[None]:
    """Encrypt, add and decrypt with ``count`` threads in a block, and put the old number back."""
    before = qn.num_threads()
    qn.set_num_threads(count)
    try:
        yield
    finally:
        qn.set_num_threads(before)
