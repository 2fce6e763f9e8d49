"""A hostile client: it is named, the server stays up, and the others' sum is exact."""

from __future__ import annotations

import json
import logging
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MetricRecord
from flwr.app.message import make_message
from tests.fl.flower import hostile
from tests.fl.flower.faults import Damage, Replace, ReplyOf
from tests.fl.flower.federation import (
    NO_EVALUATION,
    NODES,
    Federation,
    Reference,
    assert_equal,
    final,
)

import quancrypt_native as qn
from quancrypt_fl.flower.protocol import DATA
from quancrypt_native import _core

VILLAIN = 13
HONEST = [node for node in NODES if node != VILLAIN]


def payload(change: Callable[[bytes], bytes], *names: str) -> hostile.MessageEdit:
    """Change the bytes of some blobs: "upload", "report", "snapshot"."""

    def edit(reply: Message) -> Message:
        record = reply.content.array_records[DATA]
        arrays = {}
        for name, array in record.items():
            data = change(array.data) if name in names else array.data
            arrays[name] = Array("uint8", (len(data),), array.stype, data)
        reply.content[DATA] = ArrayRecord(arrays)
        return make_message(reply.metadata, reply.content)

    return edit


def reframed(
    head: Callable[[dict[str, Any]], None] = lambda header: None,
    body: Callable[[bytes], bytes] = lambda data: data,
) -> Callable[[bytes], bytes]:
    """Another header or body of a serialized update, under a right checksum."""

    def change(data: bytes) -> bytes:
        (length,) = struct.unpack_from("<Q", data, 12)
        header = json.loads(data[20 : 20 + length])
        after = body(data[20 + length : -4])
        head(header)
        header["body_bytes"] = len(after)
        text = json.dumps(header, separators=(",", ":")).encode()
        frame = data[:12] + struct.pack("<Q", len(text)) + text + after
        return frame + struct.pack("<I", _core.crc32c(frame))

    return change


def says(**fields: Any) -> Callable[[bytes], bytes]:
    return reframed(lambda header: header.update(fields))


def encrypted(keys: qn.KeyPair, params: qn.Parameters, **tensors: Any) -> Callable[[bytes], bytes]:
    """A fresh and honest ciphertext, of something else."""

    def change(data: bytes) -> bytes:
        del data
        encryptor = qn.Encryptor(params, keys.secret)
        arrays = {name: np.zeros(size, np.float32) for name, (size, _) in tensors.items()}
        clips = {name: clip for name, (_, clip) in tensors.items()}
        return encryptor.encrypt(arrays, clips).to_bytes()

    return change


def the_others_are_exact(
    federation: Federation, keys: qn.KeyPair, result: Any, number: int = 1
) -> None:
    """Refused in one round, by name; the model is that of the others' updates."""
    in_sum = [VILLAIN in federation.counted(record) for record in federation.last.records]
    assert in_sum == [t != number for t in range(3)]
    refusals = [entry[:3] for entry in federation.watcher.refusals]
    assert refusals[0][0] == number + 1
    assert {node for _, _, node in refusals} == {VILLAIN}
    assert federation.watcher.names[VILLAIN] == "client-3"
    assert all(text.isprintable() and len(text) < 1000 for text in federation.watcher.texts)
    assert federation.failed == {}
    model = final(result, keys)
    assert_equal(model, federation.expected())
    if number:
        assert_equal(model, Reference(federation.params).train(lost={number: {2}}))


