"""One small serialized object of each kind, and how each is read back."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from tests.native.conftest import Party

import quancrypt_native as qn
from quancrypt_native import sealing

PASSPHRASE = b"correct horse"
KINDS = {"update": 1, "parameters": 2, "public key": 3, "secret key": 4}


@dataclass(frozen=True)
class WireObject:
    """``data``, the number of its kind, and ``read``, which gives an object or raises."""

    data: bytes
    kind: int
    read: Callable[[Any], Any]


@contextmanager
def cheap_scrypt() -> Iterator[None]:
    """Key files that open in microseconds; the derivation's cost is no subject here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sealing, "_SCRYPT_N", 2**4)
        patch.setattr(sealing, "_SCRYPT_P", 1)
        yield


def update_object(update: qn.EncryptedUpdate) -> WireObject:
    """An update, read with its own parameters."""
    params = update.params
    return WireObject(
        update.to_bytes(), 1, lambda data: qn.EncryptedUpdate.from_bytes(data, params)
    )


def secret_key_object(key: qn.SecretKey) -> WireObject:
    """A key file with a cheap derivation."""
    with cheap_scrypt():
        data = key.to_bytes(passphrase=PASSPHRASE)

    def read(changed: Any) -> qn.SecretKey:
        return qn.SecretKey.from_bytes(changed, key.params, passphrase=PASSPHRASE)

    return WireObject(data, 4, read)


def wire_objects(small: Party, slots: Party) -> dict[str, WireObject]:
    """One of each kind; the updates hold a few values in one ciphertext."""
    fresh = small.encryptor.encrypt({"a": np.ones((2, 3)), "b": np.zeros(4)}, clip={"a": 1, "b": 2})
    slot_update = slots.encryptor.encrypt(np.linspace(-1, 1, 9))
    params, public = small.params, small.keys.public
    return {
        "seeded update": update_object(fresh),
        "sum": update_object(qn.aggregate([fresh, fresh], weights=[2, 1])),
        "integers": update_object(small.encryptor.encrypt_integers(np.arange(5))),
        "slots": update_object(slot_update),
        "parameters": WireObject(params.to_bytes(), 2, qn.Parameters.from_bytes),
        "slot parameters": WireObject(slots.params.to_bytes(), 2, qn.Parameters.from_bytes),
        "public key": WireObject(
            public.to_bytes(), 3, lambda data: qn.PublicKey.from_bytes(data, params)
        ),
        "secret key": secret_key_object(small.keys.secret),
    }


OBJECTS = (
    "seeded update", "sum", "integers", "slots", "parameters", "slot parameters", "public key",
    "secret key",
)  # fmt: skip
