"""What a serialized upload says to somebody who knows the format and has no key.

Such an attacker takes ``c0 = m + e - c1 s`` for the message, goes back from values to coefficients
and unpacks their fields, as decryption would. The positive control is the same upload with the
encryption switched off (:func:`unmasked_upload`): there this gives every integer.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.leakage.polynomials import (
    Residues,
    evaluate,
    interpolate,
    pack_residues,
    recombine,
    reduce,
    unpack_residues,
)

__all__ = [
    "Packing",
    "Parameters",
    "as_plaintext",
    "as_polynomial",
    "decoded_values",
    "frame",
    "read_c0",
    "unframe",
    "unmasked_upload",
]

Integers = NDArray[np.int64]

_PREFIX = struct.Struct("<8sHHQ")  # magic, version, kind, length of the header
_MAGIC, _VERSION, _UPDATE = b"QUANCRPT", 1, 1
_TRAILER = 4  # bytes of the checksum


class _Explanation(Protocol):
    def as_dict(self) -> dict[str, Any]: ...


class _Explains(Protocol):
    """``quancrypt_native.Parameters``, which this side of the package does not import."""

    def explain(self) -> _Explanation: ...


Parameters = _Explains | Mapping[str, Any]
"""Parameters of packed encoding, or what their ``explain().as_dict()`` gives, as
:meth:`quancrypt_fl.protect.Channel.parameters` does. They are public."""


@dataclass(frozen=True)
class Packing:
    """Where the fields of a plaintext are: ``field_bits`` each, above ``guard_bits``.

    Attributes
    ----------
    n
        Degree of the ring: coefficients of a ciphertext.
    primes
        Data primes.
    fields
        Fields of a coefficient.
    offset
        What is added to a quantized integer so that fields are never negative: ``q_max``.
    """

    n: int
    primes: tuple[int, ...]
    fields: int
    field_bits: int
    guard_bits: int
    offset: int

    @classmethod
    def of(cls, params: Parameters) -> Packing:
        """From public parameters. Of several primes the last one carries no data."""
        figures = params if isinstance(params, Mapping) else params.explain().as_dict()
        primes = tuple(figures["coeff_modulus"])
        return cls(
            n=figures["poly_degree"],
            primes=primes[:-1] or primes,
            fields=figures["fields"],
            field_bits=figures["field_bits"],
            guard_bits=figures["guard_bits"],
            offset=2 ** (figures["bits"] - 1) - 1,
        )

    @property
    def values(self) -> int:
        """Values of one ciphertext."""
        return self.n * self.fields

    @property
    def nbytes(self) -> int:
        """Serialized size of one polynomial."""
        return sum(self.n * (p - 1).bit_length() // 8 for p in self.primes)


def read_c0(data: bytes, params: Parameters, index: int = 0) -> Residues:
    """``c0`` of ciphertext ``index`` of a fresh (seeded) upload: residues ``[primes, N]``."""
    packing = Packing.of(params)
    _, body = unframe(data)
    part = body[index * packing.nbytes : (index + 1) * packing.nbytes]
    return unpack_residues(part, packing.n, packing.primes)


def as_plaintext(c0: Residues, params: Parameters) -> Integers:
    """Unpack a polynomial as if it were a plaintext.

    Parameters
    ----------
    c0
        Values ``[primes, N]``, as :func:`read_c0` gives them.
    params
        Public parameters.

    Returns
    -------
    Fields ``[fields * N]`` in ``[0, 2^field_bits)``: value ``v`` is field ``v // N`` of coefficient
    ``v % N``. The guard bits are rounded off; bits above the last field are dropped, where
    decryption would refuse them.
    """
    packing = Packing.of(params)
    rows = [interpolate(row, p) for row, p in zip(c0, packing.primes, strict=True)]
    whole = recombine(np.stack(rows), packing.primes)
    half = 1 << packing.guard_bits - 1  # noise may be negative, just below 0 modulo Q
    payload = (whole + half) % math.prod(packing.primes) >> packing.guard_bits
    mask = (1 << packing.field_bits) - 1
    found = [payload >> packing.field_bits * f & mask for f in range(packing.fields)]
    return np.concatenate(found).astype(np.int64)


def as_polynomial(fields: Integers, params: Parameters, noise: Integers | None = None) -> Residues:
    """The values ``[primes, N]`` of a plaintext with these fields: as_plaintext, backwards.

    Parameters
    ----------
    fields
        At most ``fields * N`` of them; the rest is zero.
    noise
        Added to the coefficients ``[N]``; None: none.
    """
    packing = Packing.of(params)
    whole = np.zeros(packing.values, dtype=np.int64)
    whole[: len(fields)] = fields
    coefficients = np.zeros(packing.n, dtype=object) if noise is None else noise.astype(object)
    for f, row in enumerate(whole.reshape(packing.fields, packing.n)):
        shift = packing.guard_bits + packing.field_bits * f
        coefficients = coefficients + (row.astype(object) << shift)
    residues = reduce(coefficients, packing.primes)
    return np.stack([evaluate(row, p) for row, p in zip(residues, packing.primes, strict=True)])


def decoded_values(data: bytes, params: Parameters, values: int) -> Integers:
    """What an attacker without the key reads out of an upload: integers ``[values]``.

    Every ``c0`` is taken for the plaintext. Nothing is expanded, and nothing is solved.

    Parameters
    ----------
    data
        A fresh upload, serialized.
    params
        Public parameters.
    values
        How many values the upload holds, which its header says too.

    Returns
    -------
    Fields less the offset, in the order of the update. Of an upload that is not encrypted these are
    the quantized integers in ``[-q_max, q_max]``; of an encrypted one they may be anything from
    ``-q_max`` to ``2^field_bits - 1 - q_max``.
    """
    packing = Packing.of(params)
    count = -(-values // packing.values)
    found = [as_plaintext(read_c0(data, params, index), params) for index in range(count)]
    return np.asarray(np.concatenate(found)[:values] - packing.offset, dtype=np.int64)


def unmasked_upload(data: bytes, params: Parameters, quantized: Integers) -> bytes:
    """An upload with its encryption switched off: ``c0`` is the plaintext, without key and noise.

    Parameters
    ----------
    data
        A fresh upload, of which header and length stay.
    params
        Public parameters.
    quantized
        Integers in ``[-q_max, q_max]``, as many as the upload has values, in its order.
    """
    packing = Packing.of(params)
    header, _ = unframe(data)
    fields = np.asarray(quantized, dtype=np.int64).ravel() + packing.offset
    parts = [
        pack_residues(as_polynomial(fields[i : i + packing.values], params), packing.primes)
        for i in range(0, len(fields), packing.values)
    ]
    return frame(header, b"".join(parts))


# --- frames ---


def unframe(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and body of a serialized update; nothing is checked."""
    start = _PREFIX.size
    length = _PREFIX.unpack_from(data)[3]
    return json.loads(data[start : start + length]), data[start + length : -_TRAILER]


def frame(header: Mapping[str, Any], body: bytes) -> bytes:
    """A serialized update with this header and body, its checksum right."""
    said = json.dumps({**header, "body_bytes": len(body)}, separators=(",", ":")).encode()
    data = _PREFIX.pack(_MAGIC, _VERSION, _UPDATE, len(said)) + said + body
    return data + struct.pack("<I", _crc32c(data))


def _crc32c(data: bytes) -> int:
    """CRC-32C by RFC 3720, appendix B.4: reflected polynomial 0x82F63B78."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_CRC_TABLE = _crc_table()
