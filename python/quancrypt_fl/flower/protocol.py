"""What strategy and mod say to each other, on top of Flower's messages.

A request is a TRAIN or EVALUATE message with, beside what a Flower app expects, a ConfigRecord
``quancrypt`` (a JSON header), an ArrayRecord ``quancrypt-data`` (bytes by name), and an ArrayRecord
``quancrypt-constants`` (tensors of the model that are not summed). It names the global state that
the client must hold and *asks* for steps. A reply names the state it stems from. Headers come from
strangers: their size is bounded, and each field has a type and a range.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from quancrypt_fl.errors import FederatedError
from quancrypt_fl.method.agreement import Agreement
from quancrypt_fl.method.participation import MOST_PARTIES

__all__ = [
    "ASKS",
    "CEREMONY",
    "CONSTANTS",
    "DATA",
    "RECORD",
    "Joint",
    "Link",
    "Opening",
    "ProtocolError",
    "RegionTask",
    "Reply",
    "Request",
    "blobs_of",
    "floats_of",
    "is_request",
    "read_reply",
    "read_request",
    "without_ours",
    "write",
]

RECORD = "quancrypt"
DATA = "quancrypt-data"
CONSTANTS = "quancrypt-constants"
"""Keys of our records in a message."""

CEREMONY = ("deal", "share", "join")
"""What it takes to make a joint key, in this order: see :mod:`.parties`."""

ASKS = (*CEREMONY, "open", "train", "report", "upload", "snapshot", "finish")
"""What a server may ask for, in the order in which a client does it."""

MAX_HEADER_BYTES = 2**24  # a request lists every tensor of the model
MAX_REPLY_HEADER_BYTES = 2**13

Ask = Literal["deal", "share", "join", "open", "train", "report", "upload", "snapshot", "finish"]
Phase = Literal["train", "protect", "unprotect", "open", "key"]
Hex32 = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
Hex64 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Round = Annotated[int, Field(ge=0, lt=2**31)]
PartyIndex = Annotated[int, Field(ge=0, lt=MOST_PARTIES)]
Scale = Annotated[float, Field(gt=0, lt=1e9, allow_inf_nan=False)]


class ProtocolError(FederatedError, ValueError):
    """A message is not what the other side must send: damaged, forged, or of another version."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Link(_Strict):
    """A finished round as a client needs it to follow: see :mod:`.chain`.

    Attributes
    ----------
    round
        Rounds finished before it.
    weight
        Total weight of its sum; 0 if the round failed and has none.
    scale
        Factor to the mean where clients scaled their updates and some have not arrived; else 1.
    digest
        SHA-256 of the sum's bytes, which travel as ``sum-<round>``; "" if there is none.
    counted
        Whether the sum contains this client's own update.
    """

    round: Round
    weight: int = Field(ge=0, le=65_536)
    scale: Scale = 1.0
    digest: str = Field(pattern="^([0-9a-f]{64})?$")
    counted: bool = False


class RegionTask(_Strict):
    """What a region has to know beside what its clients are told; see :mod:`.region`.

    Attributes
    ----------
    shapes
        Shape of each tensor that is summed, in order.
    most
        Largest weight of its sum: its clients count 1 each.
    """

    shapes: Mapping[str, tuple[Annotated[int, Field(ge=0)], ...]]
    most: int = Field(ge=1, le=65_536)


class Joint(_Strict):
    """The joint key, where nobody has the key of updates.

    Attributes
    ----------
    ceremony
        Fingerprint of the ceremony: parameters, parties, threshold and common seed.
    key
        Fingerprint of the joint public key, once there is one.
    """

    ceremony: Hex64
    key: Hex32 | None = None


class Opening(_Strict):
    """A sum to be opened, whose bytes travel as ``total``.

    Attributes
    ----------
    participants
        Parties that open it, ascending.
    """

    participants: Annotated[tuple[PartyIndex, ...], Field(min_length=2, max_length=MOST_PARTIES)]


