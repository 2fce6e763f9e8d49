"""States that clients keep, for tests, and how to compare them bit for bit."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from quancrypt_fl.flower.stores import Held, Pending
from quancrypt_fl.method.roles import ClientMemory, GlobalState, Tensors

__all__ = ["OTHER", "TRAINING", "bits", "held", "memory", "pending"]

TRAINING = "0123456789abcdef" * 2
OTHER = "f" * 32


def tensors(seed: int) -> dict[str, Any]:
    """Names in no order, an empty tensor, a scalar, a transposed one, and odd floats."""
    rng = np.random.default_rng(seed)
    return {
        "z.weight": rng.normal(size=(3, 4)).astype(np.float32).T,
        "a.bias": np.array([0.0, -0.0, np.inf, np.nan, 1e-45, 3.4e38], dtype=np.float32),
        "step": np.float32(seed).reshape(()),
        "none": np.empty((0, 5), dtype=np.float32),
        'Ω "quoted"/slash': rng.normal(size=7).astype(np.float32),
    }


def held(round: int = 3, *, bounds: bool = True) -> Held:
    weights = tensors(round)
    limits = {name: 0.1 + i / 3 for i, name in enumerate(weights)} if bounds else None
    chain = hashlib.sha256(str(round).encode()).hexdigest()
    return Held(GlobalState(round, weights, limits), chain)


def pending(round: int = 3, *, residual: bool = False) -> Pending:
    return Pending(
        round=round,
        chain=held(round).chain,
        weights=tensors(round + 100),
        loss=float("nan") if round % 2 else 0.1 + round,
        samples=120 + round,
        metrics={"num-examples": 120, "loss": 1.0, "bad": float("inf"), "all": [1, 2], "e": []},
        seconds=1.5,
        residual=tensors(round + 200) if residual else None,
    )


def memory(round: int = 3) -> ClientMemory:
    return ClientMemory(tensors(round + 300), {"running.mean": np.ones(3, dtype=np.float32)})


def bits(value: Any) -> Any:
    """A value that equals another one only if every tensor is the same, bit by bit, in order."""
    match value:
        case Held():
            state = value.state
            limits = None if state.bounds is None else list(state.bounds.items())
            return "held", state.round, value.chain, limits, _of(state.weights)
        case Pending():
            residual = None if value.residual is None else _of(value.residual)
            facts = (value.round, value.chain, value.samples, value.seconds)
            return (
                "pending",
                facts,
                repr(value.loss),
                repr(value.metrics),
                residual,
                _of(value.weights),
            )
        case ClientMemory():
            return "memory", _of(value.residual), _of(value.buffers)
        case None:
            return None
    raise TypeError(type(value).__name__)


def _of(tensors: Tensors) -> list[tuple[str, str, tuple[int, ...], bytes]]:
    return [
        (n, t.dtype.str, t.shape, np.ascontiguousarray(t).tobytes()) for n, t in tensors.items()
    ]
