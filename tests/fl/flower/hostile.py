"""What a hostile client replies: edits of an honest reply, for the faults `Replace` and `Damage`.

Edits for ``Replace`` leave a message that Flower accepts; the strategy must find what is wrong.
They change every array of every ArrayRecord and keep names and metadata, or say otherwise.
Edits for ``Damage`` make objects that Flower's own ``inflate`` trips over, which raises out of
``pull_messages``.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.app.message import make_message
from flwr.common.constant import ErrorCode, SType
from flwr.supercore.constant import HEAD_BODY_DIVIDER
from flwr.supercore.inflatable.inflatable_object import (
    get_object_head_values_from_object_content,
    get_object_id,
)

MessageEdit = Callable[[Message], Message]
ObjectEdit = Callable[[dict[str, bytes], str], tuple[dict[str, bytes], str]]

# Edits of a message's content.


def each_array(change: Callable[[Array], Array]) -> MessageEdit:
    """Change every array of the reply."""

    def edit(reply: Message) -> Message:
        content = RecordDict()
        for name, record in reply.content.items():
            if isinstance(record, ArrayRecord):
                record = ArrayRecord({key: change(array) for key, array in record.items()})
            content[name] = record
        return make_message(reply.metadata, content)

    return edit


def each_payload(change: Callable[[bytes], bytes]) -> MessageEdit:
    """Change the bytes in every one-dimensional uint8 array: uploads, reports, snapshots.

    The project's are in a serialization of its own, the bytes themselves.
    """

    def edit(array: Array) -> Array:
        if array.dtype != "uint8" or len(array.shape) != 1:
            return array
        if array.stype == SType.NUMPY:
            return Array(np.frombuffer(change(array.numpy().tobytes()), np.uint8))
        data = change(array.data)
        return Array("uint8", (len(data),), array.stype, data)

    return each_array(edit)


def random_payload(seed: int = 0) -> MessageEdit:
    """Bytes at random, as many as there were."""
    random = np.random.default_rng(seed)
    return each_payload(lambda data: random.bytes(len(data)))


def truncated_payload(keep: float = 0.5) -> MessageEdit:
    """The first part of the bytes."""
    return each_payload(lambda data: data[: int(len(data) * keep)])


def extended_payload(extra: int = 1) -> MessageEdit:
    """Bytes after the end."""
    return each_payload(lambda data: data + bytes(extra))


def flipped_bit(position: float = 0.5) -> MessageEdit:
    """One bit another; ``position`` in [0, 1) of the bytes."""

    def change(data: bytes) -> bytes:
        changed = bytearray(data)
        changed[int(len(data) * position)] ^= 1
        return bytes(changed)

    return each_payload(change)


def huge_counts(offset: int = 8, length: int = 56) -> MessageEdit:
    """Every length and count that the payload states near its beginning is the largest there is."""
    return each_payload(lambda data: data[:offset] + b"\xff" * length + data[offset + length :])


def empty_payload() -> MessageEdit:
    """No bytes at all."""
    return each_payload(lambda data: b"")


def _npy(header: str, body: bytes = b"") -> bytes:
    text = header.encode("latin1")
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


def huge_shape(shape: tuple[int, ...] = (2**40,)) -> MessageEdit:
    """An array that says it is a terabyte, and holds 16 bytes."""
    data = _npy(f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}", bytes(16))
    return each_array(lambda array: Array(dtype="uint8", shape=shape, stype=SType.NUMPY, data=data))


def pickled_array() -> MessageEdit:
    """An array of Python objects, which only unpickling could read."""
    stream = io.BytesIO()
    np.save(stream, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    data = stream.getvalue()
    return each_array(lambda array: Array(dtype="object", shape=(1,), stype=SType.NUMPY, data=data))


def not_an_array() -> MessageEdit:
    """Bytes where an array in NumPy's format belongs."""
    return each_array(
        lambda array: Array(dtype="uint8", shape=(64,), stype=SType.NUMPY, data=b"\x00\xff" * 32)
    )


def other_stype() -> MessageEdit:
    """An array in a serialization that nobody knows."""
    return each_array(lambda a: Array(dtype=a.dtype, shape=a.shape, stype="pickle", data=a.data))


def lying_shape() -> MessageEdit:
    """Flower's fields say one shape and type, the data another."""
    return each_array(lambda a: Array(dtype="float64", shape=(3, 5), stype=a.stype, data=a.data))


def float_arrays(value: float = np.nan) -> MessageEdit:
    """Every array is of float64, 16 times ``value``."""
    return each_array(lambda array: Array(np.full(16, value)))