class Request(_Strict):
    """Header of a request.

    Attributes
    ----------
    training
        Id of the training.
    round, chain
        State that the client must hold: rounds finished, and chain id.
    asks
        Steps to do in it, see :data:`ASKS`; none for a message that only evaluates.
    agreement
        The method.
    names
        All tensors of the model in their order; ``floats`` are those that are trained together.
    floats
        Element type of each tensor that is summed.
    links
        Rounds to catch up with, oldest first.
    snapshot
        (rounds finished, chain id) of the sealed snapshot in the message, if there is one.
    counted
        With a snapshot: the state (rounds finished, chain id) from which the client trained its
        last update that is in a sum. The snapshot may lead past the link that says so.
    initial
        Whether the message holds the initial model.
    scale
        The client's scale before clipping.
    reports_weight
        Total weight of the sum of reports in the message.
    arrays_key, count_key
        Where the app expects the model, and where its metrics say how many samples it used.
    region
        For a node that is a region.
    key
        Fingerprint of the clients' key, if the server knows it beforehand: a client with another
        one says so, and trains nothing.
    joint, opening
        With a joint key: which one; and what to open, where ``open`` is asked for.
    """

    version: Literal[1] = 1
    training: Hex32
    round: Round
    chain: Hex64
    asks: tuple[Ask, ...] = ()
    agreement: Agreement
    names: tuple[str, ...]
    floats: Mapping[str, str]
    links: tuple[Link, ...] = ()
    snapshot: tuple[Round, Hex64] | None = None
    counted: tuple[Round, Hex64] | None = None
    initial: bool = False
    scale: Scale = 1.0
    reports_weight: int = Field(default=0, ge=0, le=65_536)
    arrays_key: str = "arrays"
    count_key: str = "num-examples"
    region: RegionTask | None = None
    key: str | None = Field(default=None, max_length=64)
    joint: Joint | None = None
    opening: Opening | None = None


class Reply(_Strict):
    """Header of a reply.

    Attributes
    ----------
    training, round, chain
        The state in which the client did what it was asked for.
    did
        Steps done; empty if the client has to catch up first.
    key, params
        Fingerprints of its key and of the encryption parameters.
    name
        What the client calls itself, for people.
    held
        (rounds finished, chain id) of the state that it holds, or None.
    behind
        It cannot reach the state asked for, and needs what lies between.
    damaged
        Rounds finished of a snapshot that it could not open.
    samples, loss
        Of its training.
    seconds
        Wall-clock seconds by phase.
    parts
        Of a region: clients that did the steps, which is the weight of its sum.
    party, joint
        With a joint key: index of the client's party, and fingerprint of the key that it has
        joined.
    """

    version: Literal[1] = 1
    training: Hex32
    round: Round
    chain: Hex64
    did: tuple[Ask, ...] = Field(default=(), max_length=len(ASKS))
    key: Hex32
    params: Hex32
    name: str = Field(default="", max_length=64)
    held: tuple[Round, Hex64] | None = None
    behind: bool = False
    damaged: Round | None = None
    samples: int = Field(default=0, ge=0, lt=2**53)
    loss: Annotated[float, Field(allow_inf_nan=False)] | None = None
    seconds: Mapping[Phase, Annotated[float, Field(ge=0, lt=1e9, allow_inf_nan=False)]] = Field(
        default_factory=dict
    )
    parts: int = Field(default=1, ge=1, le=65_536)
    party: PartyIndex | None = None
    joint: Hex32 | None = None


Header = TypeVar("Header", Request, Reply)


def write(header: Request | Reply, blobs: Mapping[str, bytes], content: RecordDict) -> RecordDict:
    """Add a header and bytes to the content of a message, and return it."""
    content[RECORD] = ConfigRecord({"header": header.model_dump_json()})
    content[DATA] = ArrayRecord(
        {name: Array("uint8", (len(data),), RECORD, data) for name, data in blobs.items()}
    )
    return content


def is_request(message: Message) -> bool:
    """Whether a message comes from our strategy."""
    return message.has_content() and RECORD in message.content.config_records


def read_request(message: Message) -> Request:
    """The checked header of a request."""
    return _read(message, Request, MAX_HEADER_BYTES)


def read_reply(message: Message) -> Reply:
    """The checked header of a reply.

    Raises
    ------
    ProtocolError
        If there is none, or a field is missing, unknown or out of range.
    """
    return _read(message, Reply, MAX_REPLY_HEADER_BYTES)


def blobs_of(message: Message) -> dict[str, bytes]:
    """The bytes by name that a message brings; they are still a stranger's."""
    record = message.content.array_records.get(DATA)
    return {name: array.data for name, array in record.items()} if record is not None else {}


def without_ours(content: RecordDict) -> RecordDict:
    """The content that a Flower app knows of."""
    ours = (RECORD, DATA, CONSTANTS)
    return RecordDict({name: record for name, record in content.items() if name not in ours})


def floats_of(record: ArrayRecord, names: Iterable[str]) -> dict[str, NDArray[np.float32]]:
    """Named tensors of a model as float32."""
    return {name: np.asarray(record[name].numpy(), dtype=np.float32) for name in names}


def _read(message: Message, kind: type[Header], limit: int) -> Header:
    record: Any = message.content.config_records.get(RECORD)
    text = record.get("header") if record is not None else None
    if not isinstance(text, str):
        raise ProtocolError("the message has no quancrypt header")
    if len(text) > limit:
        raise ProtocolError(f"the header has {len(text)} characters; allowed: {limit}")
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        from quancrypt_fl.config import (
            describe_errors,  # a message's process has no other use of it
        )

        shown = describe_errors(error)
        raise ProtocolError(f"the header is not valid: {shown[:300]}") from None
