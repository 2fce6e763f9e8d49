"""Sealed snapshots: they come back bit for bit, or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from safetensors.numpy import load
from tests.fl.flower.states import OTHER, TRAINING, bits, held

import quancrypt_native as qn
from quancrypt_fl.flower import snapshot_prefix
from quancrypt_fl.flower.held import held_bytes
from quancrypt_fl.flower.snapshot import (
    SnapshotError,
    open_snapshot,
    seal_snapshot,
)
from quancrypt_fl.flower.snapshot_prefix import says_of_itself
from quancrypt_fl.flower.stores import Held
from quancrypt_fl.flower.tensors_file import (
    MAX_HEADER_BYTES,
    TensorsFileError,
    pack,
    unpack,
)
from quancrypt_fl.method.roles import GlobalState

PREFIX_BYTES = 106


@pytest.fixture(scope="module")
def keys() -> qn.KeyPair:
    return qn.keygen(qn.Parameters.for_aggregation(bits=8, max_weight=16, max_poly_degree=1024))


@pytest.fixture(scope="module")
def key(keys: qn.KeyPair) -> qn.SecretKey:
    return keys.secret


def reopened(data: bytes, key: qn.SecretKey, expected: Held) -> Held:
    return open_snapshot(data, TRAINING, key, round=expected.state.round, chain=expected.chain)


@pytest.mark.parametrize("bounds", [True, False])
@pytest.mark.parametrize("chunk", [1, 7, 64, 2**24])
def test_round_trip(
    key: qn.SecretKey, monkeypatch: pytest.MonkeyPatch, chunk: int, bounds: bool
) -> None:
    monkeypatch.setattr(snapshot_prefix, "CHUNK_BYTES", chunk)
    state = held(bounds=bounds)
    data = seal_snapshot(state, TRAINING, key)
    assert bits(reopened(data, key, state)) == bits(state)
    assert data != seal_snapshot(state, TRAINING, key)  # a fresh salt


def test_the_server_learns_the_facts_that_it_knows(key: qn.SecretKey) -> None:
    state = held()
    data = seal_snapshot(state, TRAINING, key)
    secrets = [t.tobytes() for t in state.state.weights.values() if t.size > 1]
    assert len(secrets) == 3
    for secret in [*secrets, b"z.weight", b"bounds", b"0.1"]:
        assert secret not in data
    assert bytes.fromhex(TRAINING) in data[:PREFIX_BYTES]
    assert bytes.fromhex(state.chain) in data[:PREFIX_BYTES]


def test_opened_by_another_implementation(key: qn.SecretKey) -> None:
    """From the description of the format: AES-GCM by hand, then the safetensors library."""
    state = held()
    data = seal_snapshot(state, TRAINING, key)
    salt, length = data[66:98], int.from_bytes(data[98:106], "little")
    subkey = key.derive(b"quancrypt_fl snapshot v1" + salt)
    plain = AESGCM(subkey).decrypt(bytes(11) + b"\x01", data[106:], data[:106])
    assert len(plain) == length
    found = load(plain)
    assert set(found) == {f"weights/{name}" for name in state.state.weights}
    for name, tensor in state.state.weights.items():
        np.testing.assert_array_equal(found[f"weights/{name}"], tensor)


def small(key: qn.SecretKey) -> tuple[Held, bytes]:
    weights = {"w": np.array([1.5, -2.0], dtype=np.float32)}
    state = Held(GlobalState(1, weights, {"w": 0.5}), held(1).chain)
    return state, seal_snapshot(state, TRAINING, key)


@pytest.mark.parametrize("chunk", [100, 2**24])
def test_every_truncation_is_refused(
    key: qn.SecretKey, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(snapshot_prefix, "CHUNK_BYTES", chunk)
    state, data = small(key)
    for size in range(len(data)):
        with pytest.raises(SnapshotError):
            reopened(data[:size], key, state)
    for tail in (b"\0", data[-16:], data):
        with pytest.raises(SnapshotError, match="present"):
            reopened(data + tail, key, state)


@pytest.mark.parametrize("chunk", [100, 2**24])
@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_every_flipped_byte_is_refused(
    key: qn.SecretKey, monkeypatch: pytest.MonkeyPatch, chunk: int, flip: int
) -> None:
    monkeypatch.setattr(snapshot_prefix, "CHUNK_BYTES", chunk)
    state, data = small(key)
    changed = bytearray(data)
    for place in range(len(data)):
        changed[place] ^= flip
        with pytest.raises(SnapshotError):
            reopened(bytes(changed), key, state)
        changed[place] ^= flip
    assert bits(reopened(bytes(changed), key, state)) == bits(state)


def test_chunks_of_one_snapshot_are_not_exchanged_or_dropped(
    key: qn.SecretKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_prefix, "CHUNK_BYTES", 64)
    state = held()
    data = seal_snapshot(state, TRAINING, key)
    body, step = data[PREFIX_BYTES:], 64 + 16
    chunks = [body[start : start + step] for start in range(0, len(body), step)]
    assert len(chunks) > 5
    swapped = [chunks[1], chunks[0], *chunks[2:]]
    with pytest.raises(SnapshotError, match="does not open"):
        reopened(data[:PREFIX_BYTES] + b"".join(swapped), key, state)
    for kept in range(1, len(chunks)):  # the length is authenticated, not only compared
        cut = data[:98] + struct.pack("<Q", 64 * kept) + b"".join(chunks[:kept])
        with pytest.raises(SnapshotError, match="does not open"):
            reopened(cut, key, state)


def test_wrong_key(key: qn.SecretKey) -> None:
    state, data = small(key)
    with pytest.raises(SnapshotError, match="another secret key sealed it, or it was changed"):
        reopened(data, qn.keygen(key.params).secret, state)


def test_of_something_else(key: qn.SecretKey) -> None:
    state, data = small(key)
    other = held(2).chain
    with pytest.raises(SnapshotError, match=f"of training {TRAINING}, not {OTHER}"):
        open_snapshot(data, OTHER, key, round=1, chain=state.chain)
    with pytest.raises(SnapshotError, match="of round 1, not 2"):
        open_snapshot(data, TRAINING, key, round=2, chain=state.chain)
    with pytest.raises(SnapshotError, match=f"of chain {state.chain}, not {other}"):
        open_snapshot(data, TRAINING, key, round=1, chain=other)
    with pytest.raises(SnapshotError, match="wrong magic"):
        reopened(b"QUANCRPT" + data[8:], key, state)
    with pytest.raises(SnapshotError, match="version 2 is not supported; supported: 1"):
        reopened(data[:8] + b"\2\0" + data[10:], key, state)
    with pytest.raises(SnapshotError, match="truncated: 3 bytes"):
        reopened(data[:3], key, state)


def test_what_a_snapshot_says_of_itself(key: qn.SecretKey) -> None:
    state, data = small(key)
    assert says_of_itself(data) == (TRAINING, 1, state.chain)
    for bad in (data[:105], data[:-1], data + b"\0", b"Q" * len(data), data[:8] + b"\2" + data[9:]):
        with pytest.raises(SnapshotError):
            says_of_itself(bad)


def test_the_clear_facts_are_authenticated(key: qn.SecretKey) -> None:
    """A server that relabels a snapshot of an earlier round does not get it opened."""
    _, data = small(key)
    later = data[:26] + struct.pack("<Q", 2) + bytes.fromhex(held(2).chain) + data[66:]
    with pytest.raises(SnapshotError, match="does not open"):
        open_snapshot(later, TRAINING, key, round=2, chain=held(2).chain)


def sealed_by_a_holder(key: qn.SecretKey, plain: bytes, state: Held) -> bytes:
    """Any plaintext, sealed as it must be: what a malicious client could make."""
    salt = os.urandom(32)
    prefix = struct.pack(
        "<8sH16sQ32s32sQ",
        b"QCSNAPSH",
        1,
        bytes.fromhex(TRAINING),
        state.state.round,
        bytes.fromhex(state.chain),
        salt,
        len(plain),
    )
    cipher = AESGCM(key.derive(b"quancrypt_fl snapshot v1" + salt))
    return prefix + cipher.encrypt(bytes(11) + b"\x01", plain, prefix)


def test_a_plaintext_of_another_state_is_refused(key: qn.SecretKey) -> None:
    state, _ = small(key)
    assert bits(
        reopened(sealed_by_a_holder(key, bytes(held_bytes(state, TRAINING)), state), key, state)
    ) == bits(state)
    for plain, reason in (
        (held_bytes(held(2), TRAINING), "another state than it says"),
        (held_bytes(Held(state.state, "0" * 64), TRAINING), "another state than it says"),
        (held_bytes(state, OTHER), f"of the training '{OTHER}'"),
        (b"x", "truncated: 1 bytes"),
    ):
        with pytest.raises(SnapshotError, match=reason):
            reopened(sealed_by_a_holder(key, bytes(plain), state), key, state)


def traced(call: Callable[[], object]) -> int:
    """Peak of bytes allocated by a call that must refuse."""
    tracemalloc.start()
    try:
        with pytest.raises((SnapshotError, TensorsFileError)):
            call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("length", [2**20, 2**40, 2**63, 2**64 - 1])
def test_huge_lengths_allocate_nothing(key: qn.SecretKey, length: int) -> None:
    state, data = small(key)
    huge = struct.pack("<Q", length)
    assert traced(lambda: reopened(data[:98] + huge + data[106:], key, state)) < 2**19
    plain = huge + bytes(held_bytes(state, TRAINING))[8:]
    assert traced(lambda: reopened(sealed_by_a_holder(key, plain, state), key, state)) < 2**19


def signed(header: Any, body: bytes = b"", text: bytes | None = None) -> bytearray:
    """A file of tensors with any header, and the checksum that belongs to it."""
    if text is None:
        header = {"__metadata__": {"sha256": "0" * 64, "document": "{}"}, **header}
        text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    data = bytearray(struct.pack("<Q", len(text)) + text + body)
    start = data.find(b'"sha256":"') + len(b'"sha256":"')
    if data[start : start + 64] == b"0" * 64:
        data[start : start + 64] = hashlib.sha256(data).hexdigest().encode()
    return data


def tensor(shape: list[Any], end: int, start: int = 0, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


START = b'{"__metadata__":{"sha256":"' + b"0" * 64 + b'"'


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (signed({"a": tensor([2**40], 2**42)}), "0 bytes of tensors; the header says"),
        (signed({"a": tensor([2**47] * 32, 8)}, bytes(8)), "does not lie where"),
        (signed({"a": tensor([2**48], 8)}, bytes(8)), "has the shape"),
        (signed({"a": tensor([0, *[2**47] * 3], 0)}), "not a file of tensors"),
        (signed({"a": tensor([0] * 33, 0)}), "33 dimensions"),
        (signed({"a": tensor([-1, -2], 8)}, bytes(8)), "has the shape"),
        (signed({"a": tensor([2.0], 8)}, bytes(8)), "has the shape"),
        (signed({"a": tensor([True], 4)}, bytes(4)), "has the shape"),
        (signed({"a": tensor([2], 8, dtype="F64")}, bytes(8)), "has the type"),
        (signed({"a": tensor([1], 8, 4)}, bytes(8)), "does not lie where"),
        (signed({"a": tensor([1], 4), "b": tensor([1], 4)}, bytes(8)), "does not lie where"),
        (signed({"a": tensor([1], 4)}, bytes(8)), "8 bytes of tensors; the header says 4"),
        (signed({"a": {"shape": [1]}}, bytes(4)), "not described as it must be"),
        (signed({"a": 3}), "not described as it must be"),
        (signed({}, text=START + b',"document":"{}"},"a":1,"a":1}'), "a name stands twice"),
        (signed({}, text=START + b"}}"), "not a file of tensors"),
        (signed({}, text=START + b',"document":7}}'), "not valid JSON"),
        (signed({}, text=START + b',"document":"' + b"[" * 9**5 + b'"}}'), "not valid JSON"),
        (signed({}, text=START + b',"document":"' + b"1" * 9**5 + b'"}}'), "not valid JSON"),
        (signed({}, text=START + b',"document":"{}"},"__metadata__":3}'), "a name stands twice"),
        (signed({}, text=START + b',"document":"\xff{}"}'), "not valid JSON"),
        (signed({}, text=b'{"a":3}' + b" " * 100), "not a file of tensors"),
    ],
)
def test_hostile_headers(data: bytearray, reason: str) -> None:
    with pytest.raises(TensorsFileError, match=re.escape(reason)):
        unpack(data)


@pytest.mark.parametrize(
    "change",
    [
        {"round": -1},
        {"round": 2**63},
        {"round": 1.0},
        {"round": None},
        {"chain": "0" * 63},
        {"bounds": {"w": float("nan")}},
        {"bounds": {"w": 0.0}},
        {"bounds": {"w": "1"}},
        {"bounds": []},
        {"kind": "pending"},
        {"version": 2},
        {"more": 1},
    ],
)
def test_hostile_facts(key: qn.SecretKey, change: dict[str, Any]) -> None:
    state, _ = small(key)
    facts = {"round": 1, "chain": state.chain, "bounds": {"w": 1}, "kind": "held", "version": 1}
    facts["training"] = TRAINING
    named = {f"weights/{name}": t for name, t in state.state.weights.items()}
    good = sealed_by_a_holder(key, bytes(pack(facts, named)), state)
    assert reopened(good, key, state).state.bounds == {"w": 1.0}
    bad = sealed_by_a_holder(key, bytes(pack({**facts, **change}, named)), state)
    with pytest.raises(SnapshotError, match=f"wrong facts: {next(iter(change))}"):
        reopened(bad, key, state)
    stray = sealed_by_a_holder(key, bytes(pack(facts, {"w": np.zeros(1, np.float32)})), state)
    with pytest.raises(SnapshotError, match="an unknown tensor 'w'"):
        reopened(stray, key, state)


def test_what_cannot_be_packed() -> None:
    with pytest.raises(ValueError, match="tensor 'w' of type float64; allowed: float32"):
        pack({}, {"w": np.zeros(2)})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="'__metadata__'"):
        pack({}, {"__metadata__": np.zeros(2, np.float32)})
    with pytest.raises(ValueError, match=f"allowed: {MAX_HEADER_BYTES}"):
        pack({"long": "x" * MAX_HEADER_BYTES}, {})
    assert unpack(pack({"a": [1, 2.5]}, {})) == ({"a": [1, 2.5]}, {})


def test_its_length_does_not_tell_the_clip_bounds(keys: qn.KeyPair) -> None:
    """Not whether there are any either: then the server would know whether a sum has opened."""
    rng = np.random.default_rng(3)
    lengths = set()
    for bound in (None, 2.0**-32, 0.1, 1 / 3, 1.0, 5e-324, 2.2250738585072014e-308, 1.7e308):
        weights = {f"w.{i}": rng.normal(size=(3, i + 1)).astype(np.float32) for i in range(9)}
        bounds = None if bound is None else dict.fromkeys(weights, bound)
        held = Held(GlobalState(3, weights, bounds), "a" * 64)
        sealed = seal_snapshot(held, "0" * 32, keys.secret)
        opened = open_snapshot(sealed, "0" * 32, keys.secret, round=3, chain="a" * 64)
        assert opened.state.bounds == bounds
        lengths.add(len(sealed))
    assert len(lengths) == 1