HEADERS: dict[str, hostile.MessageEdit] = {
    "huge header": hostile.huge_header(),
    "deep header": hostile.deep_header(),
    "short deep header": hostile.deep_header(4000),
    "broken header": hostile.broken_header(),
    "no header": hostile.without_records("quancrypt"),
    "no records": hostile.without_records(),
    "other kinds": hostile.other_kinds(),
    "no metrics": hostile.without_records("metrics"),
    "no training": hostile.header_without("training"),
    "no key": hostile.header_without("key"),
    "unknown field": hostile.header_with(weight=7),
    "version": hostile.header_with(version=2),
    "training": hostile.header_with(training="ab" * 16),
    "no hex": hostile.header_with(training="../../../../etc/passwd/aaaaaaaaaa"),
    "earlier round": hostile.header_with(round=0),
    "later round": hostile.header_with(round=2),
    "negative round": hostile.header_with(round=-1),
    "round of text": hostile.header_with(round="1"),
    "round of float": hostile.header_with(round=1.0),
    "huge round": hostile.header_with(round=10**400),
    "chain": hostile.header_with(chain="0" * 64),
    "key": hostile.header_with(key="0" * 32),
    "params": hostile.header_with(params="0" * 32),
    "did nothing": hostile.header_with(did=[]),
    "did other": hostile.header_with(did=["finish"]),
    "did too much": hostile.header_with(did=["train", "upload", "snapshot"]),
    "did unknown": hostile.header_with(did=["train", "\x1b[2J"]),
    "long name": hostile.header_with(name="x" * 65),
    "steering name": hostile.header_with(name="\x1b[2J" * 30),
    "samples": hostile.header_with(samples=-1),
    "huge samples": hostile.header_with(samples=2**53),
    "NaN loss": hostile.header_with(loss=float("nan")),
    "infinite loss": hostile.header_with(loss=float("inf")),
    "seconds": hostile.header_with(seconds={"train": -1.0}),
    "unknown seconds": hostile.header_with(seconds={"\x1b[2J": 1.0}),
    "held": hostile.header_with(held=[1]),
    "NaN count": hostile.metrics_with({"num-examples": float("nan")}),
    "no count": hostile.metrics_with({"num-examples": []}),
    "negative count": hostile.metrics_with({"num-examples": -5}),
    "huge count": hostile.metrics_with({"num-examples": 2**62}),
    "error": hostile.long_error(),
}
"""Found before a ciphertext is parsed."""


@pytest.mark.parametrize("edit", HEADERS)
def test_headers(
    federation: Federation, keys: qn.KeyPair, monkeypatch: pytest.MonkeyPatch, edit: str
) -> None:
    parsed: list[int] = []
    real = qn.EncryptedUpdate.parse

    def spy(data: bytes, params: qn.Parameters) -> qn.EncryptedUpdate:
        update = real(data, params)
        if update.seeded:  # an upload; sums are parsed too, and are not
            parsed.append(hash(data))
        return update

    stopped: list[int] = []

    def noting(reply: Message) -> Message:
        stopped.append(hash(reply.content.array_records[DATA]["upload"].data))
        return HEADERS[edit](reply)

    monkeypatch.setattr(qn.EncryptedUpdate, "parse", staticmethod(spy))
    federation.grid.inject(Replace(noting), node=VILLAIN, round=1, asks="upload")
    result = federation.train(**NO_EVALUATION)
    the_others_are_exact(federation, keys, result)
    assert len(parsed) == 5 + 5 + 4 + 5  # reports and three rounds
    assert not set(parsed) & set(stopped)


