"""How fast this machine encrypts, adds and decrypts: a short measurement on some ciphertexts."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import numpy as np

import quancrypt_native as qn

__all__ = ["Calibration", "calibrate"]

_BUDGET_SECONDS = 0.1  # for each of the three operations
_FEWEST, _MOST = 3, 25  # repetitions
_VALUES = 2**22  # far above the caches, as a whole update is: from them it would look 3 x faster
_CLIP = 0.05


@dataclass(frozen=True)
class Calibration:
    """Seconds for one ciphertext, with all threads at work; medians."""

    encrypt: float
    add: float
    decrypt: float
    threads: int
    ciphertexts: int
    """Ciphertexts of an update in the measurement."""
    backend: str


def calibrate(params: qn.Parameters, values: int) -> Calibration:
    """Measure with the parameters themselves.

    Encryption includes serialization, addition and decryption include parsing. With public key mode
    the public key encrypts.

    Parameters
    ----------
    params
        Of packed encoding.
    values
        Values of a whole update; no more are measured.
    """
    threads = qn.num_threads()
    capacity = params.values_per_ciphertext
    count = min(-(-values // capacity), max(_VALUES // capacity, threads))
    rng = np.random.default_rng(0)
    x = rng.standard_normal(min(values, count * capacity), dtype=np.float32)
    x *= np.float32(_CLIP / 3)
    keys = qn.keygen(params)
    encryptor = qn.Encryptor(params, keys.public if params.key_mode == "public" else keys.secret)
    decryptor = qn.Decryptor(params, keys.secret)

    upload = encryptor.encrypt(x, clip=_CLIP).to_bytes()
    aggregator = qn.Aggregator(params)
    aggregator.add(qn.EncryptedUpdate.from_bytes(upload, params))
    total = aggregator.result().to_bytes()

    def add() -> None:
        nonlocal aggregator
        if aggregator.weight == params.max_weight:
            aggregator = qn.Aggregator(params)
        aggregator.add(qn.EncryptedUpdate.from_bytes(upload, params))

    def decrypt() -> None:
        decryptor.decrypt_mean(qn.EncryptedUpdate.from_bytes(total, params))

    return Calibration(
        encrypt=_median_seconds(lambda: encryptor.encrypt(x, clip=_CLIP).to_bytes()) / count,
        add=_median_seconds(add) / count,
        decrypt=_median_seconds(decrypt) / count,
        threads=threads,
        ciphertexts=count,
        backend=qn.backend(),
    )


def _median_seconds(operation: Callable[[], object]) -> float:
    durations: list[float] = []
    while len(durations) < _FEWEST or (sum(durations) < _BUDGET_SECONDS and len(durations) < _MOST):
        start = perf_counter()
        operation()
        durations.append(perf_counter() - start)
    return statistics.median(durations)
