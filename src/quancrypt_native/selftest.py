"""``python -m quancrypt_native.selftest``: does this installation compute rightly here?"""

import sys
from collections.abc import Callable, Iterator

import numpy as np

import quancrypt_native as qn
from quancrypt_native import _core

Check = tuple[str, Callable[[], bool]]


def checks() -> Iterator[Check]:
    """Name and test of each check; a test returns False or raises if it fails."""
    yield "CRC-32C of RFC 3720's vector", _checksum
    for key_mode in ("symmetric", "public"):
        yield f"exact sums, {key_mode} key", lambda mode=key_mode: _exact_sum(mode)  # type: ignore[misc]
    yield "standard CKKS slots", _slots
    yield "a damaged ciphertext is refused", _damage


def _checksum() -> bool:
    return _core.crc32c(bytes(32)) == 0x8A9136AA


def _exact_sum(key_mode: str) -> bool:
    params = qn.Parameters.for_aggregation(bits=8, max_weight=6, key_mode=key_mode, values=5000)
    keys = qn.keygen(params)
    encryptor = qn.Encryptor(params, keys.secret if key_mode == "symmetric" else keys.public)
    rng = np.random.default_rng(1)
    inputs = [rng.integers(-127, 128, 5000) for _ in range(3)]
    total = qn.aggregate([encryptor.encrypt_integers(q) for q in inputs], weights=[3, 1, 2])
    data = qn.EncryptedUpdate.from_bytes(total.to_bytes(), params)
    expected = 3 * inputs[0] + inputs[1] + 2 * inputs[2]
    return np.array_equal(
        np.asarray(qn.Decryptor(params, keys.secret).decrypt_integers(data)), expected
    )


def _slots() -> bool:
    params = qn.Parameters.slots()
    keys = qn.keygen(params)
    x = np.linspace(-1, 1, 100)
    mean = qn.Decryptor(params, keys.secret).decrypt_mean(
        qn.Encryptor(params, keys.public).encrypt(x)
    )
    return bool(np.allclose(np.asarray(mean), x, atol=1e-6))


def _damage() -> bool:
    params = qn.Parameters.for_aggregation(values=1000)
    data = bytearray(
        qn.Encryptor(params, qn.keygen(params).secret).encrypt(np.zeros(1000), 1.0).to_bytes()
    )
    data[len(data) // 2] ^= 1
    try:
        qn.EncryptedUpdate.from_bytes(data, params)
    except qn.WireFormatError:
        return True
    return False


def run() -> list[tuple[str, bool, str]]:
    """Name, success and reason of every check."""
    results = []
    for name, check in checks():
        try:
            passed, reason = check(), ""
        except Exception as error:  # a self-test reports whatever went wrong
            passed, reason = False, f"{type(error).__name__}: {error}"
        results.append((name, passed, reason))
    return results


def main() -> int:
    """Print the results; 0 if all checks passed."""
    print(f"quancrypt-native {qn.__version__}, kernels {qn.backend()}, SEAL {qn.seal.version()}")
    results = run()
    for name, passed, reason in results:
        print(f"{'ok  ' if passed else 'FAIL'}  {name}{': ' + reason if reason else ''}")
    return 0 if all(passed for _, passed, _ in results) else 1


if __name__ == "__main__":
    sys.exit(main())