def many_arrays(count: int = 1000) -> MessageEdit:
    """Arrays that nobody asked for, beside the honest ones."""

    def edit(reply: Message) -> Message:
        content = RecordDict(dict(reply.content.items()))
        for name, record in reply.content.array_records.items():
            extra = {f"extra-{i}": Array(np.zeros(1, np.uint8)) for i in range(count)}
            content[name] = ArrayRecord({**record, **extra})
        return make_message(reply.metadata, content)

    return edit


def header(change: Callable[[str], str]) -> MessageEdit:
    """Change the JSON texts of the ConfigRecord "quancrypt"."""

    def edit(reply: Message) -> Message:
        content = RecordDict(dict(reply.content.items()))
        record = reply.content["quancrypt"]
        content["quancrypt"] = ConfigRecord(
            {k: change(v) if isinstance(v, str) else v for k, v in record.items()}  # type: ignore[arg-type]
        )
        return make_message(reply.metadata, content)

    return edit


def header_with(**fields: object) -> MessageEdit:
    """Other values of some header fields, or fields that there are not: ``round=7``."""
    return header(lambda text: json.dumps({**json.loads(text), **fields}))


def header_without(*names: str) -> MessageEdit:
    """Header fields left out."""
    return header(
        lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k not in names})
    )


def huge_header(nbytes: int = 8 << 20) -> MessageEdit:
    """A header of megabytes: valid JSON, the honest fields among them."""
    return header_with(padding="x" * nbytes)


def deep_header(depth: int = 100_000) -> MessageEdit:
    """A header so deeply nested that a recursive parser overflows."""
    return header(lambda text: "[" * depth + "]" * depth)


def broken_header() -> MessageEdit:
    """Half of the header's text: not JSON."""
    return header(lambda text: text[: len(text) // 2])


def without_records(*names: str) -> MessageEdit:
    """A reply without some records, or without any."""
    return lambda reply: make_message(
        reply.metadata,
        RecordDict({k: v for k, v in reply.content.items() if names and k not in names}),
    )


def other_kinds() -> MessageEdit:
    """Every record is a MetricRecord, under the name of the honest one."""
    return lambda reply: make_message(
        reply.metadata, RecordDict({name: MetricRecord({"a": 1}) for name in reply.content})
    )


def metrics_with(values: Mapping[str, int | float | list[int] | list[float]]) -> MessageEdit:
    """Other values in every MetricRecord: ``{"num-examples": -5}``, NaN, lists for numbers."""

    def edit(reply: Message) -> Message:
        content = RecordDict(dict(reply.content.items()))
        for name, record in reply.content.metric_records.items():
            content[name] = MetricRecord({**record, **values})
        return make_message(reply.metadata, content)

    return edit


def long_error(nbytes: int = 1 << 20) -> MessageEdit:
    """An error reply whose reason is a megabyte of control characters."""
    reason = "\x1b[2J\n" * (nbytes // 5)
    return lambda reply: make_message(
        reply.metadata, error=Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason)
    )


# Edits of a message's serialized objects.


def object_body(kind: str, change: Callable[[bytes], bytes]) -> ObjectEdit:
    """Change the body of every object of a kind (Message, RecordDict, ArrayRecord, Array, ...).

    IDs and lengths are made right again, all the way up: a SuperLink accepts these objects.
    """

    def edit(contents: dict[str, bytes], root: str) -> tuple[dict[str, bytes], str]:
        renamed: dict[bytes, bytes] = {}
        changed: dict[str, bytes] = {}
        found = False
        for old, content in contents.items():  # children come before their parents
            head, _, body = content.partition(HEAD_BODY_DIVIDER)
            object_kind, children, _ = get_object_head_values_from_object_content(content)
            if children:
                for before, after in renamed.items():
                    head, body = head.replace(before, after), body.replace(before, after)
            if object_kind == kind:
                found = True
                body = change(body)
            head = head[: head.rindex(b" ") + 1] + str(len(body)).encode()
            content = head + HEAD_BODY_DIVIDER + body
            new = get_object_id(content)
            renamed[old.encode()] = new.encode()
            changed[new] = content
            if old == root:
                root = new
        if not found:
            raise LookupError(f"the reply has no object of kind {kind}")
        return changed, root

    return edit


def unreadable(kind: str = "ArrayRecord") -> ObjectEdit:
    """Objects that the SuperLink accepts and that do not inflate: a body that is not JSON."""
    return object_body(kind, lambda body: b"{not json")


def refused(kind: str = "ArrayChunk") -> ObjectEdit:
    """Objects that the SuperLink refuses, their content not what the ID says: never available."""

    def edit(contents: dict[str, bytes], root: str) -> tuple[dict[str, bytes], str]:
        return {
            key: content[:-1] if content.startswith(kind.encode() + b" ") else content
            for key, content in contents.items()
        }, root

    return edit