PAYLOADS: dict[str, hostile.MessageEdit] = {
    "random": hostile.random_payload(),
    "truncated": hostile.truncated_payload(),
    "nearly whole": hostile.truncated_payload(0.999),
    "extended": hostile.extended_payload(),
    "flipped": hostile.flipped_bit(),
    "flipped at the beginning": hostile.flipped_bit(0.005),
    "huge counts": hostile.huge_counts(),
    "huge header length": hostile.huge_counts(12, 8),
    "empty": hostile.empty_payload(),
    "huge shape": hostile.huge_shape(),
    "pickled": hostile.pickled_array(),
    "no array": hostile.not_an_array(),
    "floats": hostile.float_arrays(),
    "megabytes": payload(lambda data: data * 1000, "upload"),
    "no upload": hostile.without_records(DATA),
    "not seeded": payload(reframed(lambda h: h.update(seed=None), lambda b: b + b), "upload"),
    "weight 2": payload(says(weight=2), "upload"),
    "weight 64": payload(says(weight=64), "upload"),
    "weight 0": payload(says(weight=0), "upload"),
    "huge weight": payload(says(weight=2**40), "upload"),
    "weight and no seed": payload(
        reframed(lambda h: h.update(seed=None, weight=9), lambda b: b + b), "upload"
    ),
    "key": payload(says(key="0" * 32), "upload"),
    "params": payload(says(params="0" * 32), "upload"),
    "single": payload(says(single=True), "upload"),
    "integers": payload(says(integers=True), "upload"),
    "no tensors": payload(says(tensors=[]), "upload"),
    "names": payload(
        reframed(lambda h: [t.__setitem__(0, "\x1b[2J" + t[0]) for t in h["tensors"]]), "upload"
    ),
    "order": payload(reframed(lambda h: h["tensors"].reverse()), "upload"),
    "bounds": payload(reframed(lambda h: [t.__setitem__(2, 0.5) for t in h["tensors"]]), "upload"),
    "shapes": payload(
        reframed(lambda h: [t.__setitem__(1, [2**40]) for t in h["tensors"]]), "upload"
    ),
    "body of ones": payload(reframed(body=lambda b: b"\xff" * len(b)), "upload"),
    "no body": payload(reframed(body=lambda b: b""), "upload"),
    "half a body": payload(reframed(body=lambda b: b[: len(b) // 2]), "upload"),
}


@pytest.mark.parametrize("edit", PAYLOADS)
def test_payloads(federation: Federation, keys: qn.KeyPair, edit: str) -> None:
    fault = federation.grid.inject(Replace(PAYLOADS[edit]), node=VILLAIN, round=1, asks="upload")
    result = federation.train(**NO_EVALUATION)
    assert fault.fired == 1
    the_others_are_exact(federation, keys, result)


@pytest.mark.parametrize("edit", ["random", "truncated", "empty", "pickled", "key", "bounds"])
def test_reports(federation: Federation, keys: qn.KeyPair, edit: str) -> None:
    """The report of the first round, which decides on everybody's clip bounds."""
    edits = {
        **PAYLOADS,
        "key": payload(says(key="0" * 32), "report"),
        "bounds": payload(
            reframed(lambda h: [t.__setitem__(2, 0.5) for t in h["tensors"]]), "report"
        ),
    }
    federation.grid.inject(Replace(edits[edit]), node=VILLAIN, round=0, asks="report")
    result = federation.train(**NO_EVALUATION)
    in_sum = [VILLAIN in federation.counted(record) for record in federation.last.records]
    assert in_sum == [False, True, True]
    assert {node for _, _, node, _ in federation.watcher.refusals} == {VILLAIN}
    assert_equal(final(result, keys), federation.expected())


@pytest.mark.parametrize(
    "edit",
    [hostile.many_arrays(), hostile.lying_shape(), hostile.other_stype()],
    ids=["arrays beside", "lying shape", "other stype"],
)
def test_an_honest_upload_in_a_strange_envelope(
    federation: Federation, keys: qn.KeyPair, edit: hostile.MessageEdit
) -> None:
    """Nothing but the bytes of the upload is looked at: it counts."""
    federation.grid.inject(Replace(edit), node=VILLAIN, round=1, asks="upload")
    result = federation.train(**NO_EVALUATION)
    assert federation.watcher.refusals == []
    assert_equal(final(result, keys), Reference(federation.params).train())


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        *[
            (hostile.unreadable(kind), "its reply cannot be read")
            for kind in ("Message", "RecordDict", "ArrayRecord", "ConfigRecord", "MetricRecord")
        ],
        (hostile.object_body("Array", lambda body: b"{not json"), "its reply cannot be read"),
        (
            hostile.object_body("ConfigRecord", lambda body: b"[" * 50_000),
            "its reply cannot be read",
        ),
    ],
)
def test_objects_that_flower_cannot_read(
    federation: Federation, keys: qn.KeyPair, edit: hostile.ObjectEdit, named: str
) -> None:
    federation.grid.inject(Damage(edit), node=VILLAIN, round=1, asks="upload")
    result = federation.train(**NO_EVALUATION)
    the_others_are_exact(federation, keys, result)
    assert named in federation.watcher.reasons(VILLAIN)[0]


def test_objects_that_never_arrive(federation: Federation, keys: qn.KeyPair) -> None:
    """The SuperLink refuses them each time: the client is asked a few times, and named."""
    fault = federation.grid.inject(Damage(hostile.refused()), node=VILLAIN, round=1)
    result = federation.train(**NO_EVALUATION)
    assert fault.fired == 3
    assert [entry[:3] for entry in federation.watcher.losses] == [(2, "train+upload", VILLAIN)]
    assert_equal(final(result, keys), Reference(federation.params).train(lost={1: {2}}))


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (ReplyOf(round=0), "it belongs to round 1, not 2"),
        (ReplyOf(node=12), None),
    ],
    ids=["round", "node"],
)
def test_replies_of_others(
    params: qn.Parameters,
    keys: qn.KeyPair,
    key_file: Path,
    tmp_path: Path,
    fast_disk: None,
    fault: ReplyOf,
    says: str | None,
) -> None:
    """Another round's is refused; another client's, copied, counts as the copier's own."""
    federation = Federation(params, key_file, tmp_path)
    federation.grid.inject(fault, node=VILLAIN, round=1 if says is None else 2, asks="upload")
    if says is not None:
        fault.round = 1
        result = federation.train(**NO_EVALUATION)
        assert federation.watcher.reasons(VILLAIN) == ["it belongs to round 2, not 3"]
        assert_equal(final(result, keys), Reference(params).train(lost={2: {2}}))
        return
    result = federation.train(**NO_EVALUATION)
    assert federation.failed == {}
    assert [r["participants"] for r in federation.last.records] == [5, 5, 5]
    assert federation.watcher.names[VILLAIN] == "client-2 (node 13)" or "client-2"
    held = {federation.held(node).chain for node in NODES}
    assert len(held) == 1
    del result


