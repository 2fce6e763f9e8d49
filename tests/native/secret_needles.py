"""Pieces of secrets, in the forms that a process has them in."""

import os

import numpy as np
import pytest
from tests.native import oracle

import quancrypt_native as qn
from quancrypt_native import _core, seal

WINDOW = 32

SANITIZED = "asan" in os.environ.get("LD_PRELOAD", "")
unsanitized = pytest.mark.skipif(
    SANITIZED, reason="the sanitizer maps terabytes, and its mlock() says yes and does nothing"
)


def windows(name: str, data: bytes, size: int = WINDOW) -> dict[str, bytes]:
    """Pieces of ``data`` from its beginning, its middle and its end."""
    starts = {"first": 0, "middle": len(data) // 2 // 64 * 64, "last": len(data) - size}
    return {f"{name}, {where}": data[at : at + size] for where, at in starts.items()}


def key_needles(params: qn.Parameters, packed: bytes) -> dict[str, bytes]:
    """A secret key in the forms that a process has it in."""
    codes = np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little").reshape(-1, 2)
    coefficients = (codes @ np.array([1, 2]) - 1).astype(np.int8).tobytes()
    needles = windows("packed", packed) | windows("coefficients", coefficients, 64)
    if params.key_mode != "threshold":
        key = qn.SecretKey(params, _core.SecretKey.load(params._core, packed), "0" * 32)
        size = 8 * len(params.coeff_modulus) * params.poly_degree
        needles |= windows("NTT form", seal.export_secret_key(key)[-size:])
    return needles


def share_needles(params: qn.Parameters, state: bytes) -> dict[str, bytes]:
    """Seeds and share in the core's part of a party's state."""
    at = params.poly_degree // 4
    share = state[at + 64 :]
    residues = oracle.unpack_polynomial(params, share).astype(np.uint64).tobytes()
    return {
        "sharing seed": state[at : at + 32],
        "error seed": state[at + 32 : at + 64],
        **windows("packed share", share),
        **windows("share", residues),
    }
