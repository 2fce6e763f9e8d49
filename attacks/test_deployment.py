"""What a client, or whoever holds its node, sends to a deployment's server, and the reverse."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.fl.flower.states import TRAINING, held
from tests.native.conftest import Party

import quancrypt_native as qn
from quancrypt_fl.flower.protocol import MAX_REPLY_HEADER_BYTES, RECORD, ProtocolError, read_reply
from quancrypt_fl.flower.snapshot import SnapshotError, open_snapshot, seal_snapshot
from quancrypt_fl.flower.snapshot_prefix import PREFIX
from quancrypt_fl.flower.sums import Sums
from quancrypt_fl.flower.tensors_file import TensorsFileError, unpack
from quancrypt_fl.report.reading import MAX_BYTES, read_json
from quancrypt_fl.report.values import UntrustedError

HONEST: dict[str, Any] = {
    "training": TRAINING,
    "round": 1,
    "chain": "0" * 64,
    "did": ["train", "upload"],
    "key": "0" * 32,
    "params": "0" * 32,
    "samples": 7,
}


def reply_of(text: Any) -> Any:
    return SimpleNamespace(content=SimpleNamespace(config_records={RECORD: {"header": text}}))


def test_the_honest_header_is_read() -> None:
    """Idea: none; what follows changes this header.
    Refused by: nothing."""
    assert read_reply(reply_of(json.dumps(HONEST))).samples == 7


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({**HONEST, "padding": "x" * MAX_REPLY_HEADER_BYTES}),
        "[" * 8000,
        '{"a":' * 1500,
        json.dumps(HONEST)[:-1] + ', "round": 2}',
        "",
        None,
        b"{}",
        7,
    ],
    ids=lambda text: repr(text)[:20],
)
def test_reply_headers_that_cost(text: Any) -> None:
    """Idea: a header of megabytes, one nested to the parser's limit, half of one, or none.
    Refused by: `protocol.read_reply`: 8 KiB, then one level of typed fields.
    A field that stands twice counts once, as its last value: that is read, not refused."""
    if isinstance(text, str) and text.endswith('"round": 2}'):
        assert read_reply(reply_of(text)).round == 2
        return
    with pytest.raises(ProtocolError):
        read_reply(reply_of(text))


@pytest.mark.parametrize(
    "fields",
    [
        {"round": -1},
        {"round": 2**31},
        {"round": 1.0},
        {"round": "1"},
        {"samples": -5},
        {"samples": 2**53},
        {"loss": float("nan")},
        {"seconds": {"train": -1.0}},
        {"seconds": {"rest": 1.0}},
        {"parts": 65_537},
        {"did": ["sell"]},
        {"did": ["train"] * 12},
        {"training": "../../etc"},
        {"key": "0" * 31},
        {"version": 2},
        {"admin": True},
    ],
    ids=str,
)
def test_reply_headers_that_lie(fields: dict[str, Any]) -> None:
    """Idea: counts below zero or beyond a float, NaN losses, unknown steps, paths, other versions.
    Refused by: the types and ranges of `protocol.Reply`; unknown fields are refused too."""
    with pytest.raises(ProtocolError, match="the header is not valid"):
        read_reply(reply_of(json.dumps({**HONEST, **fields})))


def test_sums_that_state_more_than_they_hold() -> None:
    """Idea: the length of a sum of reports beyond the bytes that are there.
    Refused by: `Sums.from_bytes`."""
    for length in (1, 2**63, 2**64 - 1):
        with pytest.raises(ProtocolError, match="are not there"):
            Sums.from_bytes(length.to_bytes(8, "little") + bytes(8))
    with pytest.raises(ProtocolError, match="too few"):
        Sums.from_bytes(bytes(15))


def test_snapshots_that_state_a_size(victim: Party) -> None:
    """Idea: a snapshot whose plaintext is said to take 2^60 bytes.
    Refused by: `said_by`: the sealed length must follow from it, before anything is allocated."""
    state = held()
    data = seal_snapshot(state, TRAINING, victim.keys.secret)
    fields = PREFIX.unpack(data[: PREFIX.size])
    for size in (0, 2**60, 2**64 - 1):
        changed = PREFIX.pack(*fields[:-1], size) + data[PREFIX.size :]
        tracemalloc.start()
        with pytest.raises(SnapshotError, match="when sealed"):
            open_snapshot(changed, TRAINING, victim.keys.secret, round=3, chain=state.chain)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1 << 20


def test_snapshots_of_another_state(victim: Party) -> None:
    """Idea: hand a joining client an old snapshot, or one of another training, as the newest.
    Refused by: round, chain and training, which stand under the seal and are compared."""
    state = held()
    key = victim.keys.secret
    data = seal_snapshot(state, TRAINING, key)
    fields = list(PREFIX.unpack(data[: PREFIX.size]))
    with pytest.raises(SnapshotError, match="is of round 3, not 4"):
        open_snapshot(data, TRAINING, key, round=4, chain=state.chain)
    fields[3] = 4
    changed = PREFIX.pack(*fields) + data[PREFIX.size :]
    with pytest.raises(SnapshotError, match="does not open"):
        open_snapshot(changed, TRAINING, key, round=4, chain=state.chain)


def test_snapshots_in_another_order(victim: Party, monkeypatch: pytest.MonkeyPatch) -> None:
    """Idea: leave out, repeat or swap sealed chunks of a snapshot.
    Refused by: nonces that count chunks and mark the last (STREAM)."""
    monkeypatch.setattr("quancrypt_fl.flower.snapshot_prefix.CHUNK_BYTES", 128)
    state = held()
    key = victim.keys.secret
    data = seal_snapshot(state, TRAINING, key)
    sealed, step = data[PREFIX.size :], 128 + 16
    pieces = [sealed[at : at + step] for at in range(0, len(sealed), step)]
    assert len(pieces) >= 3
    swapped = b"".join([pieces[1], pieces[0], *pieces[2:]])
    repeated = b"".join([pieces[0], pieces[0], *pieces[2:]])
    for changed in (swapped, repeated):
        whole = data[: PREFIX.size] + changed
        with pytest.raises(SnapshotError, match="does not open"):
            open_snapshot(whole, TRAINING, key, round=3, chain=state.chain)


def test_tensor_files_that_state_a_length() -> None:
    """Idea: a header of 2^63 bytes in a file of tensors.
    Refused by: `tensors_file`: a limit, and the bytes that are there."""
    for length in (2**63, 2**24 + 8, 10_000):
        data = bytearray(length.to_bytes(8, "little") + b'{"__metadata__":{"sha256":"' + b"0" * 90)
        with pytest.raises(TensorsFileError, match="header of"):
            unpack(data)


def test_reports_on_pipes_and_devices(tmp_path: Path) -> None:
    """Idea: a pipe, a device or gigabytes of zeros in the place of a `results.json`.
    Refused by: `read_json`: regular files of at most 32 MiB, opened without waiting."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for name in ("pipe", "link"):
        with pytest.raises(UntrustedError, match="not a regular file"):
            read_json(tmp_path / name)
    large = tmp_path / "large"
    with large.open("wb") as stream:
        stream.truncate(MAX_BYTES + 1)
    with pytest.raises(UntrustedError, match="larger than 32 MiB"):
        read_json(large)
    deep = tmp_path / "deep"
    deep.write_text("[" * 100_000)
    with pytest.raises(UntrustedError, match="nested too deeply"):
        read_json(deep)


def test_pickles_are_never_loaded(victim: Party) -> None:
    """Idea: a pickle in place of an update, which runs code where it is loaded.
    Refused by: the magic; nothing in either package unpickles what comes from outside."""
    import pickle

    update = victim.encryptor.encrypt(np.ones(3), clip=1.0)
    with pytest.raises(qn.WireFormatError, match="wrong magic"):
        qn.EncryptedUpdate.from_bytes(pickle.dumps(update), victim.params)
