"""Makes the known-answer files of the current format version. Run once for each version.

    python -m tests.kat.make            # only if there is no folder of this version yet

A folder that exists proves that later versions read what an earlier one wrote. Its files are never
made again; delete the folder by hand while a version is not released yet. The keys protect nothing.
"""

from __future__ import annotations

import hashlib
import json
import sys

import numpy as np
from tests.kat.objects import (
    CHAIN,
    FORMATS,
    PASSPHRASE,
    RANDOM_PASSPHRASE,
    ROUND,
    TRAINING,
    Format,
    example_history,
    facts,
)

import quancrypt_native as qn
from quancrypt_fl.flower.held import Held
from quancrypt_fl.flower.snapshot import seal_snapshot
from quancrypt_fl.flower.sums import Sums
from quancrypt_fl.flower.tensors_file import pack
from quancrypt_fl.method.roles import GlobalState
from quancrypt_native import wire


def contents() -> dict[str, bytes]:
    """Every file but expected.json."""
    params = qn.Parameters.for_aggregation(
        bits=4, max_weight=4, max_poly_degree=1024, key_mode="public"
    )
    slots = qn.Parameters.slots(
        poly_degree=1024, coeff_modulus_bits=(27,), scale_bits=15, max_weight=4
    )
    keys, slots_keys = qn.keygen(params), qn.keygen(slots)
    encryptor = qn.Encryptor(params, keys.secret)
    named = {
        "layer.weight": np.linspace(-0.06, 0.06, 24).reshape(4, 6),
        "layer.bias": np.array([0.5, -0.5, 0.0], np.float32),
        "empty": np.zeros((0, 2)),
        "scalar": np.array(1.25),
    }
    clips = {"layer.weight": 0.05, "layer.bias": 0.5, "empty": 1.0, "scalar": 2.0}
    seeded = encryptor.encrypt(named, clip=clips)
    by_public = qn.Encryptor(params, keys.public).encrypt(named, clip=clips)
    total = qn.aggregate([seeded, by_public], weights=[2, 1])
    q = np.arange(2 * params.q_max + 1).reshape(-1, 1) - params.q_max
    slot_update = qn.Encryptor(slots, slots_keys.secret).encrypt(np.linspace(-3, 3, 10))
    weights = {
        "w": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.array(1.5, np.float32),
        "none": np.empty((0, 5), np.float32),
    }
    held = Held(GlobalState(ROUND, weights, {"w": 0.25, "b": 0.5, "none": 1.0}), CHAIN)
    return {
        "parameters.bin": params.to_bytes(),
        "parameters-slots.bin": slots.to_bytes(),
        "secret-key.bin": keys.secret.to_bytes(passphrase=PASSPHRASE),
        "secret-key-slots.bin": slots_keys.secret.to_bytes(
            passphrase=RANDOM_PASSPHRASE, random_passphrase=True
        ),
        "public-key.bin": keys.public.to_bytes(),
        "update-seeded.bin": seeded.to_bytes(),
        "update-public-key.bin": by_public.to_bytes(),
        "update-integers.bin": encryptor.encrypt_integers(q).to_bytes(),
        "sum.bin": total.to_bytes(),
        "sum-deep.bin": qn.aggregate([total, seeded]).to_bytes(),
        "update-slots.bin": slot_update.to_bytes(),
        "sum-slots.bin": qn.aggregate([slot_update], weights=[3]).to_bytes(),
        "round-sums.bin": Sums(b"sum of updates", b"sum of reports", 2).to_bytes(),
        "tensors.bin": bytes(pack({"kind": "known answer", "list": [1, None]}, weights)),
        "snapshot.bin": seal_snapshot(held, TRAINING, keys.secret),
        **example_history(),
    }


def main() -> None:
    """Write the folder of this version."""
    folder = FORMATS / f"format{wire.VERSION}"
    if folder.exists():
        sys.exit(f"{folder.name} exists: left as it is")
    folder.mkdir()
    for name, data in contents().items():
        (folder / name).write_bytes(data)
    names = sorted(path.name for path in folder.iterdir())
    digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    document = {
        "format": wire.VERSION,
        "written_by": f"quancrypt-native {qn.__version__}",
        "passphrase": PASSPHRASE.decode(),
        "random_passphrase": RANDOM_PASSPHRASE.hex(),
        "sha256": digests,
        "facts": facts(Format(folder)),
    }
    (folder / "expected.json").write_text(json.dumps(document, indent=1) + "\n")
    print(f"{folder.name}: {sum(path.stat().st_size for path in folder.iterdir())} bytes")


if __name__ == "__main__":
    main()
