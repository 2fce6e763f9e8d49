"""An encrypted update: what clients upload and what sums are."""

import hashlib
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from quancrypt_native import _core, wire
from quancrypt_native.errors import CapacityError, FingerprintError, WireFormatError
from quancrypt_native.layout import MAX_TENSORS, Layout, shapes_of
from quancrypt_native.parameters import Parameters, require_parameters

_KEY_ID_DIGITS = 32


def body_bytes(params: Parameters, layout: Layout, *, seeded: bool) -> int:
    """Bytes of the ciphertexts of an update."""
    polynomials = params._core.ciphertext_count(layout.values) * (1 if seeded else 2)
    return polynomials * params._core.polynomial_bytes


def update_header(
    params: Parameters, key_id: str, layout: Layout, weight: int, seed: bytes | None
) -> dict[str, Any]:
    """The header fields of a serialized update, in their order."""
    return {
        "params": params.fingerprint,
        "key": key_id,
        "weight": weight,
        "single": layout.single,
        "integers": layout.integers,
        "tensors": layout.to_header(),
        "seed": None if seed is None else seed.hex(),
    }


def update_prefix(
    params: Parameters, key_id: str, layout: Layout, weight: int, seed: bytes | None
) -> bytes:
    """All bytes of a serialized update before its body."""
    header = update_header(params, key_id, layout, weight, seed)
    size = body_bytes(params, layout, seeded=seed is not None)
    return wire.prefix(wire.Kind.UPDATE, header, size)


def _sha256_of_each(pieces: list[memoryview]) -> list[bytes]:
    def digest(piece: memoryview) -> bytes:
        return hashlib.sha256(piece).digest()

    threads = min(_core.num_threads(), len(pieces))
    if threads <= 1:
        return [digest(piece) for piece in pieces]
    # hashlib lets go of the global lock.
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(digest, pieces))


class EncryptedUpdate:
    """Ciphertexts of one array or of named tensors, with what a server may know about them.

    Immutable. Made by :class:`Encryptor`, :func:`aggregate` or :meth:`from_bytes`. Everything but
    the body is public: names, shapes, clip bounds, weight, fingerprints.
    """

    __slots__ = (
        "_body", "_digests", "_frame", "_key_id", "_layout", "_params", "_seed", "_weight",
    )  # fmt: skip

    def __init__(
        self,
        params: Parameters,
        key_id: str,
        layout: Layout,
        weight: int,
        seed: bytes | None,
        frame: bytes,
    ) -> None:
        """For the package's own use, nothing is validated; ``frame`` is the serialized form."""
        self._params = params
        self._key_id = key_id
        self._layout = layout
        self._weight = weight
        self._seed = seed
        self._frame = frame
        self._digests: list[bytes] | None = None
        size = body_bytes(params, layout, seeded=seed is not None)
        self._body = np.frombuffer(frame, np.uint8, size, len(frame) - wire.TRAILER_BYTES - size)

    @property
    def params(self) -> Parameters:
        """The parameters it was encrypted under."""
        return self._params

    @property
    def key_id(self) -> str:
        """32 hexadecimal digits of the key pair."""
        return self._key_id

    @property
    def layout(self) -> Layout:
        """Names, shapes and clip bounds."""
        return self._layout

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of each tensor; a bare array has the name ``""``."""
        return shapes_of(self._layout.tensors)

    @property
    def weight(self) -> int:
        """Total weight: 1 when fresh, then the sum of the integer weights that were added up."""
        return self._weight

    @property
    def values(self) -> int:
        """Number of encrypted values."""
        return self._layout.values

    @property
    def ciphertexts(self) -> int:
        """Number of ciphertexts."""
        return self._params._core.ciphertext_count(self.values)

    @property
    def seeded(self) -> bool:
        """Fresh from a symmetric key: the second polynomial is a 32-byte seed."""
        return self._seed is not None

    @property
    def nbytes(self) -> int:
        """Length of :meth:`to_bytes` in bytes."""
        return len(self._frame)

    def c1_digests(self) -> list[bytes]:
        """SHA-256 of the second polynomial of each ciphertext, as serialized; not for seeded ones.

        Partial decryptions depend on these polynomials alone.
        """
        if self._digests is None:
            size = self._params._core.polynomial_bytes
            # Several at a time where the CPU hashes in hardware, which hashlib does one by one.
            digests = _core.sha256_each(self._body, size, size, 2 * size)
            if digests is None:
                body = self._body.data
                halves = [body[at + size : at + 2 * size] for at in range(0, len(body), 2 * size)]
                digests = _sha256_of_each(halves)
            self._digests = digests
        return self._digests

    def to_bytes(self) -> bytes:
        """Header, bit-packed residues, checksum: as it was encrypted or parsed, not copied."""
        return self._frame

    @classmethod
    def from_bytes(cls, data: wire.BytesLike, params: Parameters) -> Self:
        """Read :meth:`to_bytes`'s output; safe on bytes from a stranger.

        ``bytes`` are not copied: the update keeps them.

        Raises
        ------
        WireFormatError
            Saying what is wrong: magic, version, lengths, header, checksum, a residue out of range.
        FingerprintError
            A :class:`WireFormatError` and :class:`KeyMismatchError`: made with other parameters.
        CapacityError
            The weight exceeds the parameters' ``max_weight``.
        """
        update = cls.parse(data, params)
        _core.check_body(params._core, update._body, update.ciphertexts, update.seeded)
        return update

    @classmethod
    def parse(cls, data: wire.BytesLike, params: Parameters) -> Self:
        """As :meth:`from_bytes`, but residues stay unchecked: for what checks them as it reads."""
        require_parameters(params)
        header, body = wire.parse(data, wire.Kind.UPDATE)
        fields = wire.HeaderReader(header)
        fingerprint = fields.hexadecimal("params", 32)
        if fingerprint != params.fingerprint:
            raise FingerprintError(
                f"the update was made with parameters {fingerprint}, not {params.fingerprint}"
            )
        key_id = fields.hexadecimal("key", _KEY_ID_DIGITS)
        weight = fields.number("weight", 1, 2**63 - 1)
        single = fields.flag("single")
        integers = fields.flag("integers")
        layout = Layout.from_header(
            fields.items("tensors", MAX_TENSORS), single=single, integers=integers
        )
        seed = fields.optional_hexadecimal("seed", 64)
        fields.finish()
        if weight > params.max_weight:
            raise CapacityError(f"weight {weight} is above max_weight = {params.max_weight}")
        if seed is not None and weight != 1:
            raise WireFormatError(f"a seeded update has weight {weight}; expected 1")
        if params.encoding == "packed" and not integers:
            if any(tensor.clip is None for tensor in layout.tensors):
                raise WireFormatError("a packed update lacks a clip bound")
        elif params.encoding == "slots" and integers:
            raise WireFormatError("slots hold no integers")
        expected = body_bytes(params, layout, seeded=seed is not None)
        if len(body) != expected:
            raise WireFormatError(
                f"the body has {len(body)} bytes; {layout.values} values take {expected}"
            )
        seed_bytes = None if seed is None else bytes.fromhex(seed)
        return cls(params, key_id, layout, weight, seed_bytes, bytes(body.obj))

    def __repr__(self) -> str:
        """Public facts only."""
        return (
            f"EncryptedUpdate({len(self._layout.tensors)} tensors, {self.values} values, "
            f"{self.ciphertexts} ciphertexts, weight={self._weight}, {self.nbytes} bytes, "
            f"key={self._key_id[:8]})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle through the wire format."""
        return EncryptedUpdate.from_bytes, (self.to_bytes(), self._params)
