"""BatchCrypt's two sides: parties that quantize, pack and encrypt, and a server that multiplies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.baselines.batchcrypt.lanes import Lanes
from quancrypt_fl.baselines.batchcrypt.paillier import Pool, SecretKey, generate
from quancrypt_fl.baselines.batchcrypt.quantize import dequantize_mean, quantize
from quancrypt_fl.baselines.batchcrypt.update import PackedUpdate, Wire
from quancrypt_fl.baselines.envelope import TensorHeader, required
from quancrypt_fl.errors import MethodError
from quancrypt_fl.method.roles import NOTHING_TO_SUM, Sealed, Tensors

__all__ = ["SECRET_TYPES", "BatchCrypt", "BatchCryptProtector", "BatchCryptSummer"]

Dither = Callable[[int], np.random.Generator]


class BatchCryptProtector:
    """A party's side. Without a pool its integers travel in the clear, otherwise the same.

    Parameters
    ----------
    wire
        Layout and public key.
    pool
        Encrypts and decrypts; None without encryption.
    dither
        Generator of round ``t`` for stochastic rounding.
    """

    def __init__(self, wire: Wire, pool: Pool | None, dither: Dither) -> None:
        self._wire = wire
        self._pool = pool
        self._dither = dither

    def protect(self, tensors: Tensors, clips: Mapping[str, float], t: int) -> Sealed:
        """Clip, round stochastically, pack, encrypt and serialize.

        Parameters
        ----------
        tensors
            The update, to count once: scale it by the party's share beforehand.
        clips
            Clip bound of each tensor, the same at all parties (:mod:`.daciq`).
        t
            Round.
        """
        lanes = self._wire.lanes
        parts = self._integers(tensors, clips, t).values()
        headers = [TensorHeader(n, tensor.shape, float(clips[n])) for n, tensor in tensors.items()]
        integers = lanes.pack(np.concatenate([np.empty(0, dtype=np.int32), *parts]))
        if self._pool is not None:
            integers = self._pool.encrypt(integers)
        data = self._wire.to_bytes(PackedUpdate(tuple(headers), integers))
        return Sealed(data, len(integers) if self._pool is not None else 0)

    def quantized(
        self, tensors: Tensors, clips: Mapping[str, float], t: int
    ) -> dict[str, NDArray[np.float32]]:
        """What :meth:`protect` with the same arguments adds to the sum, in the tensors' shapes."""
        lanes = self._wire.lanes
        return {
            name: dequantize_mean(q, clips[name], lanes, 1).reshape(tensors[name].shape)
            for name, q in self._integers(tensors, clips, t).items()
        }

    def _integers(
        self, tensors: Tensors, clips: Mapping[str, float], t: int
    ) -> dict[str, NDArray[np.int32]]:
        """Flat integers of each tensor. The round's generator is drawn from in tensor order."""
        if set(clips) != set(tensors):
            raise MethodError(f"clip bounds of {sorted(clips)}; the tensors are {sorted(tensors)}")
        lanes, rng = self._wire.lanes, self._dither(t)
        return {name: quantize(name, x, clips[name], lanes, rng) for name, x in tensors.items()}

    def unprotect(self, data: bytes) -> tuple[dict[str, NDArray[np.float32]], int]:
        """Parse and decrypt a sum: means as float32, and the number of parties in it."""
        total = self._wire.from_bytes(data)
        integers = total.integers
        if self._pool is not None:
            integers = self._pool.decrypt(integers)
        sums = self._wire.lanes.unpack(integers, total.size)
        means, start = {}, 0
        for tensor in total.tensors:
            part = sums[start : start + tensor.size].reshape(tensor.shape)
            means[tensor.name] = dequantize_mean(part, tensor.clip, self._wire.lanes, total.weight)
            start += tensor.size
        return means, total.weight


