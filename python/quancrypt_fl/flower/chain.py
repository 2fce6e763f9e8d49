"""Which global model a party holds, as a value that the server can follow without reading it.

The *chain id* of a state is a SHA-256 over the initial model, what the parties agreed on, and the
digest of every encrypted sum since. Clients apply exact sums in the same arithmetic, so equal chain
ids mean equal models. The server computes the same values from ciphertexts alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quancrypt_fl.method.agreement import Agreement

__all__ = ["agreed_digest", "agreed_facts", "digest", "first_link", "next_link"]

_DOMAIN = b"quancrypt chain v1\n"
_AGREED = b"quancrypt agreed v1\n"


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def agreed_facts(agreement: Agreement, params: str) -> dict[str, Any]:
    """What the parties agreed on, as JSON has it: the method, and the parameters' fingerprint.

    Without turns nothing is said of them, as in trainings that began before there were any.
    """
    unsaid = None if agreement.turns else {"turns"}
    return {"agreement": agreement.model_dump(mode="json", exclude=unsaid), "params": params}


def agreed_digest(
    facts: Mapping[str, Any], floats: Mapping[str, str], constants: Mapping[str, NDArray[Any]]
) -> str:
    """SHA-256 of all that every request of a training says alike.

    Parameters
    ----------
    facts
        See :func:`agreed_facts`.
    floats
        Element type of each tensor that is summed, in order.
    constants
        The model's other tensors.
    """
    agreed = hashlib.sha256(_AGREED)
    agreed.update(json.dumps([facts, list(floats.items())], sort_keys=True).encode())
    for name, tensor in sorted(constants.items()):
        _add(agreed, name, tensor)
    return agreed.hexdigest()


def first_link(training: str, facts: Mapping[str, Any], model: Mapping[str, NDArray[Any]]) -> str:
    """Chain id of the initial model.

    Parameters
    ----------
    training
        Id of the training.
    facts
        See :func:`agreed_facts`.
    model
        All tensors of the initial model by name, in their order.
    """
    chain = hashlib.sha256(_DOMAIN)
    chain.update(json.dumps([training, facts], sort_keys=True).encode())
    for name, tensor in model.items():
        _add(chain, name, tensor)
    return chain.hexdigest()


def next_link(chain: str, *, round: int, weight: int, scale: float, sum_digest: str) -> str:
    """Chain id after a round; ``weight`` 0 and ``sum_digest`` "" if it had no sum."""
    facts = json.dumps([chain, round, weight, scale.hex(), sum_digest])
    return hashlib.sha256(_DOMAIN + facts.encode()).hexdigest()


def _add(hashed: hashlib._Hash, name: str, tensor: NDArray[Any]) -> None:
    hashed.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
    hashed.update(np.ascontiguousarray(tensor).tobytes())