@pytest.mark.parametrize("strangers", [1, 2])
def test_strangers_with_another_key(
    params: qn.Parameters,
    keys: qn.KeyPair,
    key_file: Path,
    other_key_file: Path,
    tmp_path: Path,
    fast_disk: None,
    strangers: int,
) -> None:
    """The first to answer: the majority decides on the key all the same."""
    nodes = NODES[:strangers]
    federation = Federation(
        params, key_file, tmp_path, key_files=dict.fromkeys(nodes, other_key_file)
    )
    result = federation.train(**NO_EVALUATION)
    assert [set(federation.counted(r)) for r in federation.last.records] == [
        set(NODES[strangers:])
    ] * 3
    for node in nodes:
        assert len(federation.watcher.reasons(node)) >= 3
        first, *later = federation.watcher.reasons(node)
        assert "its key is" in first
        assert all("key" in reason for reason in later)  # it cannot open the others' sums either
    assert_equal(final(result, keys), federation.expected())


def test_a_key_that_is_given(
    params: qn.Parameters,
    keys: qn.KeyPair,
    key_file: Path,
    other_key_file: Path,
    tmp_path: Path,
    fast_disk: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Three strangers of five do not matter."""
    federation = Federation(
        params, key_file, tmp_path, key_files=dict.fromkeys(NODES[:3], other_key_file)
    )
    with caplog.at_level(logging.ERROR):
        result = federation.train(key_id=keys.secret.key_id, **NO_EVALUATION)
    assert [set(federation.counted(r)) for r in federation.last.records] == [{14, 15}] * 3
    assert_equal(final(result, keys), federation.expected())
    advice = "install the new one: quancrypt rotate KIT --install FOLDER"
    for node in NODES[:3]:  # told in one line on both sides, before any training
        assert all(
            "this kit has the old key" in reason and reason.endswith(advice)
            for reason in federation.watcher.reasons(node)
        )
        assert len(federation.watcher.reasons(node)) >= 3
        assert not any(trained == node for trained, _ in federation.trained)
    said = [record for record in caplog.records if advice in record.getMessage()]
    assert len(said) >= 9
    assert not any(record.exc_info or "\n" in record.getMessage() for record in said)


def test_a_key_of_a_round_that_failed_binds_nobody(
    params: qn.Parameters,
    keys: qn.KeyPair,
    key_file: Path,
    other_key_file: Path,
    tmp_path: Path,
    fast_disk: None,
) -> None:
    """Only two answer the first time, a stranger one of them; then everybody does."""
    from tests.fl.flower.faults import Lose

    federation = Federation(params, key_file, tmp_path, key_files={11: other_key_file})
    for node in NODES[2:]:
        federation.grid.inject(Lose("reply"), node=node, round=0)
    result = federation.train(**NO_EVALUATION)
    assert list(federation.failed) == [1]
    assert [r["participants"] for r in federation.last.records] == [0, 4, 4]
    assert_equal(final(result, keys), federation.expected())


METRICS: dict[str, dict[str, Any]] = {
    "NaN": {"train_loss": float("nan"), "eval_acc": float("nan")},
    "infinity": {"train_loss": float("inf"), "eval_loss": float("-inf")},
    "huge": {"train_loss": 1.7e308, "eval_loss": 1.7e308, "eval_acc": -1.7e308},
    "lists": {"train_loss": [1.0] * 1000, "eval_acc": [0.5, float("nan")]},
    "names": {f"\x1b[2J{i}": i for i in range(50)},
}


@pytest.mark.parametrize("lie", METRICS)
def test_lying_metrics(federation: Federation, keys: qn.KeyPair, tmp_path: Path, lie: str) -> None:
    """They cannot stop a round, nor spoil the records; the update counts as any other."""
    federation.grid.inject(Replace(hostile.metrics_with(METRICS[lie])), node=VILLAIN)
    result = federation.train(state=tmp_path / "server")
    assert_equal(final(result, keys), Reference(federation.params).train())
    assert [r["participants"] for r in federation.last.records] == [5, 5, 5]
    for record in federation.last.records:
        json.dumps(record, allow_nan=False)
        if lie in ("NaN", "infinity", "lists", "names"):
            assert 0 <= record["test_accuracy"] <= 1
    assert "\x1b" not in json.dumps(federation.last.records)


@pytest.mark.parametrize("count", [float("nan"), -1, 0, [], 2**62, 1e300])
def test_lying_counts_of_an_evaluation(
    federation: Federation, keys: qn.KeyPair, count: Any
) -> None:
    federation.grid.inject(
        Replace(hostile.metrics_with({"num-examples": count})),
        node=VILLAIN,
        message_type="evaluate",
    )
    result = federation.train(2)
    assert [phase for _, phase, _, _ in federation.watcher.refusals] == ["evaluate"] * 2
    assert_equal(final(result, keys), Reference(federation.params).train(2))


def test_a_count_beyond_all_others(federation: Federation, keys: qn.KeyPair) -> None:
    """It takes all the weight that the others can spare, which is what FedAvg gives it."""
    lie = hostile.header_with(samples=2**53 - 1)
    federation.grid.inject(Replace(lie), node=VILLAIN, round=0)
    federation.grid.inject(Replace(lie), node=VILLAIN, round=1)
    result = federation.train(**NO_EVALUATION)
    assert federation.failed == {}
    for record in federation.last.records:
        assert all(weight >= 1 for weight in federation.counted(record).values())
        assert record["weight"] <= federation.params.max_weight
    huge = {VILLAIN: 2**53 - 1}
    assert_equal(final(result, keys), federation.expected({1: huge, 2: huge, 3: huge}))


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("\x1b[2J\x07evil\r\n", "[2J evil"),
        ("client-1", "client-1 (node 13)"),
        ("client-1 (node 11)", "client-1 (node 11) (node 13)"),
        ("  client-1 ", "client-1 (node 13)"),
        ("\u202e\u200bclient-3", "client-3"),
        ("\n\t", "node 13"),
        ("", "node 13"),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
    ],
)
def test_names(federation: Federation, keys: qn.KeyPair, given: str, shown: str) -> None:
    federation.grid.inject(Replace(hostile.header_with(name=given)), node=VILLAIN)
    result = federation.train(2, **NO_EVALUATION)
    assert federation.watcher.names[VILLAIN] == shown
    names = list(federation.watcher.names.values())
    assert len(set(names)) == len(names)
    assert federation.watcher.names[11] == "client-1"
    assert_equal(final(result, keys), Reference(federation.params).train(2))


def test_a_snapshot_of_something_else(
    federation: Federation, keys: qn.KeyPair, tmp_path: Path
) -> None:
    """The server cannot read a snapshot, but it knows of which model it must be and how large."""
    edits = (
        payload(lambda data: data + bytes(10_000_000), "snapshot"),
        payload(lambda data: data[:60], "snapshot"),
        payload(lambda data: b"x" * len(data), "snapshot"),
        payload(lambda data: data[:26] + bytes(8) + data[34:], "snapshot"),
        hostile.without_records(DATA),
    )
    for number, edit in enumerate(edits, start=1):
        for node in NODES:
            federation.grid.inject(Replace(edit), node=node, round=number, asks="snapshot")
    result = federation.train(8, state=tmp_path / "server", snapshot_every=1, **NO_EVALUATION)
    assert len(federation.watcher.refusals) == 5
    assert all("snapshot" in r[3] or "upload" in r[3] for r in federation.watcher.refusals)
    assert [r["participants"] for r in federation.last.records] == [5, 4, 4, 4, 4, 4, 5, 5]
    kept = sum(path.stat().st_size for path in (tmp_path / "server").iterdir())
    assert kept < 100_000
    assert_equal(final(result, keys), federation.expected())


def test_a_claim_that_a_good_snapshot_is_damaged(
    federation: Federation, keys: qn.KeyPair, tmp_path: Path
) -> None:
    """Who was not sent it cannot have found it damaged."""
    lie = hostile.header_with(behind=True, did=[], held=None, damaged=1)
    federation.grid.inject(Replace(lie), node=VILLAIN, round=2, times=1)
    options = {"state": tmp_path / "server", "snapshot_every": 1, **NO_EVALUATION}
    result = federation.train(3, **options)
    assert any("client-3 catches up" in note for note in federation.watcher.notes)
    assert_equal(final(result, keys), federation.expected())
    assert list((tmp_path / "server").glob("snapshot-*.bin"))


@pytest.mark.parametrize("choices", [{}, {"error_feedback": True}], ids=["", "feedback"])
def test_a_sum_that_nobody_can_open(
    federation: Federation, keys: qn.KeyPair, choices: dict[str, Any]
) -> None:
    """A well-formed ciphertext of nonsense: all clients leave the round out alike, and go on."""
    noise = np.random.default_rng(3)
    prime = federation.params.coeff_modulus[0]

    def nonsense(body: bytes) -> bytes:
        residues = noise.integers(0, prime, size=len(body) // 8, dtype=np.uint64)
        return residues.tobytes() if len(body) % 8 == 0 else body

    edit = payload(reframed(body=nonsense), "upload")
    federation.grid.inject(Replace(edit), node=VILLAIN, round=1, asks="upload")
    result = federation.train(4, **choices, **NO_EVALUATION)
    assert federation.watcher.refusals == []
    assert [r["participants"] for r in federation.last.records] == [5, 5, 5, 5]
    reference = Reference(federation.params, **choices)
    for number in range(4):
        reference.round(range(5), failed=number == 1)
    assert_equal(final(result, keys), dict(reference.state.weights))


def test_every_message_at_once(federation: Federation, keys: qn.KeyPair, tmp_path: Path) -> None:
    """Nonsense in every phase of every round, another each time."""
    edits = [*HEADERS.values(), *PAYLOADS.values()]
    turn = iter(range(10_000))

    def any_of_them(reply: Message) -> Message:
        if not reply.has_content() or DATA not in reply.content.array_records:
            return reply
        try:
            return edits[next(turn) * 7 % len(edits)](reply)
        except (KeyError, struct.error, ValueError):  # an edit of what this reply has not
            return hostile.without_records()(reply)

    federation.grid.inject(Replace(any_of_them), node=VILLAIN)
    result = federation.train(4, state=tmp_path / "server", snapshot_every=1)
    assert federation.failed == {}
    assert_equal(final(result, keys), federation.expected())


def test_metrics_that_differ_from_the_others(federation: Federation, keys: qn.KeyPair) -> None:
    """An average is formed over the clients whose metrics have the same names."""

    def other(reply: Message) -> Message:
        reply.content["metrics"] = MetricRecord({"num-examples": 7, "evil": 1.0})
        return make_message(reply.metadata, reply.content)

    federation.grid.inject(Replace(other), node=VILLAIN, message_type="evaluate")
    federation.train(2)
    assert all("evil" not in record["metrics"] for record in federation.last.records)
    assert federation.last.records[-1]["test_accuracy"] > 0.3