class BatchCryptSummer:
    """The server's side: adds with the public key alone."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._sum: PackedUpdate | None = None

    def add(self, data: bytes, weight: int) -> None:
        """Parse and check one upload and add it.

        Raises
        ------
        MethodError
            If ``weight`` is not 1, for which the lanes have no room; if the upload is itself a sum,
            has other tensors or clip bounds than the ones before, or is one too many.
        """
        if weight != 1:
            raise MethodError(f"weight is {weight}; BatchCrypt's lanes allow 1: scale updates")
        update = self._wire.from_bytes(data)
        if update.weight != 1:
            raise MethodError(f"an upload claims the weight {update.weight}; a fresh one has 1")
        if self._sum is None:
            self._sum = update
            return
        total = self._sum
        if total.weight == self._wire.lanes.parties:
            raise MethodError(f"more uploads than the {total.weight} that a lane has room for")
        for ours, theirs in zip(total.tensors, update.tensors, strict=False):
            if ours != theirs:
                raise MethodError(f"an upload has {theirs}; earlier ones have {ours}")
        if len(total.tensors) != len(update.tensors):
            raise MethodError(
                f"an upload has {len(update.tensors)} tensors; earlier ones {len(total.tensors)}"
            )
        integers = self._wire.add(total.integers, update.integers)
        self._sum = PackedUpdate(total.tensors, integers, total.weight + 1)

    def result(self) -> bytes:
        """The sum since the last call, serialized."""
        if self._sum is None:
            raise MethodError(NOTHING_TO_SUM)
        data = self._wire.to_bytes(self._sum)
        self._sum = None
        return data


class BatchCrypt:
    """Layout and a fresh key for one run; a context manager that ends the pool's processes.

    Parameters
    ----------
    bits
        Bits of a quantized value, 2 to 16.
    parties
        Parties of a round, at most: what the clip bounds are multiplied with.
    key_bits
        Bits of the Paillier modulus; 2048 for security.
    processes
        Size of the pool; None for one process per processor.
    encryption
        Without it, the same integers in the same lanes travel and are added in the clear: results
        are equal to the last bit, given the same ``dither``.
    """

    def __init__(
        self,
        *,
        bits: int,
        parties: int,
        key_bits: int = 2048,
        processes: int | None = None,
        encryption: bool = True,
    ) -> None:
        lanes = Lanes.fill(bits, parties, key_bits)
        secret = generate(key_bits) if encryption else None
        self._pool = Pool(secret, processes) if secret is not None else None
        self._wire = Wire(lanes, secret.public if secret is not None else None)
        self._key_bits = key_bits

    def client(self, dither: Dither) -> BatchCryptProtector:
        """What one party holds."""
        return BatchCryptProtector(self._wire, self._pool, dither)

    def server(self) -> BatchCryptSummer:
        """What the server holds."""
        return BatchCryptSummer(self._wire)

    @property
    def lanes(self) -> Lanes:
        """The layout."""
        return self._wire.lanes

    @property
    def key_id(self) -> str | None:
        """Fingerprint of the public key, or None without encryption."""
        return None if self._wire.public is None else self._wire.public.fingerprint

    def facts(self) -> dict[str, Any]:
        """Public facts for a receipt; empty without encryption."""
        if self._wire.public is None:
            return {}
        phe, gmpy2 = required("phe", "gmpy2")
        lanes = self._wire.lanes
        return {
            "scheme": "Paillier, two's complement lanes (BatchCrypt), exact integer sums",
            "library": f"phe {phe.__version__}, gmpy2 {gmpy2.version()}",
            "security_bits": security_bits(self._key_bits),
            "parameters": {
                "modulus_bits": self._key_bits,
                "bits": lanes.bits,
                "parties": lanes.parties,
                "lane_bits": lanes.lane_bits,
                "values_per_ciphertext": lanes.count,
                "bytes_per_value": self._wire.width / lanes.count,
            },
        }

    def close(self) -> None:
        """End the pool's processes."""
        if self._pool is not None:
            self._pool.close()

    def __enter__(self) -> BatchCrypt:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def security_bits(key_bits: int) -> int:
    """Classical security of a modulus, as NIST SP 800-57 part 1 counts it; 0 below 1024 bits."""
    levels = ((15360, 256), (7680, 192), (3072, 128), (2048, 112), (1024, 80))
    return next((level for size, level in levels if key_bits >= size), 0)


SECRET_TYPES: tuple[type, ...] = (SecretKey, Pool, BatchCryptProtector, BatchCrypt)
"""Objects that hold the secret key or can use it. The server must not reach any."""
