"""Makes the known-answer files beside it. Run once for each version of the wire format.

    python tests/vectors/make.py            # writes what is missing
    python tests/vectors/make.py --replace  # new keys and ciphertexts: only for a new format

A file that exists proves that this version reads what an earlier one wrote; replacing it throws
that proof away. Each file holds, in base64, a parameter set, its keys (the secret one sealed with
the passphrase beside it) and updates with what they decrypt to. The keys protect nothing.
"""

import base64
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

import quancrypt_native as qn
from quancrypt_native import _core, parameters, wire

FOLDER = Path(__file__).resolve().parent
PASSPHRASE = "known answer"
FORMAT = wire.VERSION


def text(data: bytes) -> str:
    """Base64."""
    return base64.b64encode(data).decode()


def two_primes() -> qn.Parameters:
    """Two data primes and a special one in a small ring: a set that no search would choose."""
    data = _core.find_primes(2048, 17, 2)
    special = _core.find_primes(2048, 20, 1)
    return qn.Parameters(
        parameters._Literal(
            encoding="packed",
            poly_degree=2048,
            coeff_modulus=(*data, *special),
            security=128,
            key_mode="symmetric",
            max_weight=4,
            bits=4,
            fields=4,
            field_bits=6,
            guard_bits=8,
            noise_bound=21,
        )
    )


def recorded(update: qn.EncryptedUpdate, decryptor: qn.Decryptor) -> dict[str, Any]:
    """An update and what it decrypts to."""
    packed = update.params.encoding == "packed"
    result: Any = (decryptor.decrypt_integers if packed else decryptor.decrypt_sum)(update)
    tensors = result if isinstance(result, dict) else {"": result}
    return {
        "data": text(update.to_bytes()),
        "weight": update.weight,
        "seeded": update.seeded,
        "single": not isinstance(result, dict),
        "shapes": {name: list(tensor.shape) for name, tensor in tensors.items()},
        "clips": {tensor.name: tensor.clip for tensor in update.layout.tensors},
        "sums": {name: tensor.ravel().tolist() for name, tensor in tensors.items()},
    }


def vectors(params: qn.Parameters) -> dict[str, Any]:
    """The content of one file."""
    keys = qn.keygen(params)
    encryptor = qn.Encryptor(params, keys.secret)
    decryptor = qn.Decryptor(params, keys.secret)
    floats = {
        "layer.weight": np.linspace(-0.06, 0.06, 24).reshape(4, 6),
        "layer.bias": np.array([0.5, -0.5, 0.0], np.float32),
        "empty": np.zeros((0, 2)),
        "scalar": np.array(1.25),
    }
    clips = {"layer.weight": 0.05, "layer.bias": 0.5, "empty": 1.0, "scalar": 2.0}
    named = encryptor.encrypt(floats, clip=clips)
    updates = {"named tensors": named, "sum": qn.aggregate([named, named], weights=[1, 2])}
    if params.encoding == "packed":
        q = np.arange(2 * params.q_max + 1).reshape(-1, 1) - params.q_max
        updates["integers"] = encryptor.encrypt_integers(q)
    else:
        updates["array"] = encryptor.encrypt(np.linspace(-3, 3, 50).reshape(5, 10))
    if params.key_mode == "public":
        updates["public key"] = qn.Encryptor(params, keys.public).encrypt(floats, clip=clips)
    return {
        "format": FORMAT,
        "written_by": f"quancrypt-native {qn.__version__}",
        "parameters": text(params.to_bytes()),
        "fingerprint": params.fingerprint,
        "key_id": keys.key_id,
        "public_key": text(keys.public.to_bytes()),
        "passphrase": PASSPHRASE,
        "secret_key": text(keys.secret.to_bytes(passphrase=PASSPHRASE.encode())),
        "updates": {name: recorded(update, decryptor) for name, update in updates.items()},
    }


def main() -> None:
    """Write the files."""
    replace = "--replace" in sys.argv[1:]
    for name, params in {
        "symmetric": qn.Parameters.for_aggregation(max_poly_degree=1024),
        "public": qn.Parameters.for_aggregation(
            bits=4, max_weight=4, max_poly_degree=1024, key_mode="public"
        ),
        "two-primes": two_primes(),
        "slots": qn.Parameters.slots(
            poly_degree=1024, coeff_modulus_bits=(27,), scale_bits=15, max_weight=4
        ),
    }.items():
        path = FOLDER / f"format{FORMAT}-{name}.json"
        if path.exists() and not replace:
            print(f"{path.name} exists: left as it is")
            continue
        path.write_text(json.dumps(vectors(params), indent=1) + "\n")
        print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
