"""What a client has to keep from one message to the next, and how it is written as bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from quancrypt_fl.flower.tensors_file import TensorsFileError, pack, unpack
from quancrypt_fl.method.roles import ClientMemory, GlobalState, Tensors

__all__ = [
    "Held",
    "Metrics",
    "Pending",
    "held_bytes",
    "memory_bytes",
    "pending_bytes",
    "read_held",
    "read_memory",
    "read_pending",
]

Metrics = Mapping[str, int | float | list[int] | list[float]]


@dataclass(frozen=True)
class Held:
    """The global state that a client holds.

    Attributes
    ----------
    state
        The state.
    chain
        Its chain id, 64 hexadecimal digits; see :mod:`quancrypt_fl.flower.chain`.
    agreed
        What the training was agreed on, see :func:`.chain.agreed_digest`. None if a version before
        wrote it: nothing is trained from such a state.
    """

    state: GlobalState
    chain: str
    agreed: str | None = None


@dataclass(frozen=True)
class Pending:
    """A finished local training whose update is not yet counted.

    Attributes
    ----------
    round, chain
        Of the state that it started from.
    weights
        Trained weights.
    loss
        Mean training loss, possibly NaN.
    samples
        Number of training samples.
    metrics
        The app's metrics, to be sent, and sent again if the server asks once more.
    seconds
        Wall-clock seconds of the training.
    residual
        What error feedback carries over if the upload is counted; None before an upload.
    dither
        Seed of stochastic rounding where the agreement has none: an update that is encrypted once
        more is rounded alike. None if a version before wrote it.
    agreed
        As :attr:`Held.agreed`, of the state that it started from.
    """

    round: int
    chain: str
    weights: Tensors
    loss: float
    samples: int
    metrics: Metrics
    seconds: float
    residual: Tensors | None = None
    dither: int | None = None
    agreed: str | None = None


_WIDEST = 2.2250738585072014e-308  # no positive float is longer in JSON: 23 characters

_Round = Annotated[int, Field(ge=0, lt=2**63)]
_Chain = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_Bound = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: Literal[1]
    training: str


class _HeldFacts(_Facts):
    kind: Literal["held"]
    round: _Round
    chain: _Chain
    bounds: dict[str, _Bound] | None
    agreed: _Chain | None = None
    pad: str = ""


class _PendingFacts(_Facts):
    kind: Literal["pending"]
    round: _Round
    chain: _Chain
    loss: float
    samples: Annotated[int, Field(ge=0)]
    metrics: dict[str, Any]
    seconds: float
    residual: bool
    dither: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    agreed: _Chain | None = None


class _MemoryFacts(_Facts):
    kind: Literal["memory"]


def held_bytes(held: Held, training: str) -> bytearray:
    """A global state of a training."""
    state = held.state
    bounds = None if state.bounds is None else {n: float(b) for n, b in state.bounds.items()}
    # A snapshot of it shows its length, which must not tell what the bounds are, or if there are
    # any: whether sums open is an oracle for the key.
    widest = dict.fromkeys(state.weights, _WIDEST)
    document = {
        "kind": "held",
        "round": state.round,
        "chain": held.chain,
        "bounds": bounds,
        "agreed": held.agreed,
        "pad": " " * max(0, _length(widest) - _length(bounds)),
    }
    return _pack(document, training, {"weights": held.state.weights})


def _length(bounds: Mapping[str, float] | None) -> int:
    """Characters that it takes in the header of a file of tensors: JSON in a text of JSON."""
    return len(json.dumps(json.dumps(bounds)))


def read_held(data: bytearray, training: str) -> Held:
    """Inverse of :func:`held_bytes`; a TensorsFileError says what is wrong."""
    facts, parts = _unpack(data, training, _HeldFacts, "weights")
    state = GlobalState(facts.round, parts["weights"], facts.bounds)
    return Held(state, facts.chain, facts.agreed)


def pending_bytes(pending: Pending, training: str) -> bytearray:
    """A finished training."""
    document = {
        "kind": "pending",
        "round": pending.round,
        "chain": pending.chain,
        "loss": float(pending.loss),
        "samples": pending.samples,
        "metrics": dict(pending.metrics),
        "seconds": float(pending.seconds),
        "residual": pending.residual is not None,
        "dither": pending.dither,
        "agreed": pending.agreed,
    }
    parts = {"weights": pending.weights, "residual": pending.residual or {}}
    return _pack(document, training, parts)


def read_pending(data: bytearray, training: str) -> Pending:
    """Inverse of :func:`pending_bytes`; a TensorsFileError says what is wrong."""
    facts, parts = _unpack(data, training, _PendingFacts, "weights", "residual")
    return Pending(
        round=facts.round,
        chain=facts.chain,
        weights=parts["weights"],
        loss=facts.loss,
        samples=facts.samples,
        metrics=facts.metrics,
        seconds=facts.seconds,
        residual=parts["residual"] if facts.residual else None,
        dither=facts.dither,
        agreed=facts.agreed,
    )


def memory_bytes(memory: ClientMemory, training: str) -> bytearray:
    """What a client alone keeps."""
    parts = {"residual": memory.residual, "buffers": memory.buffers}
    return _pack({"kind": "memory"}, training, parts)


def read_memory(data: bytearray, training: str) -> ClientMemory:
    """Inverse of :func:`memory_bytes`; a TensorsFileError says what is wrong."""
    _, parts = _unpack(data, training, _MemoryFacts, "residual", "buffers")
    return ClientMemory(parts["residual"], parts["buffers"])


def _pack(document: Mapping[str, Any], training: str, parts: Mapping[str, Tensors]) -> bytearray:
    named = {
        f"{part}/{name}": tensor
        for part, tensors in parts.items()
        for name, tensor in tensors.items()
    }
    return pack({"version": 1, "training": training, **document}, named)


FactsOf = TypeVar("FactsOf", bound=_Facts)


def _unpack(
    data: bytearray, training: str, kind: type[FactsOf], *parts: str
) -> tuple[FactsOf, dict[str, Tensors]]:
    document, named = unpack(data)
    try:
        facts = kind.model_validate(document)
    except ValidationError as error:
        # Without the values: clip bounds are no matter for a log.
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise TensorsFileError(f"wrong facts: {place}: {first['msg']}"[:200]) from None
    if facts.training != training:
        raise TensorsFileError(f"of the training {facts.training!r:.40}, not {training!r}")
    found: dict[str, dict[str, Any]] = {part: {} for part in parts}
    for full, tensor in named.items():
        part, _, name = full.partition("/")
        if part not in found:
            raise TensorsFileError(f"an unknown tensor {full!r:.80}")
        found[part][name] = tensor
    return facts, dict(found)
