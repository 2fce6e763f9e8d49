"""A second implementation of the wire format and of decryption, in NumPy and Python integers.

Written from the format's description, not from the library's code, so that both must be right to
agree: frames, CRC-32C, bit packing, the seeded expansion of c1 (ChaCha20 of ``cryptography``), the
negacyclic number-theoretic transform in SEAL's order, recombination by CRT, fields and noise. Slow;
for rings of a few thousand coefficients. Residues are arrays ``[primes, N]`` of Python integers.
"""

import functools
import json
import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

import quancrypt_native as qn
from quancrypt_native import _core

Integers = npt.NDArray[np.object_]
"""Python integers in an array of dtype object: no overflow."""

PREFIX = struct.Struct("<8sHHQ")


# --- frames ---


@functools.cache
def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


def crc32c(data: bytes) -> int:
    """CRC-32C by RFC 3720, appendix B.4: reflected polynomial 0x82F63B78."""
    table, crc = _crc_table(), 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def unframe(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and body of a serialized object, nothing checked."""
    length = PREFIX.unpack_from(data)[3]
    start = PREFIX.size
    return json.loads(data[start : start + length]), data[start + length : -4]


def frame(
    kind: int,
    header: dict[str, Any] | bytes,
    body: bytes,
    *,
    magic: bytes = b"QUANCRPT",
    version: int = 1,
    header_length: int | None = None,
    body_bytes: int | None = None,
) -> bytes:
    """A frame with any content and a right checksum; ``header`` as bytes is taken as it is."""
    if not isinstance(header, bytes):
        stated = len(body) if body_bytes is None else body_bytes
        header = json.dumps({**header, "body_bytes": stated}, separators=(",", ":")).encode()
    length = len(header) if header_length is None else header_length
    data = PREFIX.pack(magic, version, kind, length) + header + body
    # The library's checksum, which the tests compare with crc32c(), where bytes are many.
    checksum = crc32c(data) if len(data) < 100_000 else _core.crc32c(data)
    return data + struct.pack("<I", checksum)


# --- polynomials ---


def polynomial_bytes(params: qn.Parameters) -> int:
    """Serialized size of one polynomial: residue after residue at ceil(log2 p) bits."""
    return sum(params.poly_degree * (p - 1).bit_length() // 8 for p in params.data_primes)


def unpack_polynomial(params: qn.Parameters, data: bytes) -> Integers:
    """Bytes -> residues ``[primes, N]``."""
    n, rows, start = params.poly_degree, [], 0
    for p in params.data_primes:
        width = (p - 1).bit_length()
        raw = np.frombuffer(data[start : start + n * width // 8], dtype=np.uint8)
        bits = np.unpackbits(raw, bitorder="little").reshape(n, width).astype(np.uint64)
        rows.append((bits << np.arange(width, dtype=np.uint64)).sum(axis=1, dtype=np.uint64))
        start += n * width // 8
    return np.array(rows).astype(object)


def pack_polynomial(params: qn.Parameters, residues: Integers) -> bytes:
    """The inverse of :func:`unpack_polynomial`; residues need not be below their primes."""
    out = b""
    for p, row in zip(params.data_primes, residues, strict=True):
        width = (p - 1).bit_length()
        bits = row.astype(np.uint64)[:, None] >> np.arange(width, dtype=np.uint64) & np.uint64(1)
        out += np.packbits(bits.astype(np.uint8), bitorder="little").tobytes()
    return out


def expand_c1(params: qn.Parameters, seed: bytes, index: int) -> Integers:
    """c1 of ciphertext ``index``: ChaCha20 (RFC 8439) under the update's seed, read as k-bit draws.

    The nonce is the ciphertext's index (8 bytes) and the prime's (4 bytes). The i-th draw that is
    not below p is replaced by the i-th one below p after the first N.
    """
    n, rows = params.poly_degree, []
    for part, p in enumerate(params.data_primes):
        width = (p - 1).bit_length()
        nonce = struct.pack("<IQI", 0, index, part)  # counter 0, then the 12-byte nonce
        stream = Cipher(ChaCha20(seed, nonce), mode=None).encryptor()
        raw = stream.update(bytes(2 * n * width // 8))
        bits = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little").reshape(2 * n, width)
        draws = (bits.astype(np.uint64) << np.arange(width, dtype=np.uint64)).sum(axis=1)
        row, spare = draws[:n].copy(), draws[n:][draws[n:] < p]
        rejected = np.flatnonzero(row >= p)
        row[rejected] = spare[: len(rejected)]
        rows.append(row)
    return np.array(rows).astype(object)


@functools.cache
def _primitive_root(n: int, p: int) -> int:
    """The smallest primitive 2N-th root of unity modulo p."""
    for base in range(2, 1000):
        root = pow(base, (p - 1) // (2 * n), p)
        if pow(root, n, p) == p - 1:
            return min(pow(root, k, p) for k in range(1, 2 * n, 2))
    raise AssertionError(f"no root of unity modulo {p}")


@functools.cache
def _powers(root: int, n: int, p: int) -> Integers:
    return np.array([pow(root, k, p) for k in range(n)], dtype=object)


@functools.cache
def _reversal(n: int) -> npt.NDArray[np.intp]:
    width = n.bit_length() - 1
    return np.array([int(f"{i:0{width}b}"[::-1], 2) for i in range(n)])


def _cyclic(x: Integers, root: int, p: int) -> Integers:
    """out[k] = sum_j x[j] root^(j k) mod p, by radix-2 decimation in time."""
    n = len(x)
    if n == 1:
        return x
    even = _cyclic(x[0::2], root * root % p, p)
    odd = _cyclic(x[1::2], root * root % p, p) * _powers(root, n // 2, p) % p
    return np.concatenate([(even + odd) % p, (even - odd) % p])


def evaluate(x: Integers, p: int) -> Integers:
    """Coefficients -> values at the roots of X^N + 1, in SEAL's (bit-reversed) order."""
    n = len(x)
    psi = _primitive_root(n, p)
    return _cyclic(x * _powers(psi, n, p) % p, psi * psi % p, p)[_reversal(n)]


def interpolate(values: Integers, p: int) -> Integers:
    """The inverse of :func:`evaluate`."""
    n = len(values)
    psi = pow(_primitive_root(n, p), -1, p)
    x = _cyclic(values[_reversal(n)], psi * psi % p, p)
    return x * _powers(psi, n, p) * pow(n, -1, p) % p


# --- the scheme ---


@dataclass(frozen=True)
class Polynomials:
    """One ciphertext, values at the roots: ``c0`` and ``c1``, each ``[primes, N]``."""

    c0: Integers
    c1: Integers


def ciphertext(update: qn.EncryptedUpdate, index: int = 0) -> Polynomials:
    """Ciphertext ``index`` out of the serialized update."""
    params = update.params
    header, body = unframe(update.to_bytes())
    size = polynomial_bytes(params)
    if header["seed"] is not None:
        c0 = unpack_polynomial(params, body[index * size : (index + 1) * size])
        return Polynomials(c0, expand_c1(params, bytes.fromhex(header["seed"]), index))
    parts = [body[(2 * index + j) * size : (2 * index + j + 1) * size] for j in (0, 1)]
    return Polynomials(unpack_polynomial(params, parts[0]), unpack_polynomial(params, parts[1]))


def secret_coefficients(key: qn.SecretKey) -> Integers:
    """The ternary secret, out of its SEAL stream (values at the roots modulo the first prime)."""
    stream = qn.seal.export_secret_key(key)
    n, p = key.params.poly_degree, key.params.coeff_modulus[0]
    # Plaintext: header, parameter identity, count, scale, header, count; then 64-bit residues.
    row = np.frombuffer(stream, dtype="<u8", count=n, offset=16 + 32 + 8 + 8 + 16 + 8)
    s = interpolate(row.astype(object), p)
    s[s == p - 1] = -1
    return s


def plaintext_residues(pair: Polynomials, secret: Integers, params: qn.Parameters) -> Integers:
    """``c0 + c1 s`` as coefficients ``[primes, N]``."""
    rows = []
    for c0, c1, p in zip(pair.c0, pair.c1, params.data_primes, strict=True):
        rows.append(interpolate((c0 + c1 * evaluate(secret % p, p)) % p, p))
    return np.array(rows)


def recombine(residues: Integers, primes: tuple[int, ...]) -> Integers:
    """CRT: residues ``[primes, N]`` -> ``[N]`` in [0, Q)."""
    q = math.prod(primes)
    total = np.zeros(residues.shape[1], dtype=object)
    for row, p in zip(residues, primes, strict=True):
        total = total + row * (q // p) * pow(q // p, -1, p)
    return total % q


@dataclass(frozen=True)
class Decoded:
    """``sums[f * N + c]``: field f of coefficient c, unsigned; ``noise[c]``."""

    sums: Integers
    noise: Integers


def decode(coefficients: Integers, params: qn.Parameters) -> Decoded:
    """Coefficients in [0, Q) -> unsigned fields and centred noise."""
    figures = params.explain().as_dict()
    guard, width, q = figures["guard_bits"], figures["field_bits"], math.prod(params.data_primes)
    half = 1 << (guard - 1)
    shifted = (coefficients + half) % q
    noise = shifted % (1 << guard) - half
    payload = shifted >> guard
    fields = [(payload >> (width * f)) % (1 << width) for f in range(params.fields)]
    assert not (payload >> (width * params.fields)).any(), "bits above the last field"
    return Decoded(np.concatenate(fields), noise)


def decrypt(update: qn.EncryptedUpdate, key: qn.SecretKey, index: int = 0) -> Decoded:
    """Fields and noise of ciphertext ``index``, by this module alone."""
    params = update.params
    residues = plaintext_residues(ciphertext(update, index), secret_coefficients(key), params)
    return decode(recombine(residues, params.data_primes), params)


def encode(fields: Integers, noise: Integers, params: qn.Parameters) -> Integers:
    """Unsigned fields ``[fields * N]`` and noise ``[N]`` -> coefficients in [0, Q)."""
    figures = params.explain().as_dict()
    shifts = figures["guard_bits"] + figures["field_bits"] * np.arange(params.fields)
    rows = fields.reshape(params.fields, params.poly_degree)
    total = sum(row << int(shift) for row, shift in zip(rows, shifts, strict=True)) + noise
    return total % math.prod(params.data_primes)


def forge(like: qn.EncryptedUpdate, key: qn.SecretKey, coefficients: Integers) -> bytes:
    """A serialized sum like ``like`` (one ciphertext, unseeded) that holds these coefficients."""
    params = like.params
    header, _ = unframe(like.to_bytes())
    assert header["seed"] is None
    c1, secret = ciphertext(like).c1, secret_coefficients(key)
    c0 = np.array(
        [
            (evaluate(coefficients % p, p) - row * evaluate(secret % p, p)) % p
            for row, p in zip(c1, params.data_primes, strict=True)
        ]
    )
    del header["body_bytes"]
    return frame(1, header, pack_polynomial(params, c0) + pack_polynomial(params, c1))
