"""What of a reply is signed: everything that the other side reads of it, in one order of bytes.

The seal travels beside the bytes that it covers, as one more of them; nothing is copied for it.
Each part has its kind, name and length before it, so that no two replies have the same bytes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from quancrypt_fl.envelopes import Purpose
from quancrypt_fl.flower.protocol import CEREMONY, DATA, RECORD, Ask, Reply

__all__ = ["SEAL", "purpose_of", "purpose_of_steps", "seal_of", "signed_parts", "with_seal"]

SEAL = "envelope"
"""Name of the seal among the bytes of a reply."""

_FRAME = struct.Struct("<cIQ")  # kind, bytes of the name, bytes of the content


def purpose_of(reply: Reply) -> Purpose:
    """What a reply with this header is for: the weightiest of the steps done."""
    return Purpose.CATCH_UP if reply.behind else purpose_of_steps(reply.did)


def purpose_of_steps(steps: Iterable[Ask]) -> Purpose:
    """What a reply is for whose sender did these steps."""
    done = set(steps)
    for step in ("upload", "report", "train", "finish", "snapshot", "open", *CEREMONY):
        if step in done:
            return Purpose[step.upper()]
    return Purpose.EVALUATE


def signed_parts(content: RecordDict) -> list[bytes]:
    """The bytes that a seal covers: header, bytes by name, metrics.

    A record that is missing or of another type adds nothing: such a reply is refused elsewhere, and
    a reply whose records were taken away has another length.
    """
    return list(_parts(content))


def seal_of(content: RecordDict) -> bytes | None:
    """The seal that a reply brings, or None."""
    record = content.array_records.get(DATA)
    array = record.get(SEAL) if record is not None else None
    return None if array is None else array.data


def with_seal(content: RecordDict, seal: bytes) -> RecordDict:
    """Add a seal to a reply, and return it."""
    data = content.array_records.get(DATA, ArrayRecord())
    content[DATA] = ArrayRecord({**data, SEAL: Array("uint8", (len(seal),), RECORD, seal)})
    return content


def _parts(content: RecordDict) -> Iterator[bytes]:
    record = content.config_records.get(RECORD, ConfigRecord())
    text = record.get("header")
    if isinstance(text, str):
        yield from _framed(b"h", "", text.encode("utf-8", "surrogatepass"))
    data = content.array_records.get(DATA, ArrayRecord())
    for name in sorted(data):
        if name != SEAL:
            yield from _framed(b"d", name, data[name].data)
    for name, metrics in sorted(content.metric_records.items()):
        yield from _framed(b"m", name, _metrics(metrics))


def _framed(kind: bytes, name: str, data: bytes) -> Iterator[bytes]:
    label = name.encode("utf-8", "surrogatepass")
    yield _FRAME.pack(kind, len(label), len(data)) + label
    yield data


def _metrics(metrics: MetricRecord) -> bytes:
    """Numbers as Python writes them: exact, NaN and infinity included, 1 and 1.0 told apart."""
    return json.dumps(dict(metrics), sort_keys=True, separators=(",", ":")).encode()
