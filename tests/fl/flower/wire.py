"""Flower's messages as bytes: serialized objects by ID, and what a SuperLink does to them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from flwr.app import Error, Message, Metadata, RecordDict
from flwr.app.message import make_message
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.supercore.constant import SYSTEM_MESSAGE_TYPE
from flwr.supercore.date import now
from flwr.supercore.inflatable.inflatable_object import (
    UnexpectedObjectContentError,
    get_all_nested_objects,
    get_object_id,
)
from flwr.supercore.inflatable.inflatable_utils import (
    inflate_object_from_contents,
    validate_object_content,
)


@dataclass(frozen=True)
class Traffic:
    """One message on the wire: bytes of its serialized objects, each object once."""

    node: int
    direction: Literal["down", "up"]
    message_type: str
    round: int | None
    asks: tuple[str, ...]
    nbytes: int


def deflate(message: Message) -> dict[str, bytes]:
    """Serialize a message: the content of each nested object by its ID, children first."""
    return {key: item.deflate() for key, item in get_all_nested_objects(message).items()}


def inflate(root: str, contents: Mapping[str, bytes]) -> Message:
    """Build a message from its serialized objects; raises what Flower raises on damaged ones."""
    message = inflate_object_from_contents(root, dict(contents))
    if not isinstance(message, Message):
        raise ValueError(f"object {root} is a {type(message).__name__}, not a Message")
    message.metadata.__dict__["_message_id"] = root
    return message


def refusal(contents: Mapping[str, bytes]) -> str | None:
    """Say why a SuperLink would not store these objects, or None."""
    try:
        for object_id, content in contents.items():
            if get_object_id(content) != object_id:
                return f"object ID {object_id} does not match its content"
            validate_object_content(content)
    except UnexpectedObjectContentError as error:
        return str(error)
    return None


def objects_unavailable(run_id: int, message_id: str, reason: str) -> Message:
    """Make the error reply of HttpGrid for objects that the SuperLink never stored."""
    return make_message(
        metadata=Metadata(
            run_id=run_id,
            message_id="",
            src_node_id=SUPERLINK_NODE_ID,
            dst_node_id=SUPERLINK_NODE_ID,
            message_type=SYSTEM_MESSAGE_TYPE,
            group_id="",
            ttl=0,
            reply_to_message_id=message_id,
            created_at=now().timestamp(),
        ),
        error=Error(
            code=ErrorCode.MESSAGE_UNAVAILABLE,
            reason=f"Reply message objects are unavailable. {reason}",
        ),
    )


def describe(content: RecordDict) -> tuple[int | None, tuple[str, ...]]:
    """Find the round and the steps that a message asks for, in its own words.

    FedAvg's messages have ``config["server-round"]``, from 1. The project's have a JSON header in
    a ConfigRecord "quancrypt": "round" is the number of rounds finished, "asks" the steps; it goes
    before the other.
    """
    number: int | None = None
    for record in content.config_records.values():
        if isinstance(value := record.get("server-round"), int):
            number = value
    ours = content.config_records.get("quancrypt", {})
    if not isinstance(text := ours.get("header"), str):
        return number, ()
    header = json.loads(text)
    return header["round"], tuple(header["asks"])
