"""Targets of ``quancrypt_fl``: headers of messages, snapshots, what is stored, reports."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cache
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import quancrypt_native as qn
from fuzz.python import frames
from fuzz.python.json_mutations import bytes_changed, changed, to_text
from fuzz.python.target import Target
from quancrypt_fl.flower import protocol
from quancrypt_fl.flower.chain import digest, next_link
from quancrypt_fl.flower.held import (
    Held,
    Pending,
    held_bytes,
    memory_bytes,
    pending_bytes,
    read_held,
    read_memory,
    read_pending,
)
from quancrypt_fl.flower.history import History, RoundSum
from quancrypt_fl.flower.history_files import HistoryError, Memory
from quancrypt_fl.flower.history_state import read_state
from quancrypt_fl.flower.protocol import Link, ProtocolError, Reply, Request
from quancrypt_fl.flower.snapshot import _LABEL, open_snapshot, seal_snapshot
from quancrypt_fl.flower.snapshot_prefix import PREFIX, SnapshotError, chunks, said_by
from quancrypt_fl.flower.sums import Sums
from quancrypt_fl.flower.tensors_file import TensorsFileError, pack, unpack
from quancrypt_fl.method.agreement import Agreement
from quancrypt_fl.method.roles import ClientMemory, GlobalState
from quancrypt_fl.report.deployed import document_of, is_over
from quancrypt_fl.report.experiment import parse_experiment
from quancrypt_fl.report.runs import parse_run
from quancrypt_fl.report.values import UntrustedError

TRAINING = "0123456789abcdef" * 2
CHAIN = hashlib.sha256(b"fuzz").hexdigest()
INDEX, ROUNDS, INITIAL = "history.json", "rounds.jsonl", "initial.safetensors"


def _tensors() -> dict[str, Any]:
    return {
        "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.float32(1.5).reshape(()),
        "none": np.empty((0, 5), np.float32),
    }


def _held() -> Held:
    return Held(GlobalState(3, _tensors(), {"a.weight": 0.1, "b": 2.0, "none": 1.0}), CHAIN)


# --- headers ---


def _reads_header(read: Callable[[Any], Reply | Request]) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        text: object = data.decode("utf-8", "surrogateescape")
        if data.startswith(b"\0"):
            text = data  # a record may hold bytes where text is expected
        content = SimpleNamespace(config_records={protocol.RECORD: {"header": text}})
        try:
            header = read(SimpleNamespace(content=content))
        except ProtocolError:
            return
        again = type(header).model_validate_json(header.model_dump_json())
        assert again == header

    return run


def _replies() -> list[bytes]:
    most = Reply(
        training=TRAINING,
        round=3,
        chain=CHAIN,
        did=("train", "upload"),
        key="0" * 32,
        params="1" * 32,
        name="Ω",
        held=(3, CHAIN),
        samples=7,
        loss=0.5,
        seconds={"train": 1.0, "protect": 0.5},
    )
    least = Reply(training=TRAINING, round=0, chain=CHAIN, key="0" * 32, params="1" * 32)
    return [header.model_dump_json().encode() for header in (most, least)]


def _requests() -> list[bytes]:
    request = Request(
        training=TRAINING,
        round=1,
        chain=CHAIN,
        asks=("train", "upload"),
        agreement=Agreement(bits=8, max_weight=16),
        names=("a.weight", "b"),
        floats={"a.weight": "float32"},
        links=(Link(round=0, weight=3, digest=CHAIN, counted=True),),
        snapshot=(1, CHAIN),
    )
    return [request.model_dump_json().encode()]


# --- tensors, snapshots ---


def read_tensors(data: bytes) -> None:
    """``tensors_file.unpack``: every tensor is a view of what was given."""
    given = bytearray(data)
    try:
        _, tensors = unpack(given)
    except TensorsFileError:
        return
    assert sum(tensor.nbytes for tensor in tensors.values()) <= len(data)
    assert given == data


def read_stored(data: bytes) -> None:
    """What a client keeps between messages."""
    for read in (read_held, read_pending, read_memory):
        try:
            read(bytearray(data), TRAINING)
        except TensorsFileError:
            continue


@cache
def _key() -> qn.SecretKey:
    return qn.keygen(qn.Parameters.for_aggregation(max_poly_degree=1024)).secret


def open_sealed(data: bytes) -> None:
    """``open_snapshot``."""
    try:
        said_by(data)
        held = open_snapshot(data, TRAINING, _key(), round=3, chain=CHAIN)
    except SnapshotError:
        return
    assert (held.state.round, held.chain) == (3, CHAIN)


def snapshot(random: Random, data: bytes) -> bytes:
    """A snapshot changed, or its plaintext changed by somebody who has the key."""
    if random.random() < 0.3 or len(data) < PREFIX.size:
        return bytes_changed(random, data)
    plain = frames.tensors_file(random, bytes(held_bytes(_held(), TRAINING))) or b"\0"
    fields = list(PREFIX.unpack(data[: PREFIX.size]))
    fields[-1] = len(plain)
    prefix = PREFIX.pack(*fields)
    cipher = AESGCM(_key().derive(_LABEL + fields[5]))
    sealed = (cipher.encrypt(nonce, plain[a:b], prefix) for nonce, a, b in chunks(len(plain)))
    return prefix + b"".join(sealed)


# --- histories: the index, a zero byte, the rounds ---


def _history() -> bytes:
    history = History.begin(
        None,
        training=TRAINING,
        facts={"agreement": {"bits": 8}},
        chain=CHAIN,
        initial=b"initial",
        limit_bytes=1000,
    )
    for t in range(3):
        data = b"sum" * (t + 1)
        chain = next_link(history.chain, round=t, weight=2, scale=1.0, sum_digest=digest(data))
        history.append(RoundSum(t, chain, 2, 1.0, len(data), digest(data)), data, {"round": t + 1})
    history.keep_snapshot(2, history.chain_at(2) or "", b"snapshot")
    files = history._files
    return files.read(INDEX) + b"\0" + files.read(ROUNDS)


def read_history(data: bytes) -> None:
    """``read_state``, as a server that resumes does first."""
    index, _, rounds = data.partition(b"\0")
    files = Memory()
    for name, content in ((INDEX, index), (ROUNDS, rounds), (INITIAL, b"initial")):
        files.write(name, content)
    try:
        state = read_state(files, INDEX, ROUNDS, INITIAL)
    except HistoryError:
        return
    assert len(state.records) == len(state.rounds)


def history(random: Random, data: bytes) -> bytes:
    """A history changed, its SHA-256s right again: by somebody who can write the server's files."""
    index, _, rounds = data.partition(b"\0")
    if random.random() < 0.1:
        return bytes_changed(random, data)
    if random.random() < 0.4:
        lines = rounds.splitlines(keepends=True) or [b"{}\n"]
        at = random.randrange(len(lines))
        lines[at] = frames.document(random, lines[at]) + b"\n"
        rounds = b"".join(lines)
    try:
        facts = json.loads(index)["document"]
        if random.random() < 0.7:
            facts = changed(random, facts)
        if random.random() < 0.8 and isinstance(facts, dict):
            facts["rounds_bytes"] = len(rounds)
            facts["rounds_digest"] = digest(rounds)
        text = to_text(random, facts)
        canonical = json.dumps(json.loads(text)).encode()
    except (ValueError, KeyError, TypeError, RecursionError):
        return bytes_changed(random, data)
    return b'{"sha256": "%s", "document": %s}\0%s' % (digest(canonical).encode(), text, rounds)


