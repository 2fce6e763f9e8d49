"""Encrypted aggregation for federated learning: packed CKKS with exact sums.

The path of one update, and the file of each step::

    Encryptor.encrypt      encryptor.py    clip, quantize, pack, encrypt
    EncryptedUpdate        update.py       to_bytes / from_bytes over wire.py
    aggregate, Aggregator  aggregation.py  sums without a key
    Decryptor              decryptor.py    exact integer sums, means as float32
"""

from importlib.metadata import PackageNotFoundError as _PackageNotFoundError
from importlib.metadata import version as _version

from quancrypt_native import seal
from quancrypt_native.aggregation import Aggregator, aggregate
from quancrypt_native.decryptor import Decryptor
from quancrypt_native.encryptor import Encryptor
from quancrypt_native.errors import (
    CapacityError,
    DecryptionError,
    FingerprintError,
    KeyMismatchError,
    ParameterError,
    PassphraseError,
    QuanCryptError,
    SecretKeyPickleError,
    WireFormatError,
)
from quancrypt_native.explanation import Explanation
from quancrypt_native.keys import KeyPair, PublicKey, SecretKey, keygen
from quancrypt_native.layout import Layout, TensorSpec
from quancrypt_native.memory import SecretMemory, secret_memory
from quancrypt_native.parameters import Parameters
from quancrypt_native.quantization import (
    dequantize,
    mean_clip_bound,
    quantize,
    quantize_update,
)
from quancrypt_native.runtime import (
    backend,
    backends,
    cpu_features,
    num_threads,
    set_num_threads,
)
from quancrypt_native.update import EncryptedUpdate

try:
    __version__ = _version("quancrypt-native")
except _PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0+unknown"

__all__ = [
    "Aggregator",
    "CapacityError",
    "DecryptionError",
    "Decryptor",
    "EncryptedUpdate",
    "Encryptor",
    "Explanation",
    "FingerprintError",
    "KeyMismatchError",
    "KeyPair",
    "Layout",
    "ParameterError",
    "Parameters",
    "PassphraseError",
    "PublicKey",
    "QuanCryptError",
    "SecretKey",
    "SecretKeyPickleError",
    "SecretMemory",
    "TensorSpec",
    "WireFormatError",
    "__version__",
    "aggregate",
    "backend",
    "backends",
    "cpu_features",
    "dequantize",
    "keygen",
    "mean_clip_bound",
    "num_threads",
    "quantize",
    "quantize_update",
    "seal",
    "secret_memory",
    "set_num_threads",
]