# --- sums of a round, reports ---


def read_sums(data: bytes) -> None:
    """``Sums.from_bytes``."""
    try:
        sums = Sums.from_bytes(data)
    except ProtocolError:
        return
    assert sums.to_bytes() == data


def read_report(data: bytes) -> None:
    """A ``results.json``, an ``experiment.json`` or a ``status.json``, as the report reads it."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return
    for parse in (
        lambda: parse_run(document, "run"),
        lambda: parse_experiment(document, "place", 1),
        lambda: parse_run(document_of(document), "run"),
    ):
        try:
            parse()
        except UntrustedError:
            continue
    is_over(document)


def _report_documents() -> list[bytes]:
    record = {
        "round": 1,
        "test_accuracy": 0.5,
        "test_loss": 1.0,
        "train_loss": None,
        "pruning_rate": 0.0,
        "seconds": {"train": 1.0, "protect": 0.1, "aggregate": 0.1, "unprotect": 0.1},
        "bytes": {"upload": 10, "download": 20},
        "participants": 2,
        "lost": 0,
        "clients": [{"name": "a", "node": "1", "weight": 1, "samples": 3, "seconds": {"train": 1}}],
    }
    run = {
        "schema": 1,
        "method": "quancrypt",
        "dataset": "digits",
        "model": "mlp",
        "clients": 2,
        "seed": 1,
        "config": {"bits": 8, "clip": {"a": 1.0}},
        "environment": {"python": "3"},
        "rounds": [record, {**record, "round": 2}],
        "totals": {"parameters": 5, "test_accuracy": 0.5, "seconds": {"train": 2.0}},
    }
    status = {"schema": 1, "state": "running", "records": [record], "facts": {"method": "x"}}
    experiment = {
        "schema": 1,
        "name": "timing",
        "scale": "quick",
        "config": {},
        "cells": [],
        "tables": [{"title": "t", "head": ["a"], "rows": [["1"]]}],
        "checks": [{"name": "c", "passed": True}],
    }
    return [json.dumps(each).encode() for each in (run, status, experiment)]


def targets() -> dict[str, Target]:
    """By name."""
    held = _held()
    stored = [
        held_bytes(held, TRAINING),
        memory_bytes(ClientMemory(_tensors(), _tensors()), TRAINING),
        pending_bytes(Pending(3, CHAIN, _tensors(), 0.5, 7, {"n": 7}, 1.0), TRAINING),
    ]
    sums = [Sums(b"updates", b"reports", 3).to_bytes(), Sums(b"updates").to_bytes()]
    return {
        "reply": Target(_reads_header(protocol.read_reply), _replies(), frames.document),
        "request": Target(_reads_header(protocol.read_request), _requests(), frames.document),
        "tensors": Target(
            read_tensors, [bytes(pack({"a": [1.5]}, _tensors()))], frames.tensors_file
        ),
        "stored": Target(read_stored, [bytes(each) for each in stored], frames.tensors_file),
        "snapshot": Target(open_sealed, [seal_snapshot(held, TRAINING, _key())], snapshot),
        "history": Target(read_history, [_history()], history),
        "sums": Target(read_sums, sums, frames.raw),
        "report": Target(read_report, _report_documents(), frames.document),
    }
